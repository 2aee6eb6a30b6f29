using System.Collections.Concurrent;
using System.Text;
using Microsoft.Extensions.Options;
using ModelHost.Core.Galleries;

namespace ModelHost.Features.Galleries;

/// <summary>What a gallery held when it was read.</summary>
/// <param name="Gallery">The gallery.</param>
/// <param name="Entries">Its entries; none, if it could not be read at all.</param>
/// <param name="Error">Why it could not be read this time, in which case the entries are those of an earlier one; null: it could.</param>
internal sealed record GalleryContent(GalleryRead Gallery, IReadOnlyList<GalleryEntry> Entries, string? Error);

/// <summary>
/// Reads galleries: each at its address, then its mirrors, then the copy that was kept on disk. What was read is kept in memory, and whoever asks while it is
/// read waits for the same reading. A gallery that is broken or hangs delays the others by the patience of the settings and hides none of them.
/// </summary>
internal sealed partial class GalleryReader(
    GallerySources sources, GalleryFetcher fetcher, GalleryCopies copies, IOptions<GalleryOptions> options, TimeProvider time, IHostApplicationLifetime lifetime, ILogger<GalleryReader> logger)
    : IDisposable
{
    private const int MostKnown = 256, ParallelParses = 2;
    private readonly ConcurrentDictionary<string, Lazy<Task<Reading>>> _underWay = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, Reading> _known = new(StringComparer.Ordinal);
    // fetching them waits for servers; taking them apart costs memory while it lasts, many times their size
    private readonly SemaphoreSlim _parses = new(ParallelParses);

    /// <summary>Reads several at the same time, and waits for them as long as the settings say.</summary>
    public async Task<GalleryContent[]> ReadAsync(IReadOnlyList<GalleryRead> galleries, CancellationToken cancellationToken)
    {
        using var patience = new CancellationTokenSource(options.Value.Patience, time);
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(patience.Token, cancellationToken);
        return await Task.WhenAll(galleries.Select(async gallery =>
        {
            var reading = ReadAsync(gallery);
            await ((Task)reading.WaitAsync(waiting.Token)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            cancellationToken.ThrowIfCancellationRequested();
            return Content(gallery, reading.IsCompletedSuccessfully ? await reading : null);
        }));
    }

    /// <summary>What is known of a gallery without asking for it.</summary>
    public GalleryContent Peek(GalleryRead gallery) =>
        Content(gallery, _known.GetValueOrDefault(Key(gallery)) ?? new Reading(null, null, default, null));

    public void Dispose() => _parses.Dispose();

    private GalleryContent Content(GalleryRead gallery, Reading? reading)
    {
        if (reading is not null)
            return new GalleryContent(gallery, reading.Index?.Entries ?? [], reading.Error);
        return new GalleryContent(gallery, _known.GetValueOrDefault(Key(gallery))?.Index?.Entries ?? [], "it has not answered yet");
    }

    private Task<Reading> ReadAsync(GalleryRead gallery)
    {
        var key = Key(gallery);
        if (_known.TryGetValue(key, out var known) && time.GetUtcNow() < known.Until)
            return Task.FromResult(known);
        // not given up with whoever asked first: others wait for it, and the next one finds it
        return _underWay.GetOrAdd(key, _ => new Lazy<Task<Reading>>(() => Task.Run(async () =>
        {
            try
            {
                if (_known.Count >= MostKnown)
                    _known.Clear(); // those in use come back with their next reading
                return _known[key] = await ReadAsync(gallery, known, lifetime.ApplicationStopping);
            }
            finally
            {
                _underWay.TryRemove(key, out var _);
            }
        }))).Value;
    }

    private async Task<Reading> ReadAsync(GalleryRead gallery, Reading? before, CancellationToken stopping)
    {
        var faults = new List<string>();
        foreach (var source in gallery.Sources)
        {
            try
            {
                var index = await ReadSourceAsync(source, before, stopping);
                if (index.Skipped > 0)
                    LogSkipped(gallery.Name, index.Skipped);
                LogRead(gallery.Name, index.Entries.Count);
                return new Reading(index, source, time.GetUtcNow() + options.Value.CacheTime, null);
            }
            catch (GalleryException e)
            {
                faults.Add(e.Message);
            }
        }
        var error = string.Join("; ", faults.Distinct());
        LogUnread(gallery.Name, error);
        return new Reading(before?.Index ?? await LastCopyAsync(gallery, stopping), before?.Source, time.GetUtcNow() + options.Value.RetryAfter, error);
    }

    /// <summary>Reads a source. One that says that it has not changed is read from its copy.</summary>
    private async Task<GalleryIndex> ReadSourceAsync(string source, Reading? before, CancellationToken stopping)
    {
        if (sources.Resolve(source, out var fault) is not { } place)
            throw new GalleryException($"{GalleryFetcher.Shown(source)}: {fault}");
        var copy = place.Address is null ? null : copies.Find(source);
        await using var answer = await fetcher.FetchAsync(source, place, copy?.ETag, stopping);
        if (answer.Content is null && before is { Index: { } index } && before.Source == source)
            return index;
        await using var kept = answer.Content is null ? await copies.OpenAsync(copy!, stopping) : null;
        try
        {
            index = await ParseAsync(answer.Content ?? kept ?? throw new GalleryException($"{GalleryFetcher.Shown(source)} has not changed, and its copy is gone"), stopping);
        }
        catch (GalleryFormatException e)
        {
            throw new GalleryException($"{GalleryFetcher.Shown(source)} is no gallery: {e.Message}", e);
        }
        // only what could be read takes the place of what was read before
        if (place.Address is not null && answer.Content is not null)
            await copies.KeepAsync(source, answer.ETag, answer.Content, stopping);
        return index;
    }

    private async Task<GalleryIndex?> LastCopyAsync(GalleryRead gallery, CancellationToken stopping)
    {
        foreach (var source in gallery.Sources)
        {
            try
            {
                if (copies.Find(source) is { } copy && await copies.OpenAsync(copy, stopping) is { } content)
                {
                    await using (content)
                        return await ParseAsync(content, stopping);
                }
            }
            catch (GalleryFormatException e)
            {
                LogUnread(gallery.Name, e.Message);
            }
        }
        return null;
    }

    private async Task<GalleryIndex> ParseAsync(Stream content, CancellationToken stopping)
    {
        await _parses.WaitAsync(stopping);
        try
        {
            using var text = new StreamReader(content, Encoding.UTF8, leaveOpen: true);
            return GalleryIndex.Parse(text);
        }
        catch (IOException e)
        {
            throw new GalleryFormatException($"it cannot be read: {e.Message}", e);
        }
        finally
        {
            _parses.Release();
        }
    }

    private static string Key(GalleryRead gallery) => string.Join('\n', gallery.Sources);

    private sealed record Reading(GalleryIndex? Index, string? Source, DateTimeOffset Until, string? Error);

    [LoggerMessage(3001, LogLevel.Debug, "Gallery {Gallery} was read: {Count} entries.")]
    private partial void LogRead(string gallery, int count);

    [LoggerMessage(3002, LogLevel.Warning, "Gallery {Gallery} cannot be read: {Reason}")]
    private partial void LogUnread(string gallery, string reason);

    [LoggerMessage(3003, LogLevel.Information, "Gallery {Gallery} has {Count} items that are no entries; they are left out.")]
    private partial void LogSkipped(string gallery, int count);
}

/// <summary>A gallery or a configuration cannot be read; the message is for people and holds nothing of it.</summary>
internal sealed class GalleryException(string message, Exception? inner = null) : Exception(message, inner);
