using System.Collections.Concurrent;
using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace ModelHost.TestKit;

/// <summary>How a file of a <see cref="GalleryServer"/> is served.</summary>
public sealed record ServedFile(byte[] Content)
{
    /// <summary>Its version; null: the server names none.</summary>
    public string? ETag { get; init; }

    /// <summary>Whether parts of it can be asked for.</summary>
    public bool Ranges { get; init; } = true;

    /// <summary>Bytes after which a request hangs until its client leaves; null: none does.</summary>
    public int? HangsAfter { get; init; }

    /// <summary>Bytes after which the connection breaks, in the first so many requests.</summary>
    public (int Bytes, int Times)? Cut { get; init; }

    /// <summary>Bytes a second; null: as fast as it goes.</summary>
    public int? BytesPerSecond { get; init; }

    /// <summary>Where the client is sent instead.</summary>
    public Uri? Redirect { get; init; }

    /// <summary>A status instead of the file.</summary>
    public int? Status { get; init; }

    /// <summary>Bytes of the same letter that are sent without end in place of the content; null: the content is sent.</summary>
    public long? Endless { get; init; }
}

/// <summary>A request that a <see cref="GalleryServer"/> had.</summary>
/// <param name="Path">What was asked for.</param>
/// <param name="Range">The header of that name.</param>
/// <param name="IfNoneMatch">The header of that name.</param>
/// <param name="Status">The answer.</param>
public sealed record ServedRequest(string Path, string Range, string IfNoneMatch, int Status);

/// <summary>A web server on loopback for indexes and weights: ranges, versions, and whatever goes wrong on the web.</summary>
public sealed class GalleryServer : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly ConcurrentDictionary<string, ServedFile> _files = new();
    private readonly ConcurrentDictionary<string, int> _cuts = new();
    private readonly ConcurrentQueue<ServedRequest> _requests = new();

    private GalleryServer(WebApplication app) => _app = app;

    /// <summary>Where it listens.</summary>
    public Uri Url { get; private set; } = new("http://127.0.0.1");

    /// <summary>What it was asked for.</summary>
    public IReadOnlyList<ServedRequest> Requests => [.. _requests];

    /// <summary>Starts one.</summary>
    public static async Task<GalleryServer> StartAsync()
    {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MinResponseDataRate = null;
            kestrel.Listen(System.Net.IPAddress.Loopback, 0);
        });
        var app = builder.Build();
        var server = new GalleryServer(app);
        app.Run(server.ServeAsync);
        await app.StartAsync();
        server.Url = new Uri(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First());
        return server;
    }

    /// <summary>The address of a file.</summary>
    public Uri At(string path) => new(Url, path);

    /// <summary>Serves a file from now on.</summary>
    /// <returns>Its address.</returns>
    public Uri Serve(string path, ServedFile file)
    {
        _files["/" + path.TrimStart('/')] = file;
        return At(path);
    }

    /// <summary>Serves a text from now on.</summary>
    /// <returns>Its address.</returns>
    public Uri Serve(string path, string text, string? etag = null) => Serve(path, new ServedFile(System.Text.Encoding.UTF8.GetBytes(text)) { ETag = etag });

    /// <summary>How often a file was asked for.</summary>
    public int Count(string path) => _requests.Count(request => request.Path == "/" + path.TrimStart('/'));

    public async ValueTask DisposeAsync()
    {
        using var soon = new CancellationTokenSource(TimeSpan.FromMilliseconds(200));
        await _app.StopAsync(soon.Token);
        await _app.DisposeAsync();
    }

    private async Task ServeAsync(HttpContext context)
    {
        var path = context.Request.Path.Value!;
        var file = _files.GetValueOrDefault(path);
        var (first, length, status) = Answer(context.Request, file);
        _requests.Enqueue(new ServedRequest(path, context.Request.Headers.Range.ToString(), context.Request.Headers.IfNoneMatch.ToString(), status));
        context.Response.StatusCode = status;
        if (file is null || status is not (200 or 206))
        {
            context.Response.Headers.Location = file?.Redirect?.AbsoluteUri;
            return;
        }
        context.Response.Headers.ETag = file.ETag;
        if (file.Ranges)
            context.Response.Headers.AcceptRanges = "bytes";
        if (status == 206)
            context.Response.Headers.ContentRange = $"bytes {first}-{first + length - 1}/{file.Content.Length}";
        context.Response.ContentType = "application/octet-stream";
        if (file.Endless is null)
            context.Response.ContentLength = length;
        if (!HttpMethods.IsHead(context.Request.Method))
            await SendAsync(context, path, file, first, length);
    }

    private static (int First, int Length, int Status) Answer(HttpRequest request, ServedFile? file)
    {
        if (file is null)
            return (0, 0, 404);
        if (file.Redirect is not null)
            return (0, 0, 302);
        if (file.Status is { } status)
            return (0, 0, status);
        if (file.ETag is { } etag && request.Headers.IfNoneMatch == etag)
            return (0, 0, 304);
        var range = request.Headers.Range.ToString();
        if (!file.Ranges || !range.StartsWith("bytes=", StringComparison.Ordinal) || (request.Headers.IfRange.ToString() is { Length: > 0 } known && known != file.ETag))
            return (0, file.Content.Length, 200);
        var ends = range["bytes=".Length..].Split('-');
        var first = int.Parse(ends[0], CultureInfo.InvariantCulture);
        var last = ends[1].Length > 0 ? Math.Min(int.Parse(ends[1], CultureInfo.InvariantCulture), file.Content.Length - 1) : file.Content.Length - 1;
        return first >= file.Content.Length ? (0, 0, 416) : (first, last - first + 1, 206);
    }

    private async Task SendAsync(HttpContext context, string path, ServedFile file, int first, int length)
    {
        var aborted = context.RequestAborted;
        var cut = file.Cut is { } breaks && _cuts.AddOrUpdate(path, 1, (_, times) => times + 1) <= breaks.Times ? breaks.Bytes : int.MaxValue;
        var chunk = new byte[16 * 1024];
        Array.Fill(chunk, (byte)'-');
        for (long sent = 0; sent < (file.Endless ?? length);)
        {
            if (first + sent >= file.HangsAfter)
                await Task.Delay(Timeout.Infinite, aborted);
            if (sent >= cut)
            {
                context.Abort();
                return;
            }
            var most = Math.Min(file.BytesPerSecond is { } rate ? Math.Max(rate / 20, 1) : chunk.Length, Math.Min(cut, file.HangsAfter - first ?? int.MaxValue) - sent);
            var next = (int)Math.Min(Math.Min(most, chunk.Length), (file.Endless ?? length) - sent);
            await context.Response.Body.WriteAsync(file.Endless is null ? file.Content.AsMemory(first + (int)sent, next) : chunk.AsMemory(0, next), aborted);
            sent += next;
            if (file.BytesPerSecond is not null)
            {
                await context.Response.Body.FlushAsync(aborted);
                await Task.Delay(50, aborted);
            }
            else if (sent == file.HangsAfter - first)
                await context.Response.Body.FlushAsync(aborted);
        }
    }
}
