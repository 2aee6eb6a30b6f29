using System.Text.Json.Nodes;
using ModelHost.Core;
using ModelHost.Core.Artifacts;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.Core.Galleries;
using ModelHost.Features.Galleries;
using ModelHost.Protocol;

namespace ModelHost.Features.Backends;

/// <summary>What is done on a node to install a build, and what is known of it then.</summary>
/// <param name="Form">What it consists of.</param>
/// <param name="Pull">What the node gets, but for the id of the pull; null: nothing.</param>
/// <param name="Rows">What is stored: the build, and the one that stands for it; nothing of what every node knows.</param>
internal sealed record BackendPlan(BackendForm Form, PullRequest? Pull, IReadOnlyList<InstalledBackend> Rows)
{
    /// <summary>Makes the plan.</summary>
    /// <param name="build">The build.</param>
    /// <param name="meta">The entry that stands for it; null: it was asked for itself.</param>
    /// <param name="version">Release or tag that was asked for; empty: that of the gallery.</param>
    /// <param name="newest">The newest release of a backend that every node knows; empty: not known.</param>
    public static Result<BackendPlan> Make(FoundEntry build, FoundEntry? meta, string version, string newest)
    {
        var name = GalleryNames.ToInstalled(build.Entry.Name);
        // one of a name that every node knows only chooses; the name goes on to mean what it meant
        var metaName = meta is null || BackendCatalogue.BuiltIn.ContainsKey(meta.Entry.Name) ? "" : GalleryNames.ToInstalled(meta.Entry.Name);
        if ((NameFault(name) ?? (metaName.Length > 0 ? NameFault(metaName) : null)) is { } fault)
            return Failure.Invalid("name", fault);
        if (!FormOf(build.Entry, name, version, newest).TryGet(out var form, out var failure))
            return failure;
        var (kind, image) = form;
        if (version.Length > 0 && image.Length == 0)
            return Failure.Invalid("version", $"{name} is no image, and comes in the version of its gallery alone");
        if (kind != BackendForm.BuiltIn && BackendCatalogue.BuiltIn.ContainsKey(name))
            return Failure.Invalid("name", $"'{name}' is a backend of ModelHost itself");
        var row = Row(build, name, kind, image) with
        {
            // the node finds it by the name that was asked for
            Alias = metaName.Length > 0 ? metaName : build.Entry.Alias,
        };
        var rows = new List<BackendRow>();
        if (kind != BackendForm.BuiltIn)
            rows.Add(row);
        if (metaName.Length > 0 && metaName != name)
            rows.Add(Row(meta!, metaName, BackendForm.Meta, "") with { Uri = "", Version = "", MetaBackendFor = name });
        return new BackendPlan(kind, PullOf(build.Entry, row, kind, image), [.. rows.Select(one => one.ToEntity())]);
    }

    /// <summary>What is wrong with the name of a backend; null: nothing.</summary>
    public static string? NameFault(string name) => name.Length > MaxName ? $"a backend's name has {MaxName} characters at most" : ArtifactNames.NameFault(name);

    /// <summary>Whether a repository is that of a backend whose releases are known.</summary>
    public static bool IsReleased(string repository) => BackendCatalogue.BuiltIn.Values.Any(recipe => recipe.Image == repository);

    private const int MaxName = 64;

