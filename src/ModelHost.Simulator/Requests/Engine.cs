using System.Collections.Concurrent;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Requests;

/// <summary>The simulated engine: makes requests known to its scheduler, ends them before their time, and can die.</summary>
internal sealed class Engine(ServerOptions options, MemoryPlan plan, Adapters adapters, TimeProvider time) : IDisposable
{
    /// <summary>Tokens that the answers to one request may have in all. They are made before the first is sent; vLLM, which makes them one by one, has no such limit.</summary>
    private const long MostTokens = 1 << 23;

    private readonly ConcurrentDictionary<Generation, byte>? _known = options.DevMode ? [] : null;
    private readonly FailureRate _failures = new(options.Knobs.RequestFailure == RequestFailure.None ? 0 : options.Knobs.RequestFailureRate);
    private readonly FailureRate _refusals = new(options.Knobs.BusyRate);
    private readonly TaskCompletionSource _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _choice = new();
    private CancellationTokenSource _abort = new();
    private volatile PauseGate? _pause;
    private volatile bool _garbled;
    private volatile bool _memoryAway;
    private long _started;
    private int _inFlight;
    private int _answered;

    public Adapters Adapters { get; } = adapters;

    /// <summary>The engines; one without data parallelism.</summary>
    public IReadOnlyList<EngineRank> Ranks { get; } = [.. options.Parallel.Engines.Select(index => EngineRank.Make(index, options, plan, time))];

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

    /// <summary>The pause that there is now.</summary>
    public PauseGate? CurrentPause => _pause;

    public bool IsPaused => _pause is not null;

    /// <summary>Sequences that run.</summary>
    public int Running => Ranks.Sum(rank => rank.Scheduler.Running);

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

    public bool CachesPrefixes => options.PrefixCaching;

    /// <summary>Tokens of a block of the KV cache.</summary>
    public int BlockSize => plan.BlockSize;

    /// <summary>The seed of the next request's times.</summary>
    public ulong NextSeed() => ((ulong)Knobs.Seed << 32) + (ulong)Interlocked.Increment(ref _started);

    /// <summary>Single requests can be aborted by their id.</summary>
    public bool CanAbortOne => _known is not null;

    /// <summary>Makes a request known; the caller disposes of it when the answer is out.</summary>
    /// <exception cref="ApiException">The engine is dead, or there is no room in its queue.</exception>
    public Generation Start(GenerationRequest request, CancellationToken disconnected, string? id = null)
    {
        if (IsDead)
            throw ApiException.EngineDead();
        if (_refusals.Next())
            throw ApiException.Busy();
        if (Sequence.LongestOf(request, Knobs.OutputTokens) * request.Sequences > MostTokens)
            throw ApiException.Bad($"The answers to one request may have {MostTokens} tokens here.", "n");
        var rank = Choose(request);
        Interlocked.Increment(ref _inFlight);
        var sequences = new Sequence[request.Sequences];
        for (var i = 0; i < sequences.Length; i++)
            sequences[i] = Sequence.Make(request, i, options.Seed, Knobs.OutputTokens);
        var generation = new Generation(this, rank, request, sequences, PlaceFor(request), disconnected)
        {
            Id = id,
            Failure = _failures.Next() ? Knobs.RequestFailure : RequestFailure.None,
        };
        _known?.TryAdd(generation, 0);
        return generation;
    }

    /// <summary>Whether requests are under way that no pause holds.</summary>
    /// <param name="queued">Counts those that wait for a place too.</param>
    public bool HasActive(bool queued) => queued
        ? InFlight > Ranks.Sum(rank => rank.Scheduler.CountHeld(_pause)) : Running > 0;

    public void Pause(bool freeze, bool onlyNew) => SetPause(new(freeze, onlyNew));

    public void CloseGate() => _pause?.Close();

    public void Resume()
    {
        var pause = _pause;
        SetPause(null);
        pause?.End();
    }

    /// <summary>Empties the prefix caches.</summary>
    /// <param name="force">Even of what requests are using; otherwise nothing happens to an engine that has some.</param>
    public void ForgetPrompts(bool force)
    {
        foreach (var rank in Ranks)
            rank.Scheduler.ForgetPrompts(force);
    }

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
        if (Ranks.Count > 1)
            lock (_choice)
                generation.Rank.Assigned -= generation.Sequences.Length;
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

    public void Dispose() => _abort.Dispose();

    private void SetPause(PauseGate? pause)
    {
        _pause = pause;
        foreach (var rank in Ranks)
            rank.Scheduler.SetPause(pause);
    }

    /// <summary>The engine that a request names, or else the one that has the least to do.</summary>
    private EngineRank Choose(GenerationRequest request)
    {
        if (request.EngineIndex is { } wanted && Ranks.All(rank => rank.Index != wanted))
            throw ApiException.Bad($"data_parallel_rank {wanted} is out of range [0, {options.Parallel.Data})");
        if (Ranks.Count == 1)
            return Admitting(Ranks[0]);
        // chosen and counted at once, or requests that come together would all go to the same engine
        lock (_choice)
        {
            var rank = Admitting(Ranks.Where(rank => request.EngineIndex is null || rank.Index == request.EngineIndex).MinBy(rank => rank.Assigned)!);
            rank.Assigned += request.Sequences;
            return rank;
        }

        EngineRank Admitting(EngineRank rank) =>
            rank.Scheduler.Accepts(request.Sequences, request.PromptTokens) ? rank : throw ApiException.Busy();
    }

    private Place PlaceFor(GenerationRequest request)
    {
        var prompts = new PromptBlocks[request.Prompts.Count];
        // keys and values depend on the adapter too, and whoever gives a salt wants to share with nobody else
        var seed = request.Adapter is null && request.CacheSalt is null ? 0 : TextSource.Hash(request.CacheSalt, TextSource.Hash(request.Adapter, 1));
        for (var i = 0; i < prompts.Length; i++)
        {
            var (text, tokens) = request.Prompts[i];
            prompts[i] = new(options.PrefixCaching ? Tokenizer.BlockKeys(text, tokens, plan.BlockSize, seed) : [], Math.Max(0, tokens - 1) / plan.BlockSize);
        }
        return new(request.Sequences, prompts, request.PromptTokens, request.Adapter, _pause);
    }
}
