using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Core;
using ModelHost.Core.Galleries;

namespace ModelHost.Features.Galleries;

/// <summary>Finds what ids and addresses stand for.</summary>
internal sealed class EntryFinder(GalleryBook book, GalleryReader reader, GallerySources sources, GalleryFetcher fetcher)
{
    /// <summary>Finds an entry by its id: <c>gallery@name</c>, or <c>name</c> in the first gallery that has it; letter case does not matter.</summary>
    public async Task<Result<FoundEntry>> FindAsync(GalleryKind kind, string id, CancellationToken cancellationToken)
    {
        var galleries = await book.ListAsync(kind, cancellationToken);
        // a name may have an @ in it, a gallery's may not
        var at = id.IndexOf('@', StringComparison.Ordinal);
        var named = at > 0 ? Array.Find(galleries, gallery => Same(gallery.Name, id[..at])) : null;
        var (name, asked) = named is null ? (id, galleries) : (id[(at + 1)..], [named]);
        var contents = await reader.ReadAsync(asked, cancellationToken);
        foreach (var content in contents)
        {
            if (content.Entries.FirstOrDefault(entry => Same(entry.Name, name) || Same(GalleryNames.ToInstalled(entry.Name), name)) is { } found)
                return new FoundEntry(content.Gallery, found);
        }
        var unread = contents.Where(content => content.Error is not null).Select(content => $"{content.Gallery.Name}: {content.Error}").ToArray();
        return new Failure(FailureKind.NotFound, "entry.not_found", $"no {(kind == GalleryKind.Models ? "model" : "backend")} found with name {id}"
            + (galleries.Length == 0 ? ": there is no gallery" : named is null && at > 0 ? $": there is no gallery {id[..at]}" : "")
            + (unread.Length > 0 ? $" (not all galleries could be read: {string.Join("; ", unread)})" : ""), "id");
    }

    /// <summary>Reads a configuration.</summary>
    public async Task<Result<GalleryEntry>> FetchAsync(string url, CancellationToken cancellationToken)
    {
        if (sources.Resolve(url, out var fault) is not { } place)
            return Failure.Invalid("url", fault!);
        try
        {
            var content = (await fetcher.FetchAsync(url, place, null, cancellationToken)).Content!;
            return GalleryIndex.ParseConfig(new StreamReader(new MemoryStream(content), Encoding.UTF8));
        }
        catch (GalleryException e)
        {
            return new Failure(FailureKind.Unavailable, "config.unreadable", e.Message, "url");
        }
        catch (GalleryFormatException e)
        {
            return new Failure(FailureKind.Conflict, "config.unreadable", $"{GalleryFetcher.Shown(url)} is no configuration: {e.Message}", "url");
        }
    }

    /// <summary>Puts the model together that a request asks for.</summary>
    public async Task<Result<(ComposedModel Model, FoundEntry? Entry, GalleryEntry? Fetched)>> ComposeAsync(ModelApply request, CancellationToken cancellationToken)
    {
        FoundEntry? entry = null;
        if (request.Id is { Length: > 0 } id && !(await FindAsync(GalleryKind.Models, id, cancellationToken)).TryGet(out entry, out var unknown))
            return unknown;
        GalleryEntry? fetched = null;
        var url = entry is not null ? entry.Entry.Url : request.Url is { Length: > 0 } given ? given : request.ConfigUrl ?? "";
        if (url.Length > 0 && !(await FetchAsync(url, cancellationToken)).TryGet(out fetched, out var unread))
            return unread;
        var parts = new ModelParts
        {
            Name = request.Name,
            Entry = entry?.Entry,
            Fetched = fetched,
            ConfigFile = Object(request.ConfigFile),
            Overrides = Object(request.Overrides),
            Files = [.. (request.Files ?? []).Select(file => new GalleryFile(file.Filename ?? "", file.Uri ?? "", file.Sha256 ?? ""))],
        };
        return ModelComposer.Compose(parts).Match<Result<(ComposedModel, FoundEntry?, GalleryEntry?)>>(model => (model, entry, fetched), failure => failure);
    }

    private static JsonObject? Object(JsonElement? element) => element is { ValueKind: JsonValueKind.Object } given ? JsonObject.Create(given) : null;

    private static bool Same(string one, string other) => one.Equals(other, StringComparison.OrdinalIgnoreCase);
}
