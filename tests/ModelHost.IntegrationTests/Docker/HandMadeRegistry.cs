using System.Formats.Tar;
using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace ModelHost.IntegrationTests.Docker;

/// <summary>Just enough of a registry on the loopback for an engine to pull from: engines take those without TLS.</summary>
internal sealed class HandMadeRegistry : IAsyncDisposable
{
    private const UnixFileMode Runnable = UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.GroupRead | UnixFileMode.GroupExecute
        | UnixFileMode.OtherRead | UnixFileMode.OtherExecute;
    private const string Token = "token-of-tests";
    private const string ManifestType = "application/vnd.docker.distribution.manifest.v2+json";

    private readonly WebApplication _app;
    private readonly Dictionary<string, byte[]> _blobs = [];
    private readonly Dictionary<string, byte[]> _manifests = [];
    private readonly Random _random = new(7);

    private HandMadeRegistry()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        _app = builder.Build();
        _app.Run(AnswerAsync);
    }

    /// <summary>Host and port: the first part of the names of its images.</summary>
    public string Host { get; private set; } = "";

    /// <summary><c>user:password</c> without which it refuses everything; empty: nobody has a login here; null: it is open to everybody.</summary>
    public string? Login { get; set; }

    /// <summary>Whether the login is good for a token, and only that for the rest.</summary>
    public bool WantsToken { get; set; }

    public static async Task<HandMadeRegistry> StartAsync()
    {
        var registry = new HandMadeRegistry();
        await registry._app.StartAsync();
        var addresses = registry._app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!;
        registry.Host = new Uri(addresses.Addresses.Single()).Authority;
        return registry;
    }

    /// <summary>A layer with one file of noise.</summary>
    public (string Digest, string DiffId) AddLayer(string file, int bytes)
    {
        var noise = new byte[bytes];
        _random.NextBytes(noise);
        return AddLayer((file, noise));
    }

    /// <summary>A layer with files that everybody may read and run.</summary>
    public (string Digest, string DiffId) AddLayer(params (string Path, byte[] Content)[] files)
    {
        using var tar = new MemoryStream();
        using (var writer = new TarWriter(tar, leaveOpen: true))
        {
            foreach (var (path, content) in files)
                writer.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, path) { DataStream = new MemoryStream(content), Mode = Runnable });
        }
        using var zipped = new MemoryStream();
        using (var gzip = new GZipStream(zipped, CompressionLevel.Fastest, leaveOpen: true))
            gzip.Write(tar.ToArray());
        return (AddBlob(zipped.ToArray()), Digest(tar.ToArray()));
    }

    public void AddImage(string name, string tag, params (string Digest, string DiffId)[] layers) => AddImage(name, tag, [], layers);

    public void AddImage(string name, string tag, string[] entrypoint, (string Digest, string DiffId)[] layers)
    {
        var config = AddBlob(JsonSerializer.SerializeToUtf8Bytes(new
        {
            architecture = "amd64",
            os = "linux",
            config = new { Entrypoint = entrypoint, Labels = new Dictionary<string, string> { ["made"] = "by hand" } },
            rootfs = new { type = "layers", diff_ids = layers.Select(l => l.DiffId) },
        }));
        _manifests[$"/v2/{name}/manifests/{tag}"] = JsonSerializer.SerializeToUtf8Bytes(new
        {
            schemaVersion = 2,
            mediaType = ManifestType,
            config = new { mediaType = "application/vnd.docker.container.image.v1+json", size = _blobs[config].Length, digest = config },
            layers = layers.Select(l => new
            {
                mediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip",
                size = _blobs[l.Digest].Length,
                digest = l.Digest,
            }),
        });
    }

    public long Bytes(string digest) => _blobs[digest].Length;

    public async ValueTask DisposeAsync() => await _app.DisposeAsync();

    private string Basic => "Basic " + Convert.ToBase64String(Encoding.UTF8.GetBytes(Login ?? ""));

    private async Task AnswerAsync(HttpContext context)
    {
        var path = context.Request.Path.Value!;
        context.Response.Headers["Docker-Distribution-Api-Version"] = "registry/2.0";
        if (Login is not null && path != "/token" && context.Request.Headers.Authorization != (WantsToken ? "Bearer " + Token : Basic))
        {
            context.Response.Headers.WWWAuthenticate = WantsToken ? $"Bearer realm=\"http://{context.Request.Host}/token\",service=\"tests\"" : "Basic realm=\"tests\"";
            await RefuseAsync(context, 401, "UNAUTHORIZED", "authentication required");
            return;
        }
        if (path == "/token")
        {
            if (context.Request.Headers.Authorization == Basic)
                await context.Response.WriteAsJsonAsync(new { token = Token });
            else
                await RefuseAsync(context, 401, "UNAUTHORIZED", "incorrect username or password");
            return;
        }
        if (path == "/v2/")
            return;
        // once it was fetched by tag, an engine fetches a manifest by digest
        var manifest = _manifests.GetValueOrDefault(path) ?? _manifests.Values.FirstOrDefault(m => path.EndsWith(Digest(m), StringComparison.Ordinal));
        if (manifest is not null)
        {
            context.Response.Headers["Docker-Content-Digest"] = Digest(manifest);
            context.Response.ContentType = ManifestType;
            await SendAsync(context, manifest);
        }
        else if (_blobs.TryGetValue(path.Split('/')[^1], out var blob))
        {
            context.Response.ContentType = "application/octet-stream";
            await SendAsync(context, blob);
        }
        else
        {
            var isKnown = _manifests.Keys.Any(known => path.StartsWith(known[..(known.LastIndexOf('/') + 1)], StringComparison.Ordinal));
            await (isKnown ? RefuseAsync(context, 404, "MANIFEST_UNKNOWN", "manifest unknown") : RefuseAsync(context, 404, "NAME_UNKNOWN", "repository name not known to registry"));
        }
    }

    private static Task RefuseAsync(HttpContext context, int status, string code, string message)
    {
        context.Response.StatusCode = status;
        return context.Response.WriteAsJsonAsync(new { errors = new[] { new { code, message } } });
    }

    private static async Task SendAsync(HttpContext context, byte[] body)
    {
        context.Response.ContentLength = body.Length;
        if (!HttpMethods.IsHead(context.Request.Method))
            await context.Response.Body.WriteAsync(body);
    }

    private string AddBlob(byte[] blob)
    {
        _blobs[Digest(blob)] = blob;
        return Digest(blob);
    }

    private static string Digest(byte[] bytes) => $"sha256:{Convert.ToHexStringLower(SHA256.HashData(bytes))}";
}
