using System.Collections.Concurrent;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;

namespace ModelHost.Tests.Docker;

/// <summary>
/// Speaks as a current Docker Engine about versions (29 speaks 1.51 and refuses what is older than 1.44), keeps what it was asked, and answers
/// what a test tells it to.
/// </summary>
internal sealed class HandMadeEngine : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly string _folder;

    private HandMadeEngine(string folder)
    {
        _folder = Directory.CreateDirectory(folder).FullName;
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.ListenUnixSocket(SocketPath);
            kestrel.Limits.MaxRequestBodySize = null;
        });
        _app = builder.Build();
        _app.Run(AnswerAsync);
    }

    public string? Newest { get; init; } = "1.51";

    public string Oldest { get; init; } = "1.44";

    /// <summary>Whether it says that it is Podman, and takes calls of Podman's own API, in any version.</summary>
    public bool IsPodman { get; init; }

    public RequestDelegate Answer { get; init; } = _ => Task.CompletedTask;

    public ConcurrentQueue<RecordedCall> Calls { get; } = [];

    public int Pings { get; private set; }

    public Uri Endpoint => new($"unix://{SocketPath}");

    private string SocketPath => Path.Combine(_folder, "d.sock");

    /// <summary>In the folder of another engine that has ended: the same machine after an upgrade.</summary>
    public static async Task<HandMadeEngine> StartAsync(
        RequestDelegate? answer = null, string? newest = "1.51", string oldest = "1.44", string? folder = null,
        bool isPodman = false)
    {
        var engine = new HandMadeEngine(folder ?? Directory.CreateTempSubdirectory("mhd").FullName)
        {
            Answer = answer ?? (_ => Task.CompletedTask),
            Newest = newest,
            Oldest = oldest,
            IsPodman = isPodman,
        };
        await engine._app.StartAsync();
        return engine;
    }

    public static Task<HandMadeEngine> AnsweringAsync(string body, int status = 200) => StartAsync(async context =>
    {
        context.Response.StatusCode = status;
        context.Response.ContentType = "application/json";
        if (status is not (204 or 304))
            await context.Response.WriteAsync(body);
    });

    public async ValueTask DisposeAsync()
    {
        using (var now = new CancellationTokenSource())
        {
            await now.CancelAsync();
            await _app.StopAsync(now.Token);
        }
        await _app.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    private async Task AnswerAsync(HttpContext context)
    {
        var target = context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget;
        if (target == "/_ping")
        {
            Pings++;
            if (Newest is not null)
                context.Response.Headers["Api-Version"] = Newest;
            if (IsPodman)
                context.Response.Headers["Libpod-Api-Version"] = "5.4.0";
            context.Response.Headers.Server = "HandMade/1.0";
            await context.Response.WriteAsync("OK");
            return;
        }
        var version = target.Split('/')[1].TrimStart('v');
        if (!(IsPodman && target.Contains("/libpod/", StringComparison.Ordinal)) && (Minor(version) < Minor(Oldest) || Minor(version) > Minor(Newest!)))
        {
            var (word, bound) = Minor(version) < Minor(Oldest)
                ? ("old", $"Minimum supported API version is {Oldest}")
                : ("new", $"Maximum supported API version is {Newest}");
            context.Response.StatusCode = 400;
            await context.Response.WriteAsJsonAsync(new { message = $"client version {version} is too {word}. {bound}" });
            return;
        }
        using var reader = new StreamReader(context.Request.Body);
        var parts = target[(version.Length + 2)..].Split('?');
        Calls.Enqueue(new(
            context.Request.Method, version, parts[0], parts.Length > 1 ? Uri.UnescapeDataString(parts[1]) : "", await reader.ReadToEndAsync()));
        await Answer(context);
    }

    private static int Minor(string version) => int.Parse(version.Split('.')[1], null);
}

internal sealed record RecordedCall(string Method, string Version, string Path, string Query, string Body)
{
    public override string ToString() => $"{Method} {Path}{(Query.Length > 0 ? "?" : "")}{Query}";
}
