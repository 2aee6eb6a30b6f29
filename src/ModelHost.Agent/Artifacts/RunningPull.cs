using ModelHost.Agent.Downloads;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>A pull under way. What changes it is called by one at a time.</summary>
internal sealed class RunningPull : IDisposable
{
    private readonly CancellationTokenSource _stop;
    private readonly TaskCompletionSource _committed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public RunningPull(PullRecord record, Action changed, CancellationTokenSource stop)
    {
        (Record, _stop) = (record, stop);
        Stop = stop.Token;
        Progress = new PullProgress(changed);
    }

    /// <summary>What is kept of it.</summary>
    public PullRecord Record { get; private set; }

    /// <summary>What was asked for.</summary>
    public PullRequest Request => Record.Request!;

    /// <summary>What it is about: pulls of one place come one after the other.</summary>
    public (ArtifactKind Kind, string Name) Place => (Request.Kind, Request.Name);

    public PullProgress Progress { get; }

    /// <summary>Ends its work.</summary>
    public CancellationToken Stop { get; }

    public Task Work { get; set; } = Task.CompletedTask;

    public bool IsCancelled { get; private set; }

    public bool KeepsPartial { get; private set; }

    /// <summary>Why the node has given it up; null: it has not.</summary>
    public DownloadException? Dropped { get; private set; }

    /// <summary>Whether it is not to take its place any more.</summary>
    public bool IsEnding => IsCancelled || Dropped is not null;

    /// <summary>Whether it is whole and waits for the word to take its place.</summary>
    public bool IsHeld => Record.IsStaged && !IsCommitted;

    public bool IsCommitted => _committed.Task.IsCompleted;

    /// <summary>Completes when it may take its place.</summary>
    public Task Committed => _committed.Task;

    /// <summary>Cancels it, unless it is about to take its place.</summary>
    public void Cancel(bool keepPartial)
    {
        if (IsCommitted)
            return;
        (IsCancelled, KeepsPartial) = (true, keepPartial);
        End();
    }

    /// <summary>Gives it up, unless it is about to take its place or has been cancelled.</summary>
    public void Drop(DownloadException why)
    {
        if (IsCommitted || IsEnding)
            return;
        Dropped = why;
        End();
    }

    /// <summary>It is whole.</summary>
    public void Stage(string digest, DateTimeOffset at)
    {
        var pull = State();
        (pull.Phase, pull.Detail, pull.Digest) = (PullPhase.Staged, "", digest);
        Record = Record with { State = pull, AskedAt = at };
    }

    /// <summary>It was whole, and what it had is gone: it begins anew.</summary>
    public void Unstage()
    {
        var pull = Record.State.Clone();
        (pull.Phase, pull.Digest) = (PullPhase.Queued, "");
        Record = Record with { State = pull };
    }

    /// <summary>One that is held is asked for again.</summary>
    public void Ask(DateTimeOffset at) => Record = Record with { AskedAt = at };

    /// <summary>Lets it take its place.</summary>
    /// <returns>False: it is not whole, or not wanted any more.</returns>
    public bool TryCommit()
    {
        if (!Record.IsStaged || IsEnding)
            return false;
        _committed.TrySetResult();
        return true;
    }

    /// <summary>How it stands.</summary>
    public Pull State()
    {
        var pull = Record.State.Clone();
        if (!Record.IsStaged)
            Progress.Write(pull);
        else if (IsCommitted)
            pull.Phase = PullPhase.Installing;
        return pull;
    }

    /// <summary>How it has ended.</summary>
    public PullRecord Ended(PullPhase phase, double at, Action<Pull>? more = null)
    {
        var pull = State();
        (pull.Phase, pull.Detail, pull.Digest, pull.EndedAt) = (phase, "", "", at);
        more?.Invoke(pull);
        return new PullRecord { Request = Request, State = pull };
    }

    public void Dispose() => _stop.Dispose();

    // its work would go on within the call, under the lock of whoever ends it: it may have hundreds of thousands of files to delete
    private void End() => _ = _stop.CancelAsync();
}
