using System.Collections.Concurrent;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>The simulated engine: admits requests up to <c>--max-num-seqs</c>, queues the others without bound, and can die.</summary>
internal sealed class Engine(ServerOptions options, MemoryPlan plan, EngineMetrics metrics, TimeProvider time) : IDisposable
{
    private const int RememberedPrompts = 1024;

    private readonly SemaphoreSlim _slots = new((int)Math.Max(1, options.Flags.Integer("max_num_seqs") ?? (plan.TotalBytes >= 70L << 30 ? 1024 : 256)));
    private readonly CancellationTokenSource _abort = new();
    private readonly TaskCompletionSource _died = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ConcurrentDictionary<ulong, byte> _seenPrompts = [];
    private int _running;
    private int _waiting;
    private int _inFlight;
    private int _answered;
    private long _kvTokens;

    public EngineMetrics Metrics { get; } = metrics;

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
    public CancellationToken Aborted => _abort.Token;

    /// <summary>Makes a request known; the caller disposes of it when the answer is out.</summary>
    public Generation Start(GenerationRequest request, CancellationToken disconnected)
    {
        if (IsDead)
            throw ApiException.EngineDead();
        Interlocked.Increment(ref _inFlight);
        var sequences = new Sequence[request.Prompts.Count * request.N];
        for (var i = 0; i < sequences.Length; i++)
            sequences[i] = Sequence.Make(request, i, options.Seed, Knobs.OutputTokens);
        return new Generation(this, request, sequences, disconnected);
    }

    /// <summary>Takes a place in the batch; waits in the queue while there is none.</summary>
    public async ValueTask EnterAsync(CancellationToken cancellationToken)
    {
        if (!_slots.Wait(0, CancellationToken.None))
        {
            Interlocked.Increment(ref _waiting);
            try
            {
                await _slots.WaitAsync(cancellationToken);
            }
            finally
            {
                Interlocked.Decrement(ref _waiting);
            }
        }
        Interlocked.Increment(ref _running);
    }

    public bool TryEnter()
    {
        if (!_slots.Wait(0, CancellationToken.None))
            return false;
        Interlocked.Increment(ref _running);
        return true;
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

    public bool CachesPrefixes => options.PrefixCaching;

    /// <summary>An inference request has been answered, or its client is gone.</summary>
    public void Ended(bool answered)
    {
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

    private void Die()
    {
        _died.TrySetResult();
        _abort.Cancel();
    }
}
