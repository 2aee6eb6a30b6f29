using System.Collections.Concurrent;
using System.Text.Json;
using Microsoft.AspNetCore.Http;

namespace ModelHost.Tests.Docker;

/// <summary>A container engine with images that are pulled and deleted, and with what else a test says of them.</summary>
internal sealed class ImageEngine : IAsyncDisposable
{
    private HandMadeEngine _engine = null!;

    /// <summary>The ids of its images, by name.</summary>
    public ConcurrentDictionary<string, string> Images { get; } = new(StringComparer.Ordinal);

    /// <summary>Its containers: name, state, and id of the image.</summary>
    public ConcurrentQueue<(string Name, string State, string ImageId)> Containers { get; } = [];

    /// <summary>The id that the next pull brings.</summary>
    public string Next { get; set; } = "sha256:1";

    /// <summary>What a pull waits for.</summary>
    public Task Pulling { get; set; } = Task.CompletedTask;

    /// <summary>What a deletion waits for.</summary>
    public Task Deleting { get; set; } = Task.CompletedTask;

    /// <summary>Why it deletes nothing; null: it does.</summary>
    public string? Conflict { get; set; }

    /// <summary>Deletions of images that were asked for.</summary>
    public string[] Deletions => [.. _engine.Calls.Where(call => call.Method == "DELETE" && call.Path.StartsWith("/images/", StringComparison.Ordinal)).Select(call => call.ToString())];

    public string Endpoint => _engine.Endpoint.OriginalString;

    public static async Task<ImageEngine> StartAsync()
    {
        var engine = new ImageEngine();
        engine._engine = await HandMadeEngine.StartAsync(engine.AnswerAsync);
        return engine;
    }

    public ValueTask DisposeAsync() => _engine.DisposeAsync();

    private async Task AnswerAsync(HttpContext context)
    {
        var path = context.Request.Path.Value!;
        context.Response.ContentType = "application/json";
        if (path.EndsWith("/images/create", StringComparison.Ordinal))
        {
            await context.Response.WriteAsync("""{"status":"Downloading","id":"a","progressDetail":{"current":40,"total":100}}""");
            await context.Response.Body.FlushAsync();
            await Pulling;
            Images[$"{context.Request.Query["fromImage"]}:{context.Request.Query["tag"]}"] = Next;
            await context.Response.WriteAsync("""{"status":"Pull complete","id":"a"}""");
        }
        else if (path.EndsWith("/containers/json", StringComparison.Ordinal))
        {
            await JsonAsync(context, Containers.Select(one => new { Id = "c" + one.Name, Names = (string[])["/" + one.Name], Image = one.ImageId, ImageID = one.ImageId, one.State, Created = 1 }));
        }
        else if (path.EndsWith("/images/json", StringComparison.Ordinal))
        {
            await JsonAsync(context, Images.Select(image => new { Id = image.Value, RepoTags = (string[])[image.Key], Created = 1, Size = 5000 }));
        }
        else if (Images.Keys.FirstOrDefault(name => Uri.UnescapeDataString(path).Contains($"/images/{name}", StringComparison.Ordinal)) is not { } named)
        {
            context.Response.StatusCode = 404;
            await JsonAsync(context, new { message = "No such image" });
        }
        else if (context.Request.Method == "DELETE")
        {
            await Deleting;
            context.Response.StatusCode = Conflict is null ? 200 : 409;
            if (Conflict is null)
                Images.TryRemove(named, out _);
            await (Conflict is null ? JsonAsync(context, (object[])[new { Untagged = named }]) : JsonAsync(context, new { message = Conflict }));
        }
        else
        {
            await JsonAsync(context, new { Id = Images[named], RepoTags = (string[])[named] });
        }
    }

    private static Task JsonAsync(HttpContext context, object body) => context.Response.WriteAsync(JsonSerializer.Serialize(body));
}
