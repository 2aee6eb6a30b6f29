using System.Globalization;
using ModelHost.Core.Engines;
using static ModelHost.Features.Galleries.GalleryJson;

namespace ModelHost.Features.Backends;

/// <summary>What there is to have of a backend.</summary>
/// <param name="Version">Its version; empty: whoever offers it names none.</param>
/// <param name="Digest">Digest of the image that its address leads to now; null: it is no image, or is not known.</param>
/// <param name="IsRelease">Whether the version is the newest of releases, of which later ones are newer still.</param>
internal sealed record BackendOffer(string Version, string? Digest, bool IsRelease = false);

/// <summary>Tells where a backend is not what it could be: by version, then by digest, then by what other nodes have.</summary>
internal static class UpgradeRules
{
    /// <summary>Compares.</summary>
    /// <param name="name">The backend.</param>
    /// <param name="installed">What nodes have of it, one of each node.</param>
    /// <param name="offer">What there is; null: nobody offers it any more, and only the nodes are compared.</param>
    /// <returns>Null: all is as it should be.</returns>
    public static UpgradeRead? Find(string name, IReadOnlyList<BackendHere> installed, BackendOffer? offer)
    {
        var most = Most(installed);
        var drift = installed.Where(one => !IsSame(one, most))
            .Select(one => new DriftRead(one.Node.Id.ToString(CultureInfo.InvariantCulture), one.Node.Name, Said(one.Version), Said(one.Digest))).ToArray();
        var read = new UpgradeRead
        {
            BackendName = name,
            InstalledVersion = most.Version,
            AvailableVersion = offer?.Version ?? "",
            NodeDrift = drift.Length > 0 ? drift : null,
        };
        if (offer is { Version.Length: > 0 })
            return drift.Length > 0 || IsOther(most, offer) ? read : null;
        if (offer?.Digest is { Length: > 0 } digest && digest != most.Digest)
            return read with { InstalledDigest = Said(most.Digest), AvailableDigest = digest };
        return drift.Length > 0 ? read with { InstalledDigest = Said(most.Digest), AvailableDigest = offer?.Digest } : null;
    }

    // what most nodes have; of as many, what was installed last
    private static BackendHere Most(IReadOnlyList<BackendHere> installed) => installed.GroupBy(one => (one.Version, one.Digest))
        .OrderByDescending(same => same.Count()).ThenByDescending(same => same.Max(one => one.InstalledAt ?? DateTimeOffset.MinValue))
        .ThenByDescending(same => EngineImage.ReleaseOf(same.Key.Version)).ThenBy(same => same.Min(one => one.Node.Id)).First().First();

    // a release that was copied to a mirror is the same, though its manifest may have been written anew
    private static bool IsSame(BackendHere one, BackendHere other) => one.Version == other.Version
        && (one.Digest == other.Digest || (one.Form == BackendForm.BuiltIn && ImageName.Repository(one.Uri) != ImageName.Repository(other.Uri)));

    private static bool IsOther(BackendHere installed, BackendOffer offer) => offer.IsRelease
        ? EngineImage.ReleaseOf(offer.Version) is { } newest && !(EngineImage.ReleaseOf(installed.Version) >= newest)
        : installed.Version != offer.Version;
}