    private static Result<(BackendForm Form, string Image)> FormOf(GalleryEntry entry, string name, string version, string newest)
    {
        var recipe = BackendCatalogue.BuiltIn.GetValueOrDefault(name) is { Image.Length: > 0 } own ? own : null;
        var isOwn = recipe is not null;
        if (entry.Recipe is { } text)
        {
            try
            {
                recipe = RecipeRules.Read(name, text.ToJsonString());
            }
            catch (RecipeException e)
            {
                return Failure.Invalid("recipe", $"{name} cannot be started as its gallery says: {e.Message}");
            }
        }
        if (recipe is null || !ContainerRuntimes.AreIn(recipe.Runtimes))
            return entry.Uri.Length > 0 || entry.Files.Count > 0 ? (BackendForm.Folder, "")
                : recipe is not null ? (BackendForm.Recipe, "") : Failure.Invalid("uri", $"{name} has nothing to install: no uri and no files");
        if (ImageName.Of(entry.Uri.Length > 0 ? entry.Uri : recipe.Image) is not { } image)
            return Failure.Invalid("uri", $"{entry.Uri} is no image");
        var repository = ImageName.Repository(image);
        var tag = version.Length > 0 ? ImageName.TagOf(image, version)
            // an address that names a tag says what is meant; the version is what it is called
            : entry.Version.Length > 0 && (entry.Uri.Length == 0 || EngineImage.IsMoving(ImageName.Tag(image))) ? EngineImage.Tag(entry.Version)
            // a tag that moves says nothing of what runs: where releases are known, the newest is named
            : newest.Length > 0 && EngineImage.IsMoving(ImageName.Tag(image)) && IsReleased(repository) ? EngineImage.Tag(newest) : "";
        if (tag.Length > 0 && !EngineImage.IsValidVersion(tag))
            return Failure.Invalid("version", "is no release and no tag of an image");
        return (isOwn ? BackendForm.BuiltIn : BackendForm.Image, tag.Length > 0 ? $"{repository}:{tag}" : image);
    }

    private static BackendRow Row(FoundEntry found, string name, BackendForm form, string image) => new()
    {
        Name = name,
        Form = form,
        Gallery = found.Gallery.Name,
        GalleryUrl = found.Gallery.Url,
        Uri = image.Length > 0 ? image : GalleryFetcher.Shown(found.Entry.Uri), // a query may be a signature
        Version = found.Entry.Version.Length > 0 ? found.Entry.Version : EngineImage.VersionOf(ImageName.Tag(image)),
        Recipe = found.Entry.Recipe?.ToJsonString() ?? "",
    };

    private static PullRequest? PullOf(GalleryEntry entry, BackendRow row, BackendForm form, string image)
    {
        if (form == BackendForm.Recipe)
            return null;
        if (form != BackendForm.Folder)
            return new PullRequest { Kind = ArtifactKind.Image, Name = image, IsOwnImage = form == BackendForm.BuiltIn && IsReleased(ImageName.Repository(image)) };
        var metadata = new JsonObject { ["name"] = row.Name };
        if (row.Alias.Length > 0)
            metadata["alias"] = row.Alias;
        if (row.GalleryUrl.Length > 0)
            metadata["gallery_url"] = row.GalleryUrl;
        var pull = new PullRequest { Kind = ArtifactKind.Backend, Name = row.Name, Version = entry.Version, Metadata = metadata.ToJsonString() };
        if (entry.Uri.Length > 0)
            pull.Files.Add(new PullFile { Uri = entry.Uri, Mirrors = { entry.Mirrors }, Sha256 = ArtifactUri.Parse(entry.Uri).Match(uri => uri is ArtifactUri.Image, _ => false) ? "" : entry.Sha256 });
        pull.Files.AddRange(entry.Files.Select(file => new PullFile { Uri = file.Uri, Path = file.Filename, Sha256 = file.Sha256 }));
        return pull;
    }

    private sealed record BackendRow
    {
        public required string Name { get; init; }
        public required BackendForm Form { get; init; }
        public string Alias { get; init; } = "";
        public string MetaBackendFor { get; init; } = "";
        public string Gallery { get; init; } = "";
        public string GalleryUrl { get; init; } = "";
        public string Uri { get; init; } = "";
        public string Version { get; init; } = "";
        public string Recipe { get; init; } = "";

        public InstalledBackend ToEntity() => new()
        {
            Name = Name,
            Alias = Alias,
            MetaBackendFor = MetaBackendFor,
            Gallery = Gallery,
            GalleryUrl = GalleryUrl,
            Uri = Uri,
            Version = Version,
            Recipe = Recipe,
            Details = GalleryJson.Write(new BackendDetails(Form)),
        };
    }
}
