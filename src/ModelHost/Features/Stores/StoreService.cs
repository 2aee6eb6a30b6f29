using System.Collections.Concurrent;
using System.Globalization;
using System.Text;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Hosting;

namespace ModelHost.Features.Stores;

/// <summary>The vector stores by name. Each is a file of the data folder, read when it is first asked for; a store that nothing was set in is not there, and empty.</summary>
internal sealed partial class StoreService(DataFolder folder, IOptions<StoreOptions> options, ILogger<StoreService> logger) : IAsyncDisposable
{
    /// <summary>Most numbers in a vector.</summary>
    public const int LargestDimension = 65536;

    /// <summary>Most matches of one question.</summary>
    public const int MostMatches = 10_000;

    /// <summary>Longest name, as it is escaped for the file.</summary>
    public const int LongestName = 200;

    /// <summary>The names of the backend that these stores are.</summary>
    public static readonly string[] Backends = ["", "local-store", "embedded-store"];

    private const string DefaultName = "default";
    private const string Extension = ".vectors";

    private readonly string _path = folder.PrivateFolder("stores").FullName;
    private readonly StoreBudget _budget = new(options.Value.MaxBytes);
    private readonly ConcurrentDictionary<string, VectorStore> _open = new();
    // stores are opened and made one after the other
    private readonly SemaphoreSlim _opening = new(1);
    private bool _disposed;

    /// <summary>Sets keys.</summary>
    public async Task<Failure?> SetAsync(StoreSet request, CancellationToken cancellationToken)
    {
        if (!Name(request.Store).TryGet(out var name, out var failure)
            || !Keys(request.Keys, "no keys to add").TryGet(out var keys, out failure))
            return failure;
        if (!Texts(request.Values ?? [], keys.Length).TryGet(out var texts, out failure))
            return failure;
        if (Lengths(keys, keys[0].Length, "Try to add key") is { } ragged)
            return ragged;
        if (!(await OpenAsync(name, keys[0].Length, cancellationToken)).TryGet(out var store, out failure))
            return failure;
        return Lengths(keys, store.Dimension, "Try to add key") ?? await store.ChangeAsync(StoreChange.Set, keys, texts, cancellationToken);
    }

    /// <summary>Deletes keys; those that are not there are no error.</summary>
    public async Task<Failure?> DeleteAsync(StoreKeys request, CancellationToken cancellationToken)
    {
        if (!Name(request.Store).TryGet(out var name, out var failure)
            || !Keys(request.Keys, "no keys to delete").TryGet(out var keys, out failure)
            || !(await FindAsync(name, cancellationToken)).TryGet(out var found, out failure))
            return failure;
        return Lengths(keys, found.Store?.Dimension ?? keys[0].Length, "Trying to delete key")
            ?? (found.Store is { } store ? await store.ChangeAsync(StoreChange.Delete, keys, [], cancellationToken) : null);
    }

    /// <summary>Reads keys.</summary>
    public async Task<Result<VectorMatch[]>> GetAsync(StoreKeys request, CancellationToken cancellationToken)
    {
        if (!Name(request.Store).TryGet(out var name, out var failure)
            || !Keys(request.Keys, "no keys to get").TryGet(out var keys, out failure)
            || !(await FindAsync(name, cancellationToken)).TryGet(out var found, out failure))
            return failure;
        if (Lengths(keys, found.Store?.Dimension ?? keys[0].Length, "Try to get a key") is { } ragged)
            return ragged;
        return found.Store?.Get(keys) ?? [];
    }

    /// <summary>Finds the nearest keys.</summary>
    public async Task<Result<VectorMatch[]>> FindAsync(StoreFind request, CancellationToken cancellationToken)
    {
        if (!Name(request.Store).TryGet(out var name, out var failure)
            || !Key(request.Key, "key").TryGet(out var key, out failure)
            || !(await FindAsync(name, cancellationToken)).TryGet(out var found, out failure))
            return failure;
        if (Lengths([key], found.Store?.Dimension ?? key.Length, "Try to find key") is { } other)
            return other;
        if (Matches(request.Topk) is { } wrong)
            return wrong;
        return found.Store?.Find(key, request.Topk) ?? [];
    }

    /// <summary>Makes the changes that were taken, and closes all files.</summary>
    public async ValueTask DisposeAsync()
    {
        await _opening.WaitAsync();
        _disposed = true;
        _opening.Release();
        foreach (var store in _open.Values)
            await store.DisposeAsync();
    }

    private static Result<string> Name(string? store)
    {
        var name = string.IsNullOrEmpty(store) ? DefaultName : store;
        return name.Length <= LongestName && Uri.EscapeDataString(name).Length <= LongestName ? name : StoreFailures.BadName();
    }

