using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.Features.Galleries;
using ModelHost.Protocol;

namespace ModelHost.Features.Backends;

/// <summary>What a backend consists of on a node.</summary>
internal enum BackendForm
{
    /// <summary>A folder with a program.</summary>
    Folder,
    /// <summary>An image of the node's container engine.</summary>
    Image,
    /// <summary>Nothing but how it is started.</summary>
    Recipe,
    /// <summary>Nothing: it stands for another one.</summary>
    Meta,
    /// <summary>Images of a backend that every node knows how to start; its versions are their tags.</summary>
    BuiltIn,
}

/// <summary>A node as far as backends are concerned.</summary>
/// <param name="Id">Its id in the API.</param>
/// <param name="Name">Its host name.</param>
/// <param name="Status">Its status in the API.</param>
internal sealed record BackendNode(int Id, string Name, string Status);

/// <summary>What is kept of an installed backend beside its columns.</summary>
/// <param name="Form">What it consists of.</param>
internal sealed record BackendDetails(BackendForm Form);

/// <summary>A backend on a node: what the node has, with what was asked for when it was installed.</summary>
internal sealed record BackendHere(BackendNode Node, string Name, BackendForm Form)
{
    public string Alias { get; init; } = "";
    public string MetaBackendFor { get; init; } = "";

    /// <summary>Name of the gallery it comes from; empty: none.</summary>
    public string Gallery { get; init; } = "";
    public string GalleryUrl { get; init; } = "";
    public string Uri { get; init; } = "";
    public string Version { get; init; } = "";
    public string Digest { get; init; } = "";
    public DateTimeOffset? InstalledAt { get; init; }

    /// <summary>Whether no installation brought it, so that none is deleted.</summary>
    public bool IsSystem { get; init; }

    /// <summary>Of images: all of their repository that the node has, by tag; null: it consists of none, or they are not known.</summary>
    public IReadOnlyList<Artifact>? Images { get; init; }

    /// <summary>The tags of <see cref="Images"/>.</summary>
    public IReadOnlyList<string>? Versions => Images?.Select(image => image.Version).ToArray();

    public bool IsMeta => Form == BackendForm.Meta;

    /// <summary>The backends of a node.</summary>
    /// <param name="node">The node.</param>
    /// <param name="rows">What was installed there.</param>
    /// <param name="has">What it has now; null: it does not answer, and what was known last holds.</param>
    public static IReadOnlyList<BackendHere> Of(BackendNode node, IReadOnlyList<InstalledBackend> rows, ArtifactsReply? has)
    {
        if (has is null)
            return [.. rows.Select(row => Of(node, row))];
        var images = has.Artifacts.Where(artifact => artifact.Kind == ArtifactKind.Image).ToArray();
        var found = has.Artifacts.Where(artifact => artifact.Kind == ArtifactKind.Backend)
            .Select(artifact => Of(node, artifact, rows.FirstOrDefault(row => row.Name == artifact.Name))).ToList();
        foreach (var row in rows)
        {
            var here = Of(node, row);
            if (here.Form == BackendForm.Image && Array.Find(images, image => image.Name == here.Uri) is { } image)
                found.Add(here with { Digest = image.Digest, Images = Tagged(images, ImageName.Repository(here.Uri)) });
            // that images are not listed says nothing of them
            else if (here.Form == BackendForm.Recipe || (here.Form == BackendForm.Image && has.ImageError.Length > 0))
                found.Add(here);
        }
        found.AddRange(BackendCatalogue.BuiltIn.Values.Where(recipe => recipe.Image.Length > 0 && !found.Exists(one => one.Name == recipe.Name))
            .Select(recipe => BuiltIn(node, recipe, has.OwnRepositories.GetValueOrDefault(recipe.Image) ?? recipe.Image, images)).OfType<BackendHere>());
        found.AddRange(rows.Select(row => Of(node, row)).Where(here => here.IsMeta && found.Exists(one => one.Name == here.MetaBackendFor)).ToArray());
        return found;
    }

    private static BackendHere Of(BackendNode node, InstalledBackend row) => new(node, row.Name, GalleryJson.Read<BackendDetails>(row.Details).Form)
    {
        Alias = row.Alias,
        MetaBackendFor = row.MetaBackendFor,
        Gallery = row.Gallery,
        GalleryUrl = row.GalleryUrl,
        Uri = row.Uri,
        Version = row.Version,
        Digest = row.Digest,
        InstalledAt = row.InstalledAt,
        IsSystem = row.IsSystem,
    };

    private static BackendHere Of(BackendNode node, Artifact artifact, InstalledBackend? row)
    {
        var said = BackendMetadataText.Read(artifact.Metadata);
        return new BackendHere(node, artifact.Name, BackendForm.Folder)
        {
            Alias = said.Alias ?? "",
            Gallery = row?.Gallery ?? "",
            GalleryUrl = said.GalleryUrl ?? "",
            Uri = artifact.Uris.Count > 0 ? artifact.Uris[0] : said.Uri ?? "",
            Version = artifact.Version.Length > 0 ? artifact.Version : said.Version ?? "",
            Digest = artifact.Digest.Length > 0 ? artifact.Digest : said.Digest ?? "",
            InstalledAt = artifact.HasInstalledAt ? DateTimeOffset.FromUnixTimeMilliseconds((long)(artifact.InstalledAt * 1000)) : said.InstalledAt,
            IsSystem = artifact.PullId.Length == 0,
        };
    }

    private static BackendHere? BuiltIn(BackendNode node, BackendRecipe recipe, string repository, Artifact[] images)
    {
        var tagged = Tagged(images, repository);
        if (tagged.Length == 0)
            return null;
        var newest = EngineImage.Newest(tagged.Select(one => one.Version)) ?? tagged[0].Version;
        var image = tagged.First(one => one.Version == newest);
        return new BackendHere(node, recipe.Name, BackendForm.BuiltIn)
        {
            Uri = image.Name,
            Version = EngineImage.VersionOf(newest),
            Digest = image.Digest,
            IsSystem = true,
            Images = tagged,
        };
    }

    private static Artifact[] Tagged(Artifact[] images, string repository) =>
        [.. images.Where(image => image.Name.StartsWith(repository + ":", StringComparison.Ordinal)).OrderBy(image => image.Version, StringComparer.Ordinal)];
}
