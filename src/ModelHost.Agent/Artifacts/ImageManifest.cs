using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;
using ModelHost.Agent.Downloads;

namespace ModelHost.Agent.Artifacts;

/// <summary>A blob that a manifest names.</summary>
/// <param name="MediaType">What it is; empty: it is not said.</param>
/// <param name="Sha256">Its hash, 64 hexadecimal digits.</param>
/// <param name="SizeBytes">Its size.</param>
internal sealed record ImageBlob(string MediaType, string Sha256, long SizeBytes);

/// <summary>Reads the manifests of images, and the lists of them (OCI image specification 1.1, and Docker's of the same).</summary>
internal static class ImageManifest
{
    /// <summary>Bytes of a manifest or of a list of them, as registries limit them too.</summary>
    public const int MaxBytes = 4 * 1024 * 1024;

    /// <summary>Layers of an image; container engines take fewer.</summary>
    public const int MaxLayers = 500;

    private const string Sha256Prefix = "sha256:";

    /// <summary>The digest of a manifest: <c>sha256:…</c>.</summary>
    public static string Digest(ReadOnlySpan<byte> manifest) => Sha256Prefix + Convert.ToHexStringLower(SHA256.HashData(manifest));

    /// <summary>Reads one.</summary>
    /// <param name="bytes">Its text.</param>
    /// <param name="what">What it is called, for people.</param>
    /// <exception cref="DownloadException">It is no manifest.</exception>
    public static JsonDocument Read(byte[] bytes, string what)
    {
        try
        {
            var manifest = JsonDocument.Parse(bytes);
            if (manifest.RootElement.ValueKind == JsonValueKind.Object)
                return manifest;
            manifest.Dispose();
        }
        catch (JsonException)
        {
            // as one that is something else
        }
        throw new DownloadException("answer_invalid", $"{what} is no manifest");
    }

    /// <summary>The digest of the manifest for this machine, out of a list.</summary>
    /// <exception cref="DownloadException">There is none.</exception>
    public static string OfThisMachine(JsonElement variants, string what)
    {
        var architecture = RuntimeInformation.OSArchitecture switch { Architecture.X64 => "amd64", Architecture.Arm64 => "arm64", var other => other.ToString().ToLowerInvariant() };
        foreach (var variant in variants.ValueKind == JsonValueKind.Array ? variants.EnumerateArray() : default)
        {
            if (variant.ValueKind == JsonValueKind.Object && variant.TryGetProperty("platform", out var platform)
                && Text(platform, "os") == "linux" && Text(platform, "architecture") == architecture && DigestOf(variant) is { } digest)
                return Sha256Prefix + digest;
        }
        throw new DownloadException("not_found", $"{what} has no image for linux/{architecture}");
    }

    /// <summary>The layers of an image, from the lowest on.</summary>
    /// <exception cref="DownloadException">There are none, or too many.</exception>
    public static IReadOnlyList<ImageBlob> Layers(JsonElement manifest)
    {
        var layers = Blobs(manifest).ToArray();
        return layers.Length is > 0 and <= MaxLayers ? layers : throw new DownloadException("answer_invalid", $"the image has {layers.Length} layers, not 1 to {MaxLayers}");
    }

    /// <summary>What a manifest names as its layers, whatever it is.</summary>
    /// <exception cref="DownloadException">It does not name them properly.</exception>
    public static IEnumerable<ImageBlob> Blobs(JsonElement manifest)
    {
        if (!manifest.TryGetProperty("layers", out var layers) || layers.ValueKind != JsonValueKind.Array)
            throw new DownloadException("answer_invalid", "the manifest names no layers");
        foreach (var layer in layers.EnumerateArray())
        {
            if (layer.ValueKind != JsonValueKind.Object || DigestOf(layer) is not { } digest || !layer.TryGetProperty("size", out var size) || !size.TryGetInt64(out var bytes) || bytes < 0)
                throw new DownloadException("answer_invalid", "the manifest names a layer without digest (sha256) or size");
            yield return new ImageBlob(Text(layer, "mediaType"), digest, bytes);
        }
    }

    /// <summary>The hash in a descriptor; null: it has none, or one of another kind.</summary>
    public static string? DigestOf(JsonElement descriptor) =>
        Text(descriptor, "digest") is ['s', 'h', 'a', '2', '5', '6', ':', .. var hex] && hex.Length == 64 && hex.All(char.IsAsciiHexDigitLower) ? hex : null;

    private static string Text(JsonElement element, string name) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "";
}
