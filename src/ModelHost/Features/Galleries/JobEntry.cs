namespace ModelHost.Features.Galleries;

/// <summary>A job in memory. Its state only moves forward, and never from an end.</summary>
internal sealed class JobEntry
{
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private CancellationTokenSource? _run;
    private JobState _state;
    private JobStatus _status;

    public JobEntry(Job row, JobStatus status)
    {
        (Id, Uid, Kind, Subject, Element, Request, Attempts, CreatedAt, FinishedAt) = (row.Id, row.Uid, row.Kind, row.Subject, row.Element, row.Request, row.Attempts, row.CreatedAt, row.FinishedAt);
        (_state, _status) = (row.State, status);
        if (status.Processed)
            _ended.SetResult();
    }

    public int Id { get; }

    public string Uid { get; }

    public string Kind { get; }

    public string Subject { get; }

    public string Element { get; }

    public string Request { get; private set; }

    public int Attempts { get; private set; }

    public DateTimeOffset CreatedAt { get; }

    public DateTimeOffset? FinishedAt { get; set; }

    /// <summary>Held while its row is written.</summary>
    public SemaphoreSlim Writes { get; } = new(1);

    /// <summary>Completes when it has ended, well or not.</summary>
    public Task Ended => _ended.Task;

    public JobState State => Snapshot.State;

    public JobStatus Status => Snapshot.Status;

    /// <summary>The status with what was asked for, and when.</summary>
    public JobStatus Shown => Status with { Kind = Kind, CreatedAt = CreatedAt, FinishedAt = FinishedAt };

    public (JobState State, JobStatus Status) Snapshot
    {
        get
        {
            lock (_lock)
                return (_state, _status);
        }
    }

    /// <summary>Begins to run; false: it was cancelled meanwhile, or it runs.</summary>
    public bool TryBegin(CancellationTokenSource run)
    {
        lock (_lock)
        {
            if (_state != JobState.Queued)
                return false;
            (_state, _run) = (JobState.Running, run);
            Attempts++;
            return true;
        }
    }

    /// <summary>Changes what is shown of it while it runs; nothing of one that has ended.</summary>
    public void Show(Func<JobStatus, JobStatus> change)
    {
        lock (_lock)
        {
            if (!_status.Processed)
                _status = change(_status);
        }
    }

    /// <summary>Ends it, once. One that has passed the point of no return is not cancelled.</summary>
    public bool TryEnd(JobState end, Func<JobStatus, JobStatus> change)
    {
        lock (_lock)
        {
            if (_status.Processed || (end == JobState.Cancelled && !_status.Cancellable))
                return false;
            _state = end;
            _status = change(_status) with { Processed = true, Cancellable = false, Phase = null };
        }
        _ended.TrySetResult();
        return true;
    }

    /// <summary>Passes the point from which it is not cancelled any more. Interruptions are counted anew from here.</summary>
    /// <param name="request">Takes the place of its request.</param>
    /// <returns>False: it has been cancelled already.</returns>
    public bool TryCommit(string request)
    {
        lock (_lock)
        {
            if (_status.Processed)
                return false;
            (_status, Request, Attempts) = (_status with { Cancellable = false, Committed = true }, request, 1);
            return true;
        }
    }

    /// <summary>Goes back before that point, which could not be stored: it fails, and what it has done so far goes.</summary>
    public void Uncommit()
    {
        lock (_lock)
            _status = _status with { Committed = false };
    }

    /// <summary>Goes back to the queue, because the process ends.</summary>
    public void Requeue()
    {
        lock (_lock)
        {
            if (!_status.Processed)
                _state = JobState.Queued;
        }
    }

    /// <summary>Gives up what it has under way.</summary>
    public async Task CancelAsync()
    {
        CancellationTokenSource? run;
        lock (_lock)
            run = _run;
        try
        {
            await (run?.CancelAsync() ?? Task.CompletedTask);
        }
        catch (ObjectDisposedException)
        {
            // it has ended by itself just now
        }
    }

    /// <summary>Lets go of the run that has ended.</summary>
    public void EndRun()
    {
        lock (_lock)
            _run = null;
    }
}
