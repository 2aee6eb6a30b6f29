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
        var asked = EntryId.Of(id, galleries);
        var contents = await reader.ReadAsync(asked.Gallery is null ? galleries : [.. galleries.Where(gallery => gallery.Name == asked.Gallery)], cancellationToken);
        return asked.FindIn(contents) is { } found ? found : asked.NotIn(contents, "entry.not_found", $"no {(kind == GalleryKind.Models ? "model" : "backend")} found with name {id}");
    }

    /// <summary>Reads a configuration.</summary>
    public async Task<Result<GalleryEntry>> FetchAsync(string url, CancellationToken cancellationToken)
    {
        if (sources.Resolve(url, out var fault) is not { } place)
            return Failure.Invalid("url", fault!);
        try
        {
            await using var answer = await fetcher.FetchAsync(url, place, null, cancellationToken);
            using var text = new StreamReader(answer.Content!, Encoding.UTF8);
            return GalleryIndex.ParseConfig(text);
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
        return ModelComposer.Compose(PartsOf(request) with { Entry = entry?.Entry, Fetched = fetched })
            .Match<Result<(ComposedModel, FoundEntry?, GalleryEntry?)>>(model => (model, entry, fetched), failure => failure);
    }

    /// <summary>What is wrong with a request, as far as it can be told without asking anybody; null: nothing.</summary>
    public Failure? Fault(ModelApply request)
    {
        foreach (var (field, url) in (ReadOnlySpan<(string, string?)>)[("url", request.Url), ("config_url", request.ConfigUrl)])
        {
            if (url is { Length: > 0 } && sources.Fault(url) is { } fault)
                return Failure.Invalid(field, fault);
        }
        var parts = PartsOf(request);
        return request is { Id: null or "", Url: null or "", ConfigUrl: null or "" } ? ModelComposer.Compose(parts).Failure : ModelComposer.FilesFault(parts.Files);
    }

    private static ModelParts PartsOf(ModelApply request) => new()
    {
        Name = request.Name,
        ConfigFile = Object(request.ConfigFile),
        Overrides = Object(request.Overrides),
        Files = [.. (request.Files ?? []).Select(file => new GalleryFile(file.Filename ?? "", file.Uri ?? "", file.Sha256 ?? ""))],
    };

    private static JsonObject? Object(JsonElement? element) => element is { ValueKind: JsonValueKind.Object } given ? JsonObject.Create(given) : null;
}
