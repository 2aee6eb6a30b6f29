using ModelHost.Core;
using ModelHost.Core.Galleries;

namespace ModelHost.Features.Galleries;

/// <summary>An entry as it is asked for: <c>gallery@name</c>, or <c>name</c> in the first gallery that has it; letter case does not matter.</summary>
/// <param name="Id">As it was given.</param>
/// <param name="Gallery">The gallery that it names; null: any.</param>
/// <param name="Name">The name there.</param>
internal sealed record EntryId(string Id, string? Gallery, string Name)
{
    /// <summary>Takes an id apart. A name may have an @ in it, a gallery's may not.</summary>
    public static EntryId Of(string id, IEnumerable<GalleryRead> galleries)
    {
        var at = id.IndexOf('@', StringComparison.Ordinal);
        return at > 0 && galleries.FirstOrDefault(gallery => Same(gallery.Name, id[..at])) is { } named ? new EntryId(id, named.Name, id[(at + 1)..]) : new EntryId(id, null, id);
    }

    /// <summary>Finds it; null: nobody has it.</summary>
    public FoundEntry? FindIn(IReadOnlyList<GalleryContent> contents) => contents.Where(content => Gallery is null || content.Gallery.Name == Gallery)
        .SelectMany(content => content.Entries.Select(entry => new FoundEntry(content.Gallery, entry)))
        .FirstOrDefault(one => Same(one.Entry.Name, Name) || Same(GalleryNames.ToInstalled(one.Entry.Name), Name));

    /// <summary>That nobody has it, and why that may be.</summary>
    public Failure NotIn(IReadOnlyList<GalleryContent> contents, string code, string said)
    {
        var at = Id.IndexOf('@', StringComparison.Ordinal);
        var unread = contents.Where(content => content.Error is not null).Select(content => $"{content.Gallery.Name}: {content.Error}").ToArray();
        return new Failure(FailureKind.NotFound, code, said
            + (contents.Count == 0 ? ": there is no gallery" : Gallery is null && at > 0 ? $": there is no gallery {Id[..at]}" : "")
            + (unread.Length > 0 ? $" (not all galleries could be read: {string.Join("; ", unread)})" : ""), "id");
    }

    private static bool Same(string one, string other) => one.Equals(other, StringComparison.OrdinalIgnoreCase);
}
