using Microsoft.Extensions.Logging;
using ModelHost.Agent.Downloads;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>The pulls of a node: those under way, a few at a time and one after the other for each name, and for a day those that have ended.</summary>
internal sealed partial class PullQueue : IAsyncDisposable
{
    private const int MaxUnderWay = 500, KeptEnded = 200;
    private static readonly TimeSpan KeptFor = TimeSpan.FromDays(1);
    private static readonly TimeSpan PartialsKeptFor = TimeSpan.FromDays(7);

    private readonly ArtifactFolders _folders;
    private readonly PullRecords _records;
    private readonly PullRunner _files;
    private readonly ImagePull _images;
    private readonly TimeSpan _holdFor;
    private readonly TimeProvider _time;
    private readonly ILogger _logger;
    private readonly Action _changed;
    private readonly Dictionary<string, RunningPull> _running = [];
    private readonly Dictionary<string, PullRecord> _ended = [];
    private readonly SemaphoreSlim _slots;
    private readonly CancellationTokenSource _shutdown = new();
    private readonly Lock _lock = new();
    private Task _deletions = Task.CompletedTask;

    public PullQueue(
        ArtifactFolders folders, PullRecords records, PullRunner files, ImagePull images, DownloadOptions options, TimeProvider time, ILogger logger, Action changed)
    {
        (_folders, _records, _files, _images, _time, _logger, _changed) = (folders, records, files, images, time, logger, changed);
        (_slots, _holdFor) = (new SemaphoreSlim(options.ParallelPulls), options.HoldFor);
    }

    /// <summary>Goes on with what an earlier process had not finished.</summary>
    public void Open()
    {
        Quietly(_folders.Recover);
        lock (_lock)
        {
            foreach (var record in _records.ReadAll().OrderBy(record => record.State.CreatedAt))
            {
                if (record.IsEnded)
                    _ended[Key(record.State.PullId)] = record;
                else if (record.Request is { } request && PullRules.Fault(request) is null)
                    Begin(record);
            }
            ForgetPartials();
        }
    }

    /// <summary>Begins a pull that is not known. One of its name that is held makes way for it: nobody waits for that any more.</summary>
    /// <exception cref="ArgumentException">It makes no sense.</exception>
    /// <exception cref="InvalidOperationException">There are too many, or it cannot be written down.</exception>
    public void Pull(PullRequest request)
    {
        if (PullRules.Fault(request) is { } fault)
            throw new ArgumentException(fault, nameof(request));
        lock (_lock)
        {
            if (_running.TryGetValue(Key(request.PullId), out var known))
            {
                Ask(known);
                return;
            }
            // one that was dropped because nobody wanted it is wanted after all
            if (_ended.TryGetValue(Key(request.PullId), out var ended) && ended.State.ErrorCode != PullErrors.HoldExpired)
                return;
            if (_running.Count >= MaxUnderWay)
                throw new InvalidOperationException($"{MaxUnderWay} pulls are under way");
            var kept = request.Clone();
            kept.HuggingFaceToken = "";
            var record = new PullRecord
            {
                Request = kept,
                Token = _records.Seal(request.HuggingFaceToken),
                State = new Pull { PullId = request.PullId, Kind = request.Kind, Name = request.Name, Phase = PullPhase.Queued, CreatedAt = Now() },
            };
            Keep(record);
            _ended.Remove(Key(request.PullId));
            MakeWay(request.Kind, request.Name);
            Begin(record);
        }
        _changed();
    }

    /// <summary>Ends a pull, or sees to it that it does not begin.</summary>
    /// <exception cref="ArgumentException">The id is none.</exception>
    public void Cancel(string pullId, bool keepPartial)
    {
        if (!Guid.TryParse(pullId, out _))
            throw new ArgumentException("pull_id: a pull id is a GUID", nameof(pullId));
        lock (_lock)
        {
            if (_running.TryGetValue(Key(pullId), out var running))
            {
                running.Cancel(keepPartial);
                return;
            }
            if (_ended.ContainsKey(Key(pullId)))
                return;
            var now = Now();
            End(new PullRecord { State = new Pull { PullId = pullId, Phase = PullPhase.Cancelled, CreatedAt = now, EndedAt = now } });
        }
    }

