using Google.Protobuf;
using Microsoft.Extensions.Logging;
using ModelHost.Agent.Metering;
using ModelHost.Agent.Service;
using ModelHost.Protocol;

namespace ModelHost.Agent.Proxy;

/// <summary>
/// What direct requests used, until the control plane says that it has booked it. Added up by deployment, key and day, and written once a second to
/// <c>usage/direct</c> of the data folder. What is handed out stands there first, in batches that are numbered and do not change: each is booked once,
/// whatever becomes of an answer, of either process, or of an older copy of the file that is put back.
/// </summary>
internal sealed partial class DirectJournal(string dataFolder, TimeProvider time, ILogger logger)
{
    /// <summary>Most entries that are kept, at some 100 bytes each: what comes for further ones is not counted.</summary>
    internal const int MostEntries = 10_000;

    /// <summary>What follows the name of the file where it could not be read, and lies beside it.</summary>
    internal const string Unreadable = ".unreadable";

    private static readonly TimeSpan Period = TimeSpan.FromSeconds(1);

    private readonly string _path = Path.Combine(dataFolder, "usage", "direct");
    // taken before the other: requests do not wait for the disk
    private readonly Lock _file = new();
    private readonly Lock _lock = new();
    private readonly Dictionary<Slot, Sum> _open = [];
    private readonly Queue<UsageBatch> _closed = new();
    private int _closedEntries;
    private string _name = "";
    private long _sequence;
    private long _changes;
    private long _written;
    private bool _isFull;
    private bool _isUnwritable;

    /// <summary>Whether there is something that has not been acknowledged.</summary>
    public bool IsWaiting
    {
        get
        {
            lock (_lock)
            {
                Load();
                return _closed.Count + _open.Count > 0;
            }
        }
    }

    /// <summary>Adds what a request used.</summary>
    public void Add(string deploymentUid, DirectCaller caller, UsageCount count)
    {
        var now = time.GetUtcNow();
        var slot = new Slot(deploymentUid, caller, DateOnly.FromDateTime(now.UtcDateTime).DayNumber - DateOnly.FromDateTime(DateTime.UnixEpoch).DayNumber);
        lock (_lock)
        {
            Load();
            if (!_open.TryGetValue(slot, out var sum))
            {
                if (_open.Count + _closedEntries >= MostEntries)
                {
                    if (!_isFull)
                        LogFull(MostEntries);
                    _isFull = true;
                    return;
                }
                _open[slot] = sum = new Sum();
            }
            sum.Add(count, now);
            _changes++;
        }
    }

