using System.Threading.Channels;
using ModelHost.Core;

namespace ModelHost.Features.Stores;

/// <summary>
/// One vector store. Changes are made by one loop in the order in which they come: those that wait are written together, flushed to the disk once, and only then
/// shown to readers and answered. Readers search what is in memory.
/// </summary>
internal sealed partial class VectorStore : IAsyncDisposable
{
    private const int MaxWaiting = 1024;
    private const int MaxTogether = 256;
    private const int MaxBytesTogether = 16 * 1024 * 1024;
    // a file smaller than this is not worth a compaction
    private const int SmallFile = 16 * 1024 * 1024;

    private readonly StoreFile _file;
    private readonly VectorTable _table;
    private readonly StoreBudget _budget;
    private readonly ILogger _logger;
    private readonly Channel<Change> _changes = Channel.CreateBounded<Change>(new BoundedChannelOptions(MaxWaiting) { SingleReader = true });
    private readonly ReaderWriterLockSlim _lock = new();
    private readonly Task _loop;
    private long _compactFrom = SmallFile;

    /// <summary>Serves a file.</summary>
    public VectorStore(string name, StoreFile file, StoreBudget budget, ILogger logger)
    {
        (Name, _file, _table, _budget, _logger) = (name, file, file.Table, budget, logger);
        _budget.Add(_table.Bytes);
        _loop = Task.Run(RunAsync);
    }

    /// <summary>Its name.</summary>
    public string Name { get; }

    /// <summary>Numbers in each of its vectors.</summary>
    public int Dimension => _table.Dimension;

    /// <summary>Makes a change; when it completes without a refusal, the change is on the disk.</summary>
    /// <param name="kind">What to do.</param>
    /// <param name="keys">With the dimension of the store.</param>
    /// <param name="values">For a set, one for each key.</param>
    /// <param name="cancellationToken">Gives up waiting; the change may be made all the same.</param>
    public async Task<Failure?> ChangeAsync(StoreChange kind, IReadOnlyList<float[]> keys, IReadOnlyList<byte[]> values, CancellationToken cancellationToken)
    {
        var change = new Change(
            StoreRecord.Write(kind, Dimension, keys.Count, i => keys[i], i => values[i]),
            kind == StoreChange.Delete ? 0 : values.Sum(value => (long)value.Length + (Dimension * sizeof(float)) + VectorTable.RowOverhead));
        try
        {
            await _changes.Writer.WriteAsync(change, cancellationToken);
        }
        catch (ChannelClosedException)
        {
            return StoreFailures.Broken();
        }
        return await change.Answer.Task.WaitAsync(cancellationToken);
    }

    /// <summary>Those of some keys that are there, in the order of their numbers.</summary>
    public VectorMatch[] Get(IReadOnlyList<float[]> keys) => Read(table => table.Get(keys));

    /// <summary>The keys with the largest cosine similarity.</summary>
    public VectorMatch[] Find(float[] key, int count) => Read(table => table.Find(key, count));

    /// <summary>Makes the changes that were taken, and closes the file.</summary>
    public async ValueTask DisposeAsync()
    {
        _changes.Writer.TryComplete();
        await _loop;
        _file.Dispose();
        _lock.Dispose();
    }

    private T Read<T>(Func<VectorTable, T> read)
    {
        _lock.EnterReadLock();
        try
        {
            return read(_table);
        }
        finally
        {
            _lock.ExitReadLock();
        }
    }

    private async Task RunAsync()
    {
        var together = new List<Change>();
        try
        {
            while (await _changes.Reader.WaitToReadAsync())
            {
                for (var bytes = 0; together.Count < MaxTogether && bytes < MaxBytesTogether && _changes.Reader.TryRead(out var change); bytes += change.Record.Length)
                {
                    if (_budget.TryTake(change.Grows))
                        together.Add(change);
                    else
                        change.Answer.SetResult(StoreFailures.Full());
                }
                Make(together);
                together.Clear();
                if (_file.Length > _compactFrom + (2 * _table.Bytes))
                    Compact();
            }
        }
#pragma warning disable CA1031 // the one catch-all of the loop: whoever waits is told, and memory may differ from the file, so no more is written
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogBroken(e, Name);
            _changes.Writer.TryComplete();
            while (_changes.Reader.TryRead(out var change))
                together.Add(change);
            foreach (var change in together)
                change.Answer.TrySetResult(StoreFailures.Broken());
        }
    }

    private void Make(List<Change> together)
    {
        if (together.Count == 0)
            return;
        var before = _table.Bytes;
        Failure? failure = null;
        try
        {
            _file.Append(together.ConvertAll(change => (ReadOnlyMemory<byte>)change.Record));
            _lock.EnterWriteLock();
            try
            {
                foreach (var change in together)
                    StoreRecord.Apply(change.Record.AsSpan(StoreRecord.HeadLength), _table);
            }
            finally
            {
                _lock.ExitWriteLock();
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            LogNotWritten(e, Name);
            failure = StoreFailures.NotWritten();
        }
        // what was taken for the worst case is given back, and what was needed stays
        _budget.Add(_table.Bytes - before - together.Sum(change => change.Grows));
        foreach (var change in together)
            change.Answer.SetResult(failure);
    }

    /// <summary>Writes the file anew when most of it is of the past; changes wait meanwhile, readers do not.</summary>
    private void Compact()
    {
        var before = _file.Length;
        try
        {
            _file.Compact();
            LogCompacted(Name, before, _file.Length);
            _compactFrom = SmallFile;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            LogNotCompacted(e, Name);
            _compactFrom += before / 4; // it is long, and right as it is
        }
    }

    [LoggerMessage(2501, LogLevel.Error, "A change of the vector store {Store} could not be written and was refused.")]
    private partial void LogNotWritten(Exception exception, string store);

    [LoggerMessage(2502, LogLevel.Warning, "The file of the vector store {Store} could not be compacted; it is used as it is.")]
    private partial void LogNotCompacted(Exception exception, string store);

    [LoggerMessage(2503, LogLevel.Information, "The file of the vector store {Store} was compacted from {Before} to {After} bytes.")]
    private partial void LogCompacted(string store, long before, long after);

    [LoggerMessage(2504, LogLevel.Critical, "The vector store {Store} takes no more changes before a restart.")]
    private partial void LogBroken(Exception exception, string store);

    /// <summary>A change that waits.</summary>
    /// <param name="Record">As it is written.</param>
    /// <param name="Grows">Bytes of memory that it takes at most.</param>
    private sealed record Change(byte[] Record, long Grows)
    {
        public TaskCompletionSource<Failure?> Answer { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}

/// <summary>The memory that all stores share.</summary>
internal sealed class StoreBudget(long limit)
{
    private long _used;

    /// <summary>Bytes in use.</summary>
    public long Used => Interlocked.Read(ref _used);

    /// <summary>Counts bytes that are in use, or no longer.</summary>
    public void Add(long bytes) => Interlocked.Add(ref _used, bytes);

    /// <summary>Takes bytes, if there are as many; none can always be taken.</summary>
    public bool TryTake(long bytes)
    {
        if (bytes == 0 || Interlocked.Add(ref _used, bytes) <= limit)
            return true;
        Add(-bytes);
        return false;
    }
}
