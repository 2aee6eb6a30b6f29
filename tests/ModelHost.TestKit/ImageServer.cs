using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;

namespace ModelHost.TestKit;

/// <summary>A registry on loopback with images to be pulled (OCI distribution 1.1, the reading half), with tokens where wished.</summary>
public sealed class ImageServer : IAsyncDisposable
{
    private const string ManifestType = "application/vnd.oci.image.manifest.v1+json", IndexType = "application/vnd.oci.image.index.v1+json";
    private const string LayerType = "application/vnd.oci.image.layer.v1.tar";

    private ImageServer(FileServer files) => Files = files;

    /// <summary>The files below it: <c>/v2/REPOSITORY/manifests/…</c> and <c>/v2/REPOSITORY/blobs/…</c>.</summary>
    public FileServer Files { get; }

    /// <summary>Host and port, as references begin.</summary>
    public string Host => Files.Address.Authority;

    /// <summary>Starts one.</summary>
    /// <param name="wantsToken">Whether it is read only with a token, which counts for one repository.</param>
    /// <param name="login"><c>user:password</c> that it gives tokens to, or, without them, is read with; null: it gives tokens to anybody.</param>
    /// <param name="realm">Where tokens are had; null: from itself.</param>
    public static async Task<ImageServer> StartAsync(bool wantsToken = false, string? login = null, Uri? realm = null)
    {
        FileServer? files = null;
        files = await FileServer.StartAsync(first: async context =>
        {
            bool Knows() => login is null || context.Request.Headers.Authorization == "Basic " + Convert.ToBase64String(Encoding.UTF8.GetBytes(login));
            async Task<bool> RefuseAsync(string challenge)
            {
                context.Response.StatusCode = 401;
                context.Response.Headers.WWWAuthenticate = challenge;
                await context.Response.WriteAsJsonAsync(new { errors = new[] { new { code = "UNAUTHORIZED", message = "authentication required" } } });
                return true;
            }
            if (!wantsToken)
                return !Knows() && await RefuseAsync("Basic realm=\"loopback\"");
            if (context.Request.Path == "/token")
            {
                if (!Knows())
                    return await RefuseAsync("Basic realm=\"loopback\"");
                var token = "for " + context.Request.Query["scope"] + " at " + context.Request.Query["service"];
                await context.Response.WriteAsJsonAsync(new { token = Convert.ToHexString(Encoding.UTF8.GetBytes(token)) });
                return true;
            }
            var repository = context.Request.Path.Value!["/v2/".Length..].Split("/manifests/")[0].Split("/blobs/")[0];
            if (context.Request.Headers.Authorization == "Bearer " + Convert.ToHexString(Encoding.UTF8.GetBytes($"for repository:{repository}:pull at loopback")))
                return false;
            return await RefuseAsync($"Bearer realm=\"{realm ?? new Uri(files!.Address, "/token")}\",service=\"loopback\",scope=\"repository:{repository}:pull\"");
        });
        return new ImageServer(files);
    }

    /// <summary>Stores an image for this machine.</summary>
    /// <returns>Its digest.</returns>
    public string Push(string repository, string tag, params byte[][] layers) => Push(repository, tag, [.. layers.Select(layer => (LayerType, layer))]);

    /// <summary>Stores an image, or whatever else has a manifest.</summary>
    public string Push(string repository, string tag, params (string MediaType, byte[] Content)[] layers) => Manifest(repository, tag, ManifestType, new
    {
        schemaVersion = 2,
        mediaType = ManifestType,
        config = Blob(repository, "application/vnd.oci.image.config.v1+json", "{}"u8.ToArray()),
        layers = layers.Select(layer => Blob(repository, layer.MediaType, layer.Content)).ToArray(),
    });

    /// <summary>Stores a list of images of several machines.</summary>
    /// <returns>Its digest.</returns>
    public string PushIndex(string repository, string tag, params (string Architecture, string Digest)[] images) => Manifest(repository, tag, IndexType, new
    {
        schemaVersion = 2,
        mediaType = IndexType,
        manifests = images.Select(image => new { mediaType = ManifestType, digest = image.Digest, size = 1, platform = new { os = "linux", architecture = image.Architecture } }).ToArray(),
    });

    /// <summary>A blob of a repository, to be spoiled.</summary>
    public ServedFile BlobOf(string repository, byte[] content) => Files.Put($"/v2/{repository}/blobs/{Digest(content)}", content);

    public ValueTask DisposeAsync() => Files.DisposeAsync();

    private string Manifest(string repository, string tag, string type, object manifest)
    {
        var content = JsonSerializer.SerializeToUtf8Bytes(manifest);
        foreach (var name in (string[])[tag, Digest(content)])
            Files.Put($"/v2/{repository}/manifests/{name}", content).Headers["Content-Type"] = type;
        return Digest(content);
    }

    private object Blob(string repository, string mediaType, byte[] content)
    {
        BlobOf(repository, content);
        return new { mediaType, digest = Digest(content), size = content.Length };
    }

    private static string Digest(byte[] content) => "sha256:" + Convert.ToHexStringLower(SHA256.HashData(content));
}
