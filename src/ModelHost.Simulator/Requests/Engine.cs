using System.Collections.Concurrent;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>The simulated engine: makes requests known to its scheduler, ends them before their time, and can die.</summary>
internal sealed class Engine(ServerOptions options, MemoryPlan plan, Adapters adapters, TimeProvider time) : IDisposable
{
    private readonly ConcurrentDictionary<Generation, byte>? _known = options.DevMode ? [] : null;
    private readonly FailureRate _failures = new(options.Knobs.RequestFailure == RequestFailure.None ? 0 : options.Knobs.RequestFailureRate);
    private readonly FailureRate _refusals = new(options.Knobs.BusyRate);
    private readonly TaskCompletionSource _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private CancellationTokenSource _abort = new();
    private volatile bool _garbled;
    private volatile bool _memoryAway;
    private int _inFlight;
    private int _answered;

    public Adapters Adapters { get; } = adapters;

    /// <summary>The engines; one without data parallelism.</summary>
    public IReadOnlyList<EngineRank> Ranks { get; } = [new(0, new Scheduler(options, plan), new EngineMetrics(plan.MaxModelLength))];

    public Scheduler Scheduler => Ranks[0].Scheduler;

    public PrefixCache Prefixes { get; } = new(options.PrefixCaching, plan.BlockSize);

    public TimeProvider Time { get; } = time;

    public Knobs Knobs { get; } = options.Knobs;

    /// <summary>Requests that are waiting, running or being answered.</summary>
    public int InFlight => Volatile.Read(ref _inFlight);

    /// <summary>Ends when the engine dies.</summary>
    public Task Died => _died.Task;

    public bool IsDead => _died.Task.IsCompleted;

    /// <summary>New requests are answered as aborted.</summary>
    public bool Stopping { get; private set; }

    /// <summary>Cancelled when all requests are to end at once.</summary>
    public CancellationToken Aborted => Volatile.Read(ref _abort).Token;

    public bool IsPaused => Scheduler.CurrentPause is not null;

    /// <summary>The weights are not those of the model: answers are nonsense.</summary>
    public bool Garbled
    {
        get => _garbled;
        set => _garbled = value;
    }

    /// <summary>Weights or cache are gone: whoever computes now meets an illegal memory access.</summary>
    public bool MemoryAway
    {
        get => _memoryAway;
        set => _memoryAway = value;
    }

    /// <summary>The exit code that ends the process at once, as a signal would; 0 when nobody asked.</summary>
    public int KilledWith { get; private set; }

    /// <summary>Single requests can be aborted by their id.</summary>
    public bool CanAbortOne => _known is not null;

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

    /// <summary>Whether requests are under way that no pause holds.</summary>
    /// <param name="queued">Counts those that wait for a place too.</param>
    public bool HasActive(bool queued) => (queued ? InFlight : Scheduler.Running) > (queued ? Scheduler.Held : 0);

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

    public void Die()
    {
        _died.TrySetResult();
        _abort.Cancel();
    }

    /// <summary>Ends the process as a signal from outside would.</summary>
    public void Kill(int exitCode)
    {
        KilledWith = exitCode;
        Die();
    }

    public void Dispose()
    {
        _abort.Dispose();
        foreach (var rank in Ranks)
            rank.Dispose();
    }
}