    /// <summary>Lets a pull that is held take its place. Of one that has, and of one that was not to be held, nothing more is wanted.</summary>
    /// <exception cref="ArgumentException">The id is none.</exception>
    /// <exception cref="InvalidOperationException">It is not whole, has ended otherwise, or is not known.</exception>
    public void Commit(string pullId)
    {
        if (!Guid.TryParse(pullId, out var id))
            throw new ArgumentException("pull_id: a pull id is a GUID", nameof(pullId));
        lock (_lock)
        {
            if (_running.TryGetValue(Key(pullId), out var running))
            {
                if (running.Request.Hold && !running.TryCommit())
                    throw new InvalidOperationException(running.Record.IsStaged ? "the pull is being given up" : "the pull is not whole yet");
            }
            else if (_ended.TryGetValue(Key(pullId), out var ended))
            {
                if (ended.State.Phase != PullPhase.Done)
                    throw new InvalidOperationException(ended.State.Phase == PullPhase.Cancelled ? "the pull was cancelled" : $"the pull has failed: {ended.State.Error}");
            }
            else if (!_folders.List().Any(artifact => Guid.TryParse(artifact.PullId, out var by) && by == id))
            {
                throw new InvalidOperationException("the pull is not known here");
            }
        }
        _changed();
    }

    /// <summary>All of them as they stand, oldest first.</summary>
    public IReadOnlyList<Pull> Snapshot()
    {
        lock (_lock)
        {
            Prune();
            return [.. _running.Values.Select(running => running.State()).Concat(_ended.Values.Where(record => record.Request is not null).Select(record => record.State.Clone())).OrderBy(pull => pull.CreatedAt)];
        }
    }

    /// <summary>Whether a pull is at work on an image.</summary>
    public bool IsPulling(string image)
    {
        lock (_lock)
            return _running.Values.Any(running => running.Request.Kind == ArtifactKind.Image && _images.NameOf(running.Request) == image);
    }

