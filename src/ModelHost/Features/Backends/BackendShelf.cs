using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Galleries;
using ModelHost.Features.Galleries;

namespace ModelHost.Features.Backends;

/// <summary>What can be installed: what galleries offer, and what ModelHost has itself.</summary>
internal sealed class BackendShelf(IReadOnlyList<GalleryContent> contents)
{
    /// <summary>All entries, in the order of the galleries.</summary>
    public IReadOnlyList<FoundEntry> Entries { get; } = [.. contents.SelectMany(content => content.Entries.Select(entry => new FoundEntry(content.Gallery, entry)))];

    /// <summary>Finds an entry by its id: <c>gallery@name</c>, or <c>name</c> in the first gallery that has it; letter case does not matter.</summary>
    public Result<FoundEntry> Find(string id)
    {
        var asked = EntryId.Of(id, contents.Select(content => content.Gallery));
        return asked.FindIn(contents) is { } found ? found
            : asked.Gallery is null && Own(asked.Name) is { } own ? own
            : asked.NotIn(contents, "backend.not_offered", $"no backend found with name \"{id}\"");
    }

    /// <summary>The build that is installed on a node for an entry: itself, or the one of its builds that the node can run.</summary>
    public Result<FoundEntry> Choose(FoundEntry wanted, string capability)
    {
        if (!wanted.Entry.IsMeta)
            return wanted;
        if (BackendChoice.Resolve(wanted.Entry.Capabilities, capability) is not { } build)
            return new Failure(FailureKind.Conflict, "backend.no_build", $"{wanted.Entry.Name} has no build for a node of the capability {capability}; it has some for {string.Join(", ", wanted.Entry.Capabilities.Keys)}");
        var same = Entries.Where(one => Same(one.Entry.Name, build)).OrderBy(one => one.Gallery.Name == wanted.Gallery.Name ? 0 : 1).ToArray();
        return Array.Find(same, one => !one.Entry.IsMeta) is { } found ? found
            : new Failure(FailureKind.NotFound, "backend.no_build", $"{wanted.Entry.Name} stands for {build} on a node of the capability {capability}, which no gallery has");
    }

    /// <summary>The name of an entry that chooses builds, this one among them; empty: there is none.</summary>
    public string MetaOf(GalleryEntry build) =>
        Entries.FirstOrDefault(one => one.Entry.IsMeta && one.Entry.Capabilities.Values.Any(value => Same(value, build.Name)))?.Entry.Name ?? "";

    /// <summary>A backend of ModelHost itself, whose images are known; null: there is none of the name.</summary>
    public static FoundEntry? Own(string name) => BackendCatalogue.BuiltIn.Values.FirstOrDefault(recipe => recipe.Image.Length > 0 && Same(recipe.Name, name)) is { } recipe
        ? new FoundEntry(new GalleryRead { Name = "", Url = "" }, new GalleryEntry { Name = recipe.Name, Uri = recipe.Image }) : null;

    private static bool Same(string one, string other) => one.Equals(other, StringComparison.OrdinalIgnoreCase);
}

/// <summary>Reads what can be installed.</summary>
internal sealed class BackendShelves(GalleryBook book, GalleryReader reader)
{
    /// <summary>What the galleries offer now.</summary>
    /// <param name="galleries">Those that are looked at; null: all that are known.</param>
    /// <param name="cancellationToken">Ends the wait.</param>
    public async Task<BackendShelf> ReadAsync(IReadOnlyList<GalleryRead>? galleries, CancellationToken cancellationToken) =>
        new(await reader.ReadAsync(galleries ?? await book.ListAsync(GalleryKind.Backends, cancellationToken), cancellationToken));
}
