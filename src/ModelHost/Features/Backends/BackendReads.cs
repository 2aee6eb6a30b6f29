using System.Globalization;
using ModelHost.Core.Engines;
using ModelHost.Features.Galleries;
using ModelHost.Hosting;
using static ModelHost.Features.Galleries.GalleryJson;

namespace ModelHost.Features.Backends;

/// <summary>Puts backends into the words of the API.</summary>
internal sealed class BackendReads(BackendInventory inventory, BackendUpgrades upgrades, BackendService service, DataFolder folder)
{
    /// <summary>The installed backends by name, each with the nodes that have it if there are several nodes.</summary>
    public async Task<IReadOnlyList<BackendRead>> ListAsync(CancellationToken cancellationToken)
    {
        var all = await inventory.ListAsync(cancellationToken);
        return [.. all.GroupBy(here => here.Name, StringComparer.Ordinal).OrderBy(group => group.Key, StringComparer.Ordinal).Select(group => Read([.. group], all))];
    }

    /// <summary>The backends that can be asked for by name.</summary>
    public async Task<IReadOnlyList<KnownBackendRead>> KnownAsync(CancellationToken cancellationToken) =>
        KnownBackends.List((await inventory.ListAsync(cancellationToken)).Select(here => here.Name));

    /// <summary>A backend of a node.</summary>
    public static NodeBackendRead OnNode(BackendHere here) => new()
    {
        Name = here.Name,
        IsSystem = here.IsSystem,
        IsMeta = here.IsMeta,
        InstalledAt = here.InstalledAt,
        GalleryUrl = Said(here.GalleryUrl),
        Version = Said(here.Version),
        Uri = Said(here.Uri),
        Digest = Said(here.Digest),
        Versions = here.Versions?.Select(EngineImage.VersionOf).ToArray(),
        Images = here.Images?.Select(image => new NodeImageRead(EngineImage.VersionOf(image.Version), image.Name, image.Digest, image.SizeBytes,
            image.HasInstalledAt ? DateTimeOffset.FromUnixTimeMilliseconds((long)(image.InstalledAt * 1000)) : null)).ToArray(),
    };

    /// <summary>A backend of a gallery.</summary>
    public static AvailableBackend Available(FoundEntry found, bool isInstalled)
    {
        var (gallery, entry) = found;
        return new AvailableBackend
        {
            Name = entry.Name,
            Description = Said(entry.Description),
            License = Said(entry.License),
            Urls = Any(entry.Urls),
            Icon = Said(entry.Icon),
            Tags = Any(entry.Tags),
            Files = Any([.. entry.Files.Select(file => new AvailableFile(file.Filename, file.Sha256, file.Uri))]),
            Size = Said(entry.Size),
            Gallery = gallery,
            Installed = isInstalled,
            Alias = Said(entry.Alias),
            Uri = Said(entry.Uri),
            Version = Said(entry.Version),
            Mirrors = Any(entry.Mirrors),
            Capabilities = entry.Capabilities.Count > 0 ? entry.Capabilities : null,
            Sha256 = Said(entry.Sha256),
        };
    }

    private BackendRead Read(BackendHere[] group, IReadOnlyList<BackendHere> all)
    {
        var one = group.MaxBy(here => here.InstalledAt ?? DateTimeOffset.MinValue)!;
        var upgrade = upgrades.Found.GetValueOrDefault(one.IsMeta ? one.MetaBackendFor : one.Name);
        return new BackendRead
        {
            Name = one.Name,
            RunFile = RunFile(one, all),
            IsMeta = one.IsMeta,
            IsSystem = one.IsSystem,
            Metadata = new BackendMetadataRead
            {
                Alias = Said(one.Alias),
                MetaBackendFor = Said(one.MetaBackendFor),
                Name = one.Name,
                GalleryUrl = Said(one.GalleryUrl),
                InstalledAt = one.InstalledAt,
                Version = Said(one.Version),
                Uri = Said(one.Uri),
                Digest = Said(one.Digest),
            },
            UpgradeAvailable = upgrade is not null,
            AvailableVersion = upgrade is { AvailableVersion.Length: > 0 } ? upgrade.AvailableVersion : null,
            Nodes = service.IsDistributed ? [.. group.Select(OfNode)] : null,
        };
    }

    private static BackendNodeRead OfNode(BackendHere here) => new()
    {
        NodeId = here.Node.Id.ToString(CultureInfo.InvariantCulture),
        NodeName = here.Node.Name,
        NodeStatus = here.Node.Status,
        Version = Said(here.Version),
        Digest = Said(here.Digest),
        Uri = Said(here.Uri),
        InstalledAt = here.InstalledAt,
        Versions = here.Versions?.Select(EngineImage.VersionOf).ToArray(),
    };

    // where another node keeps its data is its own affair
    private string RunFile(BackendHere one, IReadOnlyList<BackendHere> all)
    {
        var program = one.IsMeta ? all.FirstOrDefault(here => here.Name == one.MetaBackendFor && here.Node.Id == one.Node.Id) : one;
        if (program is not { Form: BackendForm.Folder })
            return "";
        var path = Path.Combine("backends", program.Name, "run.sh");
        return File.Exists(folder.File(path)) ? folder.File(path) : path;
    }
}