    /// <summary>Removes what a pull installed.</summary>
    /// <exception cref="InvalidOperationException">A pull is at work on it, or none installed it.</exception>
    public void Delete(ArtifactKind kind, string name)
    {
        lock (_lock)
        {
            if (Of((kind, name)).Any(running => !running.IsHeld))
                throw new InvalidOperationException($"a pull is at work on '{name}'");
            var removed = _folders.Remove(kind, name);
            MakeWay(kind, name);
            // it may be hundreds of thousands of files; those that a crash leaves go at the next start
            if (removed is not null)
                _deletions = Task.WhenAll(_deletions, Task.Run(() => DeleteQuietly(removed)));
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _shutdown.CancelAsync();
        Task[] tasks;
        lock (_lock)
            tasks = [.. _running.Values.Select(running => running.Work), _deletions];
        await Task.WhenAll(tasks);
        _slots.Dispose();
        _shutdown.Dispose();
    }

    private static string Key(string pullId) => Guid.Parse(pullId).ToString("N");

    private double Now() => _time.GetUtcNow().ToUnixTimeMilliseconds() / 1000d;

    private void Begin(PullRecord record)
    {
        var running = new RunningPull(record, _changed, CancellationTokenSource.CreateLinkedTokenSource(_shutdown.Token));
        // all of them: one that is cancelled while it waits ends before those that it waits for
        var before = Task.WhenAll(Of(running.Place).Select(earlier => earlier.Work));
        _running[Key(record.State.PullId)] = running;
        running.Work = Task.Run(() => RunAsync(running, before));
    }

    private IEnumerable<RunningPull> Of((ArtifactKind, string) place) => _running.Values.Where(running => running.Place == place);

    private async Task RunAsync(RunningPull running, Task before)
    {
        var ended = await DoAsync(running, before);
        lock (_lock)
        {
            _running.Remove(Key(running.Request.PullId));
            if (ended is not null)
                End(ended);
            ForgetPartials();
            running.Dispose();
        }
        _changed();
    }

    /// <summary>Does it, and tells how it ended; null: it has not, and goes on at the next start.</summary>
    private async Task<PullRecord?> DoAsync(RunningPull running, Task before)
    {
        var request = running.Request;
        var isImage = request.Kind == ArtifactKind.Image;
        var isItsTurn = false;
        try
        {
            await before.WaitAsync(running.Stop);
            isItsTurn = true;
            var artifact = isImage ? await InTurnAsync(running, () => _images.RunAsync(request, running.Progress, running.Stop)) : await InstallAsync(running);
            DeleteQuietly(isImage ? null : _folders.StagingOf(request.Kind, request.Name));
            LogInstalled(request.PullId, request.Name, artifact.Digest);
            return running.Ended(PullPhase.Done, Now(), pull => pull.Digest = artifact.Digest);
        }
        catch (OperationCanceledException) when (running.IsCancelled)
        {
            // before its turn, what lies there is of the one that it waits for
            DeleteQuietly(isImage || !isItsTurn ? null : running.KeepsPartial ? _folders.TreeOf(request.Kind, request.Name) : _folders.StagingOf(request.Kind, request.Name));
            LogCancelled(request.PullId, request.Name);
            return running.Ended(PullPhase.Cancelled, Now());
        }
        catch (OperationCanceledException) when (running.Dropped is not null)
        {
            return Failed(running, running.Dropped);
        }
        catch (OperationCanceledException) when (_shutdown.IsCancellationRequested)
        {
            return null;
        }
#pragma warning disable CA1031 // whatever it is, the pull has ended by it and says so
        catch (Exception e)
#pragma warning restore CA1031
        {
            return Failed(running, e as DownloadException ?? (e is IOException full && DiskRoom.IsFull(full) ? DiskRoom.Full(e.Message) : new DownloadException("install_failed", e.Message, inner: e)));
        }
    }

    private PullRecord Failed(RunningPull running, DownloadException failure)
    {
        LogFailed(running.Request.PullId, running.Request.Name, failure.Message);
        if (running.Request.Kind != ArtifactKind.Image)
            DeleteQuietly(_folders.TreeOf(running.Request.Kind, running.Request.Name)); // its parts are for the next of the name
        return running.Ended(PullPhase.Failed, Now(), pull => (pull.ErrorCode, pull.Error) = (failure.Code, failure.Message));
    }

    private async Task<Artifact> InstallAsync(RunningPull running)
    {
        if (_files.Installed(running.Request) is { } done)
            return done;
        var artifact = running.Record.IsStaged ? _files.Staged(running.Request) : null;
        if (artifact is null)
        {
            lock (_lock)
                running.Unstage();
            artifact = await InTurnAsync(running, () => _files.StageAsync(running.Request, _records.Token(running.Record), running.Progress, running.Stop));
        }
        if (running.Request.Hold)
            await HoldAsync(running, artifact.Digest);
        else
            running.Stop.ThrowIfCancellationRequested();
        _files.Install(running.Request);
        return artifact;
    }

    /// <summary>Does what uses the network and the disk, some at a time. One that is held keeps nobody waiting.</summary>
    private async Task<Artifact> InTurnAsync(RunningPull running, Func<Task<Artifact>> work)
    {
        await _slots.WaitAsync(running.Stop);
        try
        {
            LogBegins(running.Request.PullId, running.Request.Name);
            return await work();
        }
        finally
        {
            _slots.Release();
        }
    }

    /// <summary>Waits until it may take its place, as long as somebody may still want that.</summary>
    private async Task HoldAsync(RunningPull running, string digest)
    {
        lock (_lock)
        {
            if (!running.Record.IsStaged)
            {
                running.Stage(digest, _time.GetUtcNow());
                _records.Write(running.Record);
            }
            // those before it have ended
            if (Of(running.Place).Any(other => other != running && !other.IsEnding))
                running.Drop(GivesWay());
        }
        LogHeld(running.Request.PullId, running.Request.Name);
        _changed();
        while (!running.IsCommitted)
        {
            running.Stop.ThrowIfCancellationRequested();
            var left = running.Record.AskedAt!.Value + _holdFor - _time.GetUtcNow();
            if (left > TimeSpan.Zero)
            {
                // a clock that was put back must not make it longer
                var wait = running.Committed.WaitAsync(left < _holdFor ? left : _holdFor, _time, running.Stop);
                await wait.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                continue;
            }
            lock (_lock)
            {
                // unless somebody has asked for it just now
                if (running.Record.AskedAt.Value + _holdFor <= _time.GetUtcNow())
                    running.Drop(new DownloadException(PullErrors.HoldExpired, $"it was whole, and nobody has asked for it since {running.Record.AskedAt.Value:u}"));
            }
        }
    }

    private void Ask(RunningPull known)
    {
        if (!known.IsHeld)
            return;
        known.Ask(_time.GetUtcNow());
        Quietly(() => _records.Write(known.Record));
    }

    private void MakeWay(ArtifactKind kind, string name)
    {
        foreach (var held in Of((kind, name)).Where(running => running.IsHeld))
            held.Drop(GivesWay());
    }

    private static DownloadException GivesWay() => new("superseded", "something else was asked for under its name before it was to take its place");

    private void End(PullRecord record)
    {
        _ended[Key(record.State.PullId)] = record;
        try
        {
            _records.Write(record);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // on a full disk: the next start does it again, and finds it done
            LogNotKept(record.State.PullId, e.Message);
        }
        Prune();
    }

    private void Prune()
    {
        var oldest = _time.GetUtcNow() - KeptFor;
        var gone = _ended.Values.OrderByDescending(record => record.State.EndedAt).Where((record, i) => i >= KeptEnded || record.State.EndedAt < oldest.ToUnixTimeSeconds()).ToArray();
        foreach (var record in gone)
        {
            _ended.Remove(Key(record.State.PullId));
            Quietly(() => _records.Delete(record.State.PullId));
        }
    }

    private void Keep(PullRecord record)
    {
        try
        {
            _records.Write(record);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidOperationException($"the pull cannot be written down: {e.Message}", e);
        }
    }

    private void ForgetPartials() =>
        Quietly(() => _folders.Forget(_time.GetUtcNow() - PartialsKeptFor, (kind, name) => Of((kind, name)).Any()));

    private void DeleteQuietly(string? folder) => Quietly(() =>
    {
        if (folder is not null && Directory.Exists(folder))
            Directory.Delete(folder, recursive: true);
    });

    // what is left over takes room and does no harm; the next start tries again
    private void Quietly(Action tidy)
    {
        try
        {
            tidy();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            LogLeft(e.Message);
        }
    }

    [LoggerMessage(2251, LogLevel.Information, "Pull {PullId} of {Name} begins.")]
    private partial void LogBegins(string pullId, string name);

    [LoggerMessage(2252, LogLevel.Information, "Pull {PullId} has installed {Name}, {Digest}.")]
    private partial void LogInstalled(string pullId, string name, string digest);

    [LoggerMessage(2253, LogLevel.Warning, "Pull {PullId} of {Name} failed: {Reason}")]
    private partial void LogFailed(string pullId, string name, string reason);

    [LoggerMessage(2254, LogLevel.Warning, "How pull {PullId} ended could not be written down: {Reason}")]
    private partial void LogNotKept(string pullId, string reason);

    [LoggerMessage(2256, LogLevel.Information, "Pull {PullId} of {Name} is whole, and held until it may take its place.")]
    private partial void LogHeld(string pullId, string name);

    [LoggerMessage(2257, LogLevel.Information, "Pull {PullId} of {Name} was cancelled.")]
    private partial void LogCancelled(string pullId, string name);

    [LoggerMessage(2255, LogLevel.Warning, "Something that a pull left could not be removed: {Reason}")]
    private partial void LogLeft(string reason);
}
