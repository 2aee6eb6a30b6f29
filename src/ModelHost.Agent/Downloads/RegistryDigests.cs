using System.Security.Cryptography;
using ModelHost.Core.Artifacts;

namespace ModelHost.Agent.Downloads;

/// <summary>Asks registries which image a tag leads to now (OCI distribution specification 1.1).</summary>
public sealed class RegistryDigests(GuardedHttp http, DownloadOptions options)
{
    private const int MaxManifestBytes = 4 * 1024 * 1024;
    private const string DockerHub = "docker.io", DockerHubHost = "registry-1.docker.io";

    private static readonly Dictionary<string, string> s_accept = new()
    {
        ["Accept"] = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
            + "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json",
    };

    /// <summary>The digest of the manifest, or of the list of manifests, that an image's reference leads to: <c>sha256:…</c>.</summary>
    /// <exception cref="DownloadException">The registry does not tell.</exception>
    public async Task<string> FindAsync(ArtifactUri.Image image, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(image);
        if (image.Reference.StartsWith("sha256:", StringComparison.Ordinal))
            return image.Reference;
        var host = image.Registry == DockerHub ? DockerHubHost : image.Registry;
        var url = new Uri($"{(options.IsInsecure(image.Registry) ? "http" : "https")}://{host}/v2/{image.Repository}/manifests/{image.Reference}");
        // read and hashed: a header is only what the registry says of it, and some say nothing
        using var answer = await new RegistryLogin(image.Repository).GetAsync(http, url, s_accept, cancellationToken);
        return "sha256:" + Convert.ToHexStringLower(SHA256.HashData(await answer.ReadAsync(MaxManifestBytes, cancellationToken)));
    }
}
