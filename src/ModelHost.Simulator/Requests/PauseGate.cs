namespace ModelHost.Simulator.Requests;

/// <summary>A stop of the scheduler, from the call that asked for it to the one that ends it.</summary>
internal sealed class PauseGate(bool freezes, bool onlyNew)
{
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile bool _onlyNew = onlyNew;

    /// <summary>Requests that already run stand still too.</summary>
    public bool Freezes { get; } = freezes;

    public Task Ended => _ended.Task;

    /// <summary>Whether a request has to wait; <paramref name="bornDuring"/> is the pause that there was when it came.</summary>
    public bool Holds(PauseGate? bornDuring) => !_onlyNew || ReferenceEquals(this, bornDuring);

    /// <summary>What came before is done: from now on everything waits.</summary>
    public void Close() => _onlyNew = false;

    public void End() => _ended.TrySetResult();
}
