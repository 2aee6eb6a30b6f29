using ModelHost.Agent.Artifacts;
using ModelHost.Core.Artifacts;

namespace ModelHost.Agent.Downloads;

/// <summary>Asks registries which image a tag leads to now.</summary>
/// <param name="http">What asks them.</param>
/// <param name="options">Where they are.</param>
/// <param name="registries">Logins of some.</param>
public sealed class RegistryDigests(GuardedHttp http, DownloadOptions options, IEnumerable<NodeRegistry> registries)
{
    private readonly ImageRegistry _registry = new(http, options, new RegistryLogins(registries));

    /// <summary>The digest of the manifest, or of the list of manifests, that an image's reference leads to: <c>sha256:…</c>.</summary>
    /// <exception cref="DownloadException">The registry does not tell.</exception>
    public async Task<string> FindAsync(ArtifactUri.Image image, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(image);
        return image.Reference.StartsWith("sha256:", StringComparison.Ordinal) ? image.Reference : await _registry.DigestAsync(image, cancellationToken);
    }
}
