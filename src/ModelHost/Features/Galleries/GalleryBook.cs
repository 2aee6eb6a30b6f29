using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Events;

namespace ModelHost.Features.Galleries;

/// <summary>The galleries that are known: those of the configuration, without those taken away, and those added.</summary>
internal sealed partial class GalleryBook(Database database, IOptions<GalleryOptions> options, GallerySources sources, ChangeFeed feed)
{
    private const int MaxGalleries = 64, MaxMirrors = 8, MaxVerification = 8 * 1024;
    private static readonly GalleryRead[] BuiltInModels = [new() { Name = "modelhost", Url = BuiltInGallery.Models }];
    private static readonly GalleryRead[] BuiltInBackends = [new() { Name = "modelhost", Url = BuiltInGallery.Backends }];

    /// <summary>All of a kind: those of the configuration first, then the added ones in their order. One that was added hides that of its name.</summary>
    public async Task<GalleryRead[]> ListAsync(GalleryKind kind, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Galleries.AsNoTracking().Where(gallery => gallery.Kind == kind).OrderBy(gallery => gallery.Id).ToListAsync(cancellationToken);
        return [.. Configured(kind).Where(one => !rows.Exists(row => SameName(row.Name, one.Name))), .. rows.Where(row => !row.IsRemoved).Select(Read)];
    }

    /// <summary>Adds one.</summary>
    /// <returns>All of them then.</returns>
    public async Task<Result<GalleryRead[]>> AddAsync(GalleryKind kind, GalleryAdd request, CancellationToken cancellationToken)
    {
        if (Check(request) is { } fault)
            return fault;
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            var known = await ListAsync(kind, cancellationToken);
            if (Array.Exists(known, gallery => SameName(gallery.Name, request.Name!)))
                return new Failure(FailureKind.Conflict, "gallery.name_taken", $"{request.Name} already exists", "name");
            if (known.Length >= MaxGalleries)
                return new Failure(FailureKind.Conflict, "gallery.too_many", $"there are {MaxGalleries} galleries already, and no more are kept");
            // what says that one of the configuration is gone makes way
            db.Galleries.RemoveRange((await db.Galleries.Where(gallery => gallery.Kind == kind).ToListAsync(cancellationToken)).Where(row => SameName(row.Name, request.Name!)));
            await db.SaveChangesAsync(cancellationToken);
            db.Galleries.Add(new Gallery
            {
                Kind = kind,
                Name = request.Name!,
                Url = request.Url!,
                Mirrors = JsonSerializer.Serialize(request.Mirrors ?? []),
                Verification = request.Verification is { ValueKind: JsonValueKind.Object } given ? given.GetRawText() : null,
            });
            await db.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        feed.Publish(Change.Galleries);
        return await ListAsync(kind, cancellationToken);
    }

    /// <summary>Takes one away; what was installed from it stays.</summary>
    /// <returns>All of them then.</returns>
    public async Task<Result<GalleryRead[]>> RemoveAsync(GalleryKind kind, GalleryRemove request, CancellationToken cancellationToken)
    {
        if (string.IsNullOrWhiteSpace(request.Name))
            return Failure.Invalid("name", "is required");
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            var row = (await db.Galleries.Where(gallery => gallery.Kind == kind).ToListAsync(cancellationToken)).Find(row => SameName(row.Name, request.Name));
            var configured = Configured(kind).FirstOrDefault(gallery => SameName(gallery.Name, request.Name));
            if (row is { IsRemoved: true } || (row ?? (object?)configured) is null)
                return new Failure(FailureKind.NotFound, "gallery.not_found", $"{request.Name} is not currently registered", "name");
            if (configured is null)
                db.Galleries.Remove(row!);
            else if (row is not null)
                row.IsRemoved = true;
            else
                db.Galleries.Add(new Gallery { Kind = kind, Name = configured.Name, Url = configured.Url, IsRemoved = true });
            await db.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        feed.Publish(Change.Galleries);
        return await ListAsync(kind, cancellationToken);
    }

    private Failure? Check(GalleryAdd request)
    {
        if (request.Name is null || !Name().IsMatch(request.Name))
            return Failure.Invalid("name", "is missing, or holds something other than up to 64 letters, digits and . _ -");
        if (string.IsNullOrWhiteSpace(request.Url))
            return Failure.Invalid("url", "is required");
        if (sources.Fault(request.Url) is { } fault)
            return Failure.Invalid("url", fault);
        if (request.Mirrors is { Count: > MaxMirrors })
            return Failure.Invalid("mirrors", $"holds more than {MaxMirrors}");
        if ((request.Mirrors ?? []).Select(mirror => mirror is null ? "holds nothing in one place" : sources.Fault(mirror)).FirstOrDefault(found => found is not null) is { } wrong)
            return Failure.Invalid("mirrors", wrong);
        return request.Verification is { ValueKind: not (JsonValueKind.Null or JsonValueKind.Object) } || request.Verification?.GetRawText().Length > MaxVerification
            ? Failure.Invalid("verification", $"is no object of up to {MaxVerification} characters") : null;
    }

    private GalleryRead[] Configured(GalleryKind kind) => kind switch
    {
        GalleryKind.Models => options.Value.Models is { Count: > 0 } models ? Read(models) : BuiltInModels,
        GalleryKind.Backends => options.Value.Backends is { Count: > 0 } backends ? Read(backends) : BuiltInBackends,
    };

    private static GalleryRead[] Read(List<GallerySource> configured) =>
        [.. configured.Select(one => new GalleryRead { Name = one.Name, Url = one.Url, Mirrors = one.Mirrors.Count > 0 ? one.Mirrors : null })];

    private static GalleryRead Read(Gallery row) => new()
    {
        Name = row.Name,
        Url = row.Url,
        Mirrors = JsonSerializer.Deserialize<string[]>(row.Mirrors) is { Length: > 0 } mirrors ? mirrors : null,
        Verification = row.Verification is { } json ? JsonSerializer.Deserialize<JsonElement>(json) : null,
    };

    private static bool SameName(string one, string other) => one.Equals(other, StringComparison.OrdinalIgnoreCase);

    /// <summary>What names of galleries look like; an <c>@</c> would part it from the name of an entry.</summary>
    [GeneratedRegex(@"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    public static partial Regex Name();
}
