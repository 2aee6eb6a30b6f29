using System.Security.Cryptography;
using System.Text.Json;
using ModelHost.Agent.Downloads;
using ModelHost.Core.Artifacts;

namespace ModelHost.Agent.Artifacts;

/// <summary>Finds the layers of an image that was saved to a file and unpacked: an OCI image layout (1.1), or what <c>docker save</c> wrote before it was one.</summary>
internal static class SavedImage
{
    private const string Index = "index.json", DockerManifest = "manifest.json";
    // an index of an index of an image is what builders of several platforms write
    private const int MaxDepth = 3;

    /// <summary>The files of its layers, from the lowest on; those of a layout have the hashes that it names.</summary>
    /// <param name="folder">What was unpacked.</param>
    /// <exception cref="DownloadException">It is no image, or holds several.</exception>
    public static IReadOnlyList<string> Layers(string folder) =>
        File.Exists(Path.Combine(folder, Index)) ? OfLayout(folder)
        : File.Exists(Path.Combine(folder, DockerManifest)) ? OfDocker(folder)
        : throw Invalid($"it is no saved image: it has no {Index} and no {DockerManifest}");

    private static string[] OfLayout(string folder)
    {
        var next = Path.Combine(folder, Index);
        for (var depth = 0; depth <= MaxDepth; depth++)
        {
            using var document = ImageManifest.Read(Bytes(next), Path.GetFileName(next));
            if (!document.RootElement.TryGetProperty("manifests", out var manifests))
                return [.. ImageManifest.Layers(document.RootElement).Select(layer => Blob(folder, layer.Sha256))];
            var only = manifests.ValueKind == JsonValueKind.Array && manifests.GetArrayLength() == 1 ? ImageManifest.DigestOf(manifests[0]) : null;
            next = Blob(folder, only ?? ImageManifest.OfThisMachine(manifests, "the file")["sha256:".Length..]);
        }
        throw Invalid("its lists of images do not end");
    }

    private static string[] OfDocker(string folder)
    {
        using var document = Parse(Bytes(Path.Combine(folder, DockerManifest)));
        var images = document.RootElement;
        if (images.ValueKind != JsonValueKind.Array || images.GetArrayLength() != 1)
            throw Invalid("a file holds one image");
        if (images[0].ValueKind != JsonValueKind.Object || !images[0].TryGetProperty("Layers", out var layers) || layers.ValueKind != JsonValueKind.Array || layers.GetArrayLength() is 0 or > ImageManifest.MaxLayers
            || layers.EnumerateArray().Any(layer => layer.ValueKind != JsonValueKind.String || ArtifactNames.PathFault(layer.GetString()!) is not null))
            throw Invalid($"its {DockerManifest} names no layers, or more than {ImageManifest.MaxLayers}");
        return [.. layers.EnumerateArray().Select(layer => Existing(Path.Combine(folder, layer.GetString()!)))];
    }

    private static JsonDocument Parse(byte[] bytes)
    {
        try
        {
            return JsonDocument.Parse(bytes);
        }
        catch (JsonException e)
        {
            throw Invalid($"its {DockerManifest} is no JSON: {e.Message}");
        }
    }

    private static byte[] Bytes(string path) =>
        new FileInfo(Existing(path)).Length <= ImageManifest.MaxBytes ? File.ReadAllBytes(path) : throw Invalid($"{Path.GetFileName(path)} is larger than {ImageManifest.MaxBytes} bytes");

    private static string Blob(string folder, string sha256)
    {
        var path = Existing(Path.Combine(folder, "blobs", "sha256", sha256));
        using var content = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(content)) == sha256 ? path
            : throw new DownloadException("hash_mismatch", $"the blob {sha256} of the image has another hash");
    }

    // links are not followed out of the folder, since none that was unpacked leads out; docker save writes them for a layer that comes twice
    private static string Existing(string path)
    {
        try
        {
            using var file = File.OpenHandle(path);
            return path;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Invalid($"it has no file {Path.GetFileName(path)}");
        }
    }

    private static DownloadException Invalid(string why) => new("archive_invalid", why);
}
