using System.Collections.Concurrent;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>The simulated engine: admits requests up to <c>--max-num-seqs</c>, queues the others without bound, and can die.</summary>
internal sealed class Engine(ServerOptions options, MemoryPlan plan, EngineMetrics metrics, Adapters adapters, TimeProvider time) : IDisposable
{
    private const int RememberedPrompts = 1024;

    private readonly SemaphoreSlim _slots = new((int)Math.Max(1, options.Flags.Integer("max_num_seqs") ?? (plan.TotalBytes >= 70L << 30 ? 1024 : 256)));
    private readonly ConcurrentDictionary<Generation, byte>? _known = options.DevMode ? [] : null;
    private readonly FailureRate _failures = new(options.Knobs.RequestFailure == RequestFailure.None ? 0 : options.Knobs.RequestFailureRate);
    private readonly FailureRate _refusals = new(options.Knobs.BusyRate);
    private CancellationTokenSource _abort = new();
    private volatile PauseGate? _pause;
    private int _held;
    private volatile bool _garbled;
    private readonly TaskCompletionSource _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ConcurrentDictionary<ulong, byte> _seenPrompts = [];
    private int _running;
    private int _waiting;
    private int _inFlight;
    private int _answered;
    private long _kvTokens;

    public EngineMetrics Metrics { get; } = metrics;

    public Adapters Adapters { get; } = adapters;

    public TimeProvider Time { get; } = time;

    public Knobs Knobs { get; } = options.Knobs;

    public int Running => Volatile.Read(ref _running);

    public int Waiting => Volatile.Read(ref _waiting);

    public double KvCacheUsage => plan.NumBlocks == 0 ? 0
        : Math.Min(1, Math.Ceiling((double)Interlocked.Read(ref _kvTokens) / plan.BlockSize) / plan.NumBlocks);

    /// <summary>Requests that are waiting, running or being answered.</summary>
    public int InFlight => Volatile.Read(ref _inFlight);

    /// <summary>Ends when the engine dies.</summary>
    public Task Died => _died.Task;

    public bool IsDead => _died.Task.IsCompleted;

    /// <summary>New requests are answered as aborted.</summary>
    public bool Stopping { get; private set; }

    /// <summary>Cancelled when all requests are to end at once.</summary>
    public CancellationToken Aborted => Volatile.Read(ref _abort).Token;

    /// <summary>The pause that there is now.</summary>
    public PauseGate? CurrentPause => _pause;

    public bool IsPaused => _pause is not null;

    /// <summary>The weights are not those of the model: answers are nonsense.</summary>
    public bool Garbled
    {
        get => _garbled;
        set => _garbled = value;
    }

    /// <summary>The exit code that ends the process at once, as a signal would; 0 when nobody asked.</summary>
    public int KilledWith { get; private set; }

    /// <summary>Makes a request known; the caller disposes of it when the answer is out.</summary>
    public Generation Start(GenerationRequest request, CancellationToken disconnected, string? id = null)
    {
        if (IsDead)
            throw ApiException.EngineDead();
        if (_refusals.Next())
            throw ApiException.Busy();
        Interlocked.Increment(ref _inFlight);
        var sequences = new Sequence[request.Prompts.Count * request.N];
        for (var i = 0; i < sequences.Length; i++)
            sequences[i] = Sequence.Make(request, i, options.Seed, Knobs.OutputTokens);
        var generation = new Generation(this, request, sequences, disconnected)
        {
            Id = id,
            Failure = _failures.Next() ? Knobs.RequestFailure : RequestFailure.None,
        };
        _known?.TryAdd(generation, 0);
        return generation;
    }

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

    /// <summary>Uses a place in the batch, or gives it back if a pause began meanwhile: who pauses counts the running ones afterwards.</summary>
    private bool TryRun(PauseGate? bornDuring)
    {
        Interlocked.Increment(ref _running);
        if (_pause is not { } pause || !pause.Holds(bornDuring))
            return true;
        Leave();
        return false;
    }

    public void Pause(bool freeze, bool onlyNew) => _pause = new(freeze, onlyNew);

    public void CloseGate() => _pause?.Close();

    public void Resume()
    {
        var pause = _pause;
        _pause = null;
        pause?.End();
    }

    /// <summary>Whether requests are under way that no pause holds.</summary>
    /// <param name="queued">Counts those that wait for a place too.</param>
    public bool HasActive(bool queued) => (queued ? InFlight : Running) > (queued ? Volatile.Read(ref _held) : 0);

    /// <summary>Ends every request there is as aborted, and none of those to come.</summary>
    public void AbortAll() => Interlocked.Exchange(ref _abort, new()).Cancel();

    /// <summary>Ends the requests with these ids, or all when there are none; says how many.</summary>
    public int Abort(IReadOnlyCollection<string> ids)
    {
        var chosen = (_known?.Keys ?? []).Where(generation => ids.Count == 0 || (generation.Id is { } id && ids.Contains(id))).ToArray();
        foreach (var generation in chosen)
            generation.Abort();
        return chosen.Length;
    }

    /// <summary>Ends the process as a signal from outside would.</summary>
    public void Kill(int exitCode)
    {
        KilledWith = exitCode;
        Die();
    }

    public void Leave()
    {
        Interlocked.Decrement(ref _running);
        _slots.Release();
    }

    public void Occupy(long tokens) => Interlocked.Add(ref _kvTokens, tokens);

    /// <summary>Tokens of the prompts that are in the prefix cache: whole blocks of a prompt seen before, never its last token.</summary>
    public int CachedTokens(GenerationRequest request)
    {
        if (!options.PrefixCaching)
            return 0;
        var cached = 0;
        foreach (var prompt in request.Prompts)
            if (!_seenPrompts.TryAdd(Text.TextSource.Hash(prompt.Text, 0), 0))
                cached += (prompt.Tokens - 1) / plan.BlockSize * plan.BlockSize;
        // a crude bound is enough: forgetting everything only costs hits
        if (_seenPrompts.Count > RememberedPrompts)
            _seenPrompts.Clear();
        return cached;
    }

    /// <summary>Empties the prefix cache.</summary>
    public void ForgetPrompts() => _seenPrompts.Clear();

    /// <summary>Single requests can be aborted by their id.</summary>
    public bool CanAbortOne => _known is not null;

    public bool CachesPrefixes => options.PrefixCaching;

    /// <summary>An inference request has been answered, or its client is gone.</summary>
    public void Ended(Generation generation, bool answered)
    {
        _known?.TryRemove(generation, out _);
        Interlocked.Decrement(ref _inFlight);
        if (answered && Knobs.ExitAfter > 0 && Interlocked.Increment(ref _answered) == Knobs.ExitAfter)
            Die();
    }

    /// <summary>Ends every request as aborted, and those to come.</summary>
    public void StopNow()
    {
        Stopping = true;
        _abort.Cancel();
    }

    /// <summary>Lets requests end by themselves; new ones are aborted.</summary>
    public void StopAdmitting() => Stopping = true;

    public void Dispose()
    {
        _abort.Dispose();
        _slots.Dispose();
    }

    public void Die()
    {
        _died.TrySetResult();
        _abort.Cancel();
    }
}