    /// <summary>Forgets what has been booked, and hands out the batch that follows.</summary>
    /// <exception cref="ArgumentException">There is no such batch.</exception>
    /// <exception cref="InvalidOperationException">It cannot be written down, and would be booked twice after a restart.</exception>
    public UsageReply Next(UsageRequest request)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(request.Booked);
        lock (_file)
        {
            var reply = new UsageReply();
            lock (_lock)
            {
                Load();
                if (request.Journal == _name)
                    Forget(request.Booked);
                if (_closed.Count == 0)
                    Close();
                reply.Journal = _name;
                if (_closed.TryPeek(out var batch))
                    (reply.Batch, reply.More) = (batch, _closed.Count > 1 || _open.Count > 0);
            }
            if (reply.Batch is not null && !TryWrite(out var reason))
                throw new InvalidOperationException($"what direct requests used cannot be written down: {reason}");
            return reply;
        }
    }

    /// <summary>Writes down what is new.</summary>
    public void Flush()
    {
        lock (_file)
            TryWrite(out _);
    }

    /// <summary>Writes once a second, until cancelled and then once more: a process that is killed loses what came in its last second.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        while (!cancellationToken.IsCancellationRequested)
        {
            await Task.Delay(Period, time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            Flush();
        }
    }

    private void Forget(long booked)
    {
        while (_closed.TryPeek(out var batch) && batch.Sequence <= booked)
        {
            _closed.Dequeue();
            _closedEntries -= batch.Entries.Count;
            _isFull = false;
            _changes++;
        }
        // an older copy of the file was put back: what it had has been booked, and its numbers have been given away
        if (booked > _sequence)
        {
            _sequence = booked;
            _changes++;
        }
    }

    /// <summary>Makes a batch of what is open.</summary>
    private void Close()
    {
        if (_open.Count == 0)
            return;
        var batch = new UsageBatch { Sequence = ++_sequence };
        foreach (var (slot, sum) in _open.Take(NodeMethods.MaxUsageEntries).ToArray())
        {
            batch.Entries.Add(sum.Entry(slot));
            _open.Remove(slot);
        }
        Enqueue(batch);
        _changes++;
    }

    private void Enqueue(UsageBatch batch)
    {
        _closed.Enqueue(batch);
        _closedEntries += batch.Entries.Count;
    }

    private void Load()
    {
        if (_name.Length > 0)
            return;
        UsageJournal? kept = null;
        try
        {
            if (File.Exists(_path))
                kept = UsageJournal.Parser.ParseFrom(File.ReadAllBytes(_path));
        }
        catch (Exception e) when (e is InvalidProtocolBufferException or IOException or UnauthorizedAccessException)
        {
            LogUnreadable(_path, e.Message);
            SetAside();
        }
        if (kept is not { Journal.Length: > 0 })
        {
            _name = Guid.NewGuid().ToString("N");
            return;
        }
        (_name, _sequence) = (kept.Journal, kept.Sequence);
        foreach (var batch in kept.Batches)
            Enqueue(batch);
        // of what was open in the copy of a file some may have been booked since: it keeps the number that it had then
        foreach (var entries in kept.Open.Chunk(NodeMethods.MaxUsageEntries))
        {
            Enqueue(new UsageBatch { Sequence = ++_sequence, Entries = { entries } });
            _changes++;
        }
    }

    /// <summary>Keeps what could not be read, and would be written over in a second.</summary>
    private void SetAside()
    {
        try
        {
            File.Move(_path, _path + Unreadable, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // then it is no file, or cannot be written over either
        }
    }

    private bool TryWrite(out string reason)
    {
        UsageJournal journal;
        long changes;
        reason = "";
        lock (_lock)
        {
            if (_changes == _written)
                return true;
            changes = _changes;
            journal = new UsageJournal { Journal = _name, Sequence = _sequence, Batches = { _closed }, Open = { _open.Select(pair => pair.Value.Entry(pair.Key)) } };
        }
        try
        {
            WholeFile.Write(_path, journal.WriteTo);
            (_written, _isUnwritable) = (changes, false);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            reason = e.Message;
            if (!_isUnwritable)
                LogNotKept(e.Message);
            _isUnwritable = true;
            return false;
        }
    }

    [LoggerMessage(2411, LogLevel.Warning, "{File} cannot be read, and is set aside beside it; what direct requests used before and was not booked is not counted: {Reason}")]
    private partial void LogUnreadable(string file, string reason);

    [LoggerMessage(2412, LogLevel.Warning, "What direct requests used could not be written down; it is kept in memory and tried again: {Reason}")]
    private partial void LogNotKept(string reason);

    [LoggerMessage(2413, LogLevel.Error, "Nobody has booked what direct requests used for so long that {Count} entries are kept; what further keys, deployments and days use is not counted.")]
    private partial void LogFull(int count);

    private readonly record struct Slot(string DeploymentUid, DirectCaller Caller, int Day);

    private sealed class Sum
    {
        private UsageCount _count;
        private DateTimeOffset _last;

        public void Add(UsageCount count, DateTimeOffset at)
        {
            _count = (_count + count).Bounded;
            _last = at;
        }

        public DirectUsage Entry(Slot slot) => new()
        {
            DeploymentUid = slot.DeploymentUid,
            KeyId = slot.Caller.KeyId,
            KeyMark = slot.Caller.KeyMark,
            Day = slot.Day,
            Requests = _count.Requests,
            Aborted = _count.Aborted,
            Failed = _count.Failed,
            PromptTokens = _count.PromptTokens,
            CompletionTokens = _count.CompletionTokens,
            LastAt = _last.ToUnixTimeMilliseconds() / 1000.0,
        };
    }
}

/// <summary>Who sends a direct request.</summary>
/// <param name="KeyId">Id of the API key; 0: none, or the admin key.</param>
/// <param name="KeyMark">What tells it from another key of that id.</param>
internal readonly record struct DirectCaller(int KeyId, ulong KeyMark);
