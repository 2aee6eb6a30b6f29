using System.Text.Json;
using ModelHost.Agent.Downloads;
using ModelHost.Core.Artifacts;
using ModelHost.Core.Engines;

namespace ModelHost.Agent.Artifacts;

/// <summary>Asks registries what an image or a model consists of (OCI distribution and image specifications 1.1, and Docker's of the same).</summary>
internal sealed class ImageRegistry(GuardedHttp http, DownloadOptions options, RegistryLogins logins)
{
    private const string DockerHubHost = "registry-1.docker.io";
    private const string OllamaModel = "application/vnd.ollama.image.model";

    private static readonly string s_accept = string.Join(", ",
        "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json");

    /// <summary>The layers of an image for this machine.</summary>
    /// <param name="image">Which.</param>
    /// <param name="sha256">What the manifest's hash is to be; empty: unknown.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="DownloadException">There is none, or it is not to be used.</exception>
    public async Task<Source.Image> LayersAsync(ArtifactUri.Image image, string sha256, CancellationToken cancellationToken)
    {
        var place = PlaceOf(image);
        var (manifest, digest) = await ManifestAsync(place, image.Reference, cancellationToken);
        if (sha256.Length > 0 && digest != "sha256:" + sha256)
            throw new DownloadException("hash_mismatch", $"the manifest of {image.Repository} has the digest {digest}, not sha256:{sha256}");
        using (manifest)
        {
            if (!manifest.RootElement.TryGetProperty("manifests", out var variants))
                return new Source.Image(Layers(place, manifest.RootElement), digest);
            var (chosen, _) = await ManifestAsync(place, ImageManifest.OfThisMachine(variants, image.Repository), cancellationToken);
            using (chosen)
                return new Source.Image(Layers(place, chosen.RootElement), digest);
        }
    }

    /// <summary>The digest of what an image's reference leads to now.</summary>
    /// <exception cref="DownloadException">The registry does not tell.</exception>
    public async Task<string> DigestAsync(ArtifactUri.Image image, CancellationToken cancellationToken)
    {
        var (manifest, digest) = await ManifestAsync(PlaceOf(image), image.Reference, cancellationToken);
        manifest.Dispose();
        return digest;
    }

    /// <summary>The weights of a model of an Ollama registry.</summary>
    /// <exception cref="DownloadException">There are none.</exception>
    public async Task<RemoteFile> WeightsAsync(ArtifactUri.Ollama model, CancellationToken cancellationToken)
    {
        var place = new Place(new Uri($"{options.OllamaUrl.TrimEnd('/')}/v2/{model.Repository}/"), new RegistryLogin(model.Repository, logins.Of(new Uri(options.OllamaUrl).Authority)));
        var (manifest, _) = await ManifestAsync(place, model.Tag, cancellationToken);
        using (manifest)
        {
            var weights = ImageManifest.Blobs(manifest.RootElement).Where(blob => blob.MediaType == OllamaModel).ToArray();
            return weights is [var only] ? Remote(place, only) with { Path = model.FileName }
                : throw new DownloadException("answer_invalid", $"{model.Repository}:{model.Tag} has {weights.Length} files of weights where one was looked for");
        }
    }

    private Place PlaceOf(ArtifactUri.Image image)
    {
        var host = image.Registry == EngineImage.DockerHub ? DockerHubHost : image.Registry;
        return new Place(new Uri($"{(options.IsInsecure(image.Registry) ? "http" : "https")}://{host}/v2/{image.Repository}/"), new RegistryLogin(image.Repository, logins.Of(image.Registry)));
    }

    private async Task<(JsonDocument Manifest, string Digest)> ManifestAsync(Place place, string reference, CancellationToken cancellationToken)
    {
        var url = new Uri(place.Url, $"manifests/{reference}");
        byte[] bytes;
        using (var answer = await place.Login.GetAsync(http, url, new Dictionary<string, string> { ["Accept"] = s_accept }, cancellationToken))
            bytes = await answer.ReadAsync(ImageManifest.MaxBytes, cancellationToken);
        var digest = ImageManifest.Digest(bytes);
        if (reference.StartsWith("sha256:", StringComparison.Ordinal) && reference != digest)
            throw new DownloadException("hash_mismatch", $"{GuardedHttp.Display(url)} has the digest {digest}");
        return (ImageManifest.Read(bytes, GuardedHttp.Display(url)), digest);
    }

    private static RemoteFile[] Layers(Place place, JsonElement manifest) => [.. ImageManifest.Layers(manifest).Select(layer => Remote(place, layer))];

    private static RemoteFile Remote(Place place, ImageBlob blob) =>
        new(new Uri(place.Url, $"blobs/sha256:{blob.Sha256}"), $"layer {blob.Sha256[..12]}") { Sha256 = blob.Sha256, SizeBytes = blob.SizeBytes, Login = place.Login };

    private sealed record Place(Uri Url, RegistryLogin Login);
}