    /// <summary>The values of keys.</summary>
    public static Result<byte[][]> Texts(IReadOnlyList<string?> values, int keys)
    {
        if (values.Count != keys)
            return StoreFailures.Refused(Words($"len(keys) = {keys}, len(values) = {values.Count}"));
        var texts = new byte[keys][];
        for (var i = 0; i < texts.Length; i++)
        {
            if (values[i] is not { } text)
                return StoreFailures.NoValue(i);
            texts[i] = Encoding.UTF8.GetBytes(text);
        }
        return texts;
    }

    /// <summary>Vectors that have numbers, and only such.</summary>
    /// <param name="given">The vectors.</param>
    /// <param name="words">What to say when there are none.</param>
    public static Result<float[][]> Keys(IReadOnlyList<float[]?>? given, string words)
    {
        if (given is null or { Count: 0 })
            return StoreFailures.Refused(words);
        var keys = new float[given.Count][];
        for (var i = 0; i < keys.Length; i++)
        {
            if (!Key(given[i], string.Create(CultureInfo.InvariantCulture, $"keys[{i}]")).TryGet(out var key, out var failure))
                return failure;
            keys[i] = key;
        }
        return keys;
    }

    /// <summary>A vector that has numbers, and only such.</summary>
    public static Result<float[]> Key(float[]? given, string field)
    {
        if (given is null or { Length: 0 })
            return StoreFailures.NoNumbers(field);
        if (given.Length > LargestDimension)
            return StoreFailures.TooLong(field);
        for (var i = 0; i < given.Length; i++)
        {
            if (!float.IsFinite(given[i]))
                return StoreFailures.NotFinite(string.Create(CultureInfo.InvariantCulture, $"{field}[{i}]"));
            given[i] += 0f; // -0 is the same key as 0
        }
        return given;
    }

    /// <summary>Looks at how many matches are wanted.</summary>
    public static Failure? Matches(int topk) =>
        topk < 1 ? StoreFailures.Refused(Words($"opts.TopK = {topk}, must be >= 1")) : topk > MostMatches ? StoreFailures.TooManyResults() : null;

    private static Failure? Lengths(float[][] keys, int dimension, string words) =>
        keys.FirstOrDefault(key => key.Length != dimension) is { } wrong
            ? StoreFailures.Refused(Words($"{words} with length {wrong.Length} when existing length is {dimension}")) : null;

    private static string Words(FormattableString words) => FormattableString.Invariant(words);

    private Task<Result<Found>> FindAsync(string name, CancellationToken cancellationToken) =>
        _open.TryGetValue(name, out var store) ? Task.FromResult<Result<Found>>(new Found(store)) : OpenAsync(name, existing => existing, cancellationToken);

    private async Task<Result<VectorStore>> OpenAsync(string name, int dimension, CancellationToken cancellationToken)
    {
        if (_open.TryGetValue(name, out var store))
            return store;
        return (await OpenAsync(name, existing => existing ?? StoreFile.Create(FilePath(name), dimension), cancellationToken))
            .Match<Result<VectorStore>>(found => found.Store!, failure => failure);
    }

    /// <param name="name">Which.</param>
    /// <param name="orMake">Gets what was read, null if there is no file, and says what to serve.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    private async Task<Result<Found>> OpenAsync(string name, Func<StoreFile?, StoreFile?> orMake, CancellationToken cancellationToken)
    {
        await _opening.WaitAsync(cancellationToken);
        try
        {
            if (_open.TryGetValue(name, out var store))
                return new Found(store);
            ObjectDisposedException.ThrowIf(_disposed, this);
            var path = FilePath(name);
            var existing = File.Exists(path) ? StoreFile.Read(path) : null;
            if (existing?.CutBytes is > 0 and var cut)
                LogCut(name, cut, path + ".cut");
            if (existing is null && Directory.EnumerateFiles(_path, "*" + Extension).Take(options.Value.MaxStores).Count() == options.Value.MaxStores)
                return orMake(null) is null ? new Found(null) : StoreFailures.TooMany(options.Value.MaxStores);
            if (orMake(existing) is not { } file)
                return new Found(null);
            return new Found(_open[name] = new VectorStore(name, file, _budget, logger));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidDataException)
        {
            LogUnreadable(e, name);
            return StoreFailures.Unreadable(name);
        }
        finally
        {
            _opening.Release();
        }
    }

    private string FilePath(string name) => Path.Combine(_path, Uri.EscapeDataString(name) + Extension);

    [LoggerMessage(2511, LogLevel.Warning, "The file of the vector store {Store} ended in {CutBytes} bytes that are no whole change, of which nobody was told; they lie in {Path}.")]
    private partial void LogCut(string store, long cutBytes, string path);

    [LoggerMessage(2512, LogLevel.Error, "The file of the vector store {Store} could not be opened.")]
    private partial void LogUnreadable(Exception exception, string store);

    /// <summary>A store; null: there is none of that name.</summary>
    private sealed record Found(VectorStore? Store);
}
