using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Extensions;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

namespace ModelHost.TestKit;

/// <summary>A file as a <see cref="FileServer"/> gives it out, well or badly.</summary>
public sealed class ServedFile
{
    private readonly TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _cuts;

    /// <summary>What is in it.</summary>
    public byte[] Content { get; set; } = [];

    /// <summary>Its ETag, with quotes; null: none. Default: of its content.</summary>
    public string? ETag { get; set; }

    /// <summary>Whether the rest of it can be asked for.</summary>
    public bool Ranges { get; set; } = true;

    /// <summary>Answers to come that break off after <see cref="CutAfter"/> bytes.</summary>
    public int Cuts { get => Volatile.Read(ref _cuts); set => Volatile.Write(ref _cuts, value); }

    /// <summary>Bytes of an answer that breaks off.</summary>
    public int CutAfter { get; set; }

    /// <summary>Bytes after which the answers wait for <see cref="Release"/>; null: they do not.</summary>
    public int? HoldAfter { get; set; }

    /// <summary>Whether its length is kept secret.</summary>
    public bool Chunked { get; set; }

    /// <summary>Where it sends clients on to; null: nowhere.</summary>
    public string? RedirectTo { get; set; }

    /// <summary>Statuses of the answers to come, before those with the content.</summary>
    public ConcurrentQueue<int> Statuses { get; } = new();

    /// <summary>Headers besides.</summary>
    public Dictionary<string, string> Headers { get; } = [];

    /// <summary>Its SHA-256.</summary>
    public string Sha256 => Convert.ToHexStringLower(SHA256.HashData(Content));

    internal Task Released => _released.Task;

    /// <summary>Whether this answer is one of those that break off.</summary>
    internal bool TakeCut() => Cuts > 0 && Interlocked.Decrement(ref _cuts) >= 0;

    /// <summary>Lets the answers that wait go on.</summary>
    public void Release() => _released.TrySetResult();
}

/// <summary>A request that a server got.</summary>
public sealed record ServedRequest(string Host, string Path, string Range, string IfRange, string Authorization, string IfNoneMatch);

/// <summary>A web server on loopback with files that go well or badly.</summary>
public sealed class FileServer : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly ConcurrentDictionary<string, ServedFile> _files = new();
    private readonly ConcurrentQueue<ServedRequest> _requests = new();

    private FileServer(WebApplication app) => _app = app;

    /// <summary>Where it listens.</summary>
    public Uri Address { get; private set; } = new("http://127.0.0.1");

    /// <summary>Its files by path.</summary>
    public IReadOnlyDictionary<string, ServedFile> Files => _files;

    /// <summary>What it was asked, in order.</summary>
    public IReadOnlyList<ServedRequest> Requests => [.. _requests];

    /// <summary>Starts one.</summary>
    /// <param name="certificate">Its certificate; null: it speaks cleartext.</param>
    /// <param name="first">Asked before the files; answers whether it has answered.</param>
    public static async Task<FileServer> StartAsync(X509Certificate2? certificate = null, Func<HttpContext, Task<bool>>? first = null)
    {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore().UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MinResponseDataRate = null;
            kestrel.Listen(System.Net.IPAddress.Loopback, 0, listen =>
            {
                listen.Protocols = HttpProtocols.Http1;
                if (certificate is not null)
                    listen.UseHttps(certificate);
            });
        });
        var app = builder.Build();
        var server = new FileServer(app);
        app.Run(async context =>
        {
            server.Hear(context.Request);
            if (first is null || !await first(context))
                await server.AnswerAsync(context);
        });
        await app.StartAsync();
        server.Address = new Uri(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First());
        return server;
    }

    /// <summary>Serves a file under a path, which may have a query.</summary>
    public ServedFile Put(string path, byte[] content)
    {
        var file = new ServedFile { Content = content, ETag = $"\"{Convert.ToHexStringLower(SHA256.HashData(content))[..16]}\"" };
        _files[path] = file;
        return file;
    }

    /// <summary>The address of a path.</summary>
    public string Url(string path) => new Uri(Address, path).AbsoluteUri;

    /// <summary>Content of a fixed seed.</summary>
    public static byte[] Bytes(int count, int seed = 1)
    {
        var bytes = new byte[count];
        new Random(seed).NextBytes(bytes);
        bytes[0] = 1; // not the mark of anything
        return bytes;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var file in _files.Values)
            file.Release();
        using var soon = new CancellationTokenSource(TimeSpan.FromMilliseconds(200));
        await _app.StopAsync(soon.Token);
        await _app.DisposeAsync();
    }

    private void Hear(HttpRequest request) => _requests.Enqueue(new ServedRequest(
        request.Host.Value ?? "", request.GetEncodedPathAndQuery(), request.Headers.Range.ToString(), request.Headers.IfRange.ToString(), request.Headers.Authorization.ToString(), request.Headers.IfNoneMatch.ToString()));

    private async Task AnswerAsync(HttpContext context)
    {
        if (!_files.TryGetValue(context.Request.GetEncodedPathAndQuery(), out var file))
        {
            context.Response.StatusCode = 404;
            return;
        }
        foreach (var (name, value) in file.Headers)
            context.Response.Headers[name] = value;
        if (file.RedirectTo is not null)
        {
            context.Response.Redirect(file.RedirectTo);
            return;
        }
        if (file.Statuses.TryDequeue(out var status))
        {
            context.Response.StatusCode = status;
            return;
        }
        await SendAsync(context, file);
    }

    private static async Task SendAsync(HttpContext context, ServedFile file)
    {
        var (request, response) = (context.Request, context.Response);
        if (file.ETag is not null)
            response.Headers.ETag = file.ETag;
        if (file.ETag is not null && request.Headers.IfNoneMatch == file.ETag)
        {
            response.StatusCode = 304;
            return;
        }
        var from = 0;
        if (file.Ranges && request.Headers.Range.ToString() is { Length: > 0 } range && (request.Headers.IfRange.Count == 0 || request.Headers.IfRange == file.ETag))
        {
            from = int.Parse(range["bytes=".Length..].TrimEnd('-'), CultureInfo.InvariantCulture);
            if (from >= file.Content.Length)
            {
                response.StatusCode = 416;
                response.Headers.ContentRange = $"bytes */{file.Content.Length}";
                return;
            }
            response.StatusCode = 206;
            response.Headers.ContentRange = $"bytes {from}-{file.Content.Length - 1}/{file.Content.Length}";
        }
        if (!file.Chunked)
            response.ContentLength = file.Content.Length - from;
        var to = file.Content.Length;
        var isCut = file.TakeCut();
        if (isCut)
            to = Math.Min(to, from + file.CutAfter);
        if (file.HoldAfter is { } hold && from < hold)
        {
            await response.Body.WriteAsync(file.Content.AsMemory(from, Math.Min(hold, to) - from), context.RequestAborted);
            await response.Body.FlushAsync(context.RequestAborted);
            await file.Released.WaitAsync(context.RequestAborted).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            from = Math.Min(hold, to);
        }
        await response.Body.WriteAsync(file.Content.AsMemory(from, to - from), context.RequestAborted);
        // closes the connection behind what was sent: a reset would take back what the client has not read yet
        if (isCut)
            throw new IOException("cut off");
    }
}
