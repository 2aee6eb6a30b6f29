using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>Admits requests to the batch up to <c>--max-num-seqs</c>, queues the others without bound, and stands still during a pause.</summary>
internal sealed class Scheduler(ServerOptions options, MemoryPlan plan) : IDisposable
{
    private readonly SemaphoreSlim _slots = new((int)Math.Max(1, options.Flags.Integer("max_num_seqs") ?? (plan.TotalBytes >= 70L << 30 ? 1024 : 256)));
    private volatile PauseGate? _pause;
    private int _held;
    private int _running;
    private int _waiting;
    private long _kvTokens;

    public int Running => Volatile.Read(ref _running);

    public int Waiting => Volatile.Read(ref _waiting);

    /// <summary>Requests that a pause holds.</summary>
    public int Held => Volatile.Read(ref _held);

    public double KvCacheUsage => plan.NumBlocks == 0 ? 0
        : Math.Min(1, Math.Ceiling((double)Interlocked.Read(ref _kvTokens) / plan.BlockSize) / plan.NumBlocks);

    /// <summary>The pause that there is now.</summary>
    public PauseGate? CurrentPause => _pause;

    /// <summary>Takes a place in the batch; waits in the queue while there is none.</summary>
    public async ValueTask EnterAsync(PauseGate? bornDuring, CancellationToken cancellationToken)
    {
        if (TryEnter(bornDuring))
            return;
        Interlocked.Increment(ref _waiting);
        try
        {
            do
            {
                if (_pause is { } pause && pause.Holds(bornDuring))
                {
                    await HoldAsync(pause, cancellationToken);
                    continue;
                }
                await _slots.WaitAsync(cancellationToken);
                if (TryRun(bornDuring))
                    return;
            }
            while (!TryEnter(bornDuring));
        }
        finally
        {
            Interlocked.Decrement(ref _waiting);
        }
    }

    public bool TryEnter(PauseGate? bornDuring) =>
        (_pause is not { } pause || !pause.Holds(bornDuring)) && _slots.Wait(0, CancellationToken.None) && TryRun(bornDuring);

    /// <summary>Waits for the end of a pause.</summary>
    public async Task HoldAsync(PauseGate pause, CancellationToken cancellationToken)
    {
        Interlocked.Increment(ref _held);
        try
        {
            await pause.Ended.WaitAsync(cancellationToken);
        }
        finally
        {
            Interlocked.Decrement(ref _held);
        }
    }

    public void Pause(bool freeze, bool onlyNew) => _pause = new(freeze, onlyNew);

    public void CloseGate() => _pause?.Close();

    public void Resume()
    {
        var pause = _pause;
        _pause = null;
        pause?.End();
    }

    public void Leave()
    {
        Interlocked.Decrement(ref _running);
        _slots.Release();
    }

    public void Occupy(long tokens) => Interlocked.Add(ref _kvTokens, tokens);

    public void Dispose() => _slots.Dispose();

    /// <summary>Uses a place in the batch, or gives it back if a pause began meanwhile: who pauses counts the running ones afterwards.</summary>
    private bool TryRun(PauseGate? bornDuring)
    {
        Interlocked.Increment(ref _running);
        if (_pause is not { } pause || !pause.Holds(bornDuring))
            return true;
        Leave();
        return false;
    }
}
