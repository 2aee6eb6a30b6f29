using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>The gauges of a scheduler.</summary>
/// <param name="Running">Sequences in the batch.</param>
/// <param name="Waiting">Sequences in the queue.</param>
/// <param name="Deferred">Those of them that wait for something other than room.</param>
/// <param name="KvCacheUsage">Share of the KV cache in use, from 0 to 1.</param>
internal readonly record struct Gauges(int Running, int Waiting, int Deferred, double KvCacheUsage);

/// <summary>
/// The batch and the queue of one engine. A request runs when it is first in line, <c>--max-num-seqs</c> has places for all its sequences
/// and the KV cache has room; one that is alone always runs. When the cache is full, the request that began last is sent back to the head
/// of the queue, and starts over when there is room.
/// </summary>
internal sealed class Scheduler
{
    private readonly Lock _gate = new();
    private readonly LinkedList<Place> _queue = [];
    private readonly LinkedList<Place> _batch = [];
    private readonly Dictionary<string, int> _adapters = [];
    private readonly EngineMetrics _metrics;
    private readonly BlockPool _blocks;
    private readonly int _maxAdapters;
    private readonly long? _maxQueued;
    private readonly long? _maxQueuedTokens;
    private PauseGate? _pause;
    private Gauges _shown;
    private volatile int _running;
    private int _waiting;
    private long _waitingTokens;

    public Scheduler(ServerOptions options, MemoryPlan plan, EngineMetrics metrics, TimeProvider time)
    {
        _metrics = metrics;
        Places = (int)Math.Clamp(options.Flags.Integer("max_num_seqs") ?? (plan.TotalBytes >= 70L << 30 ? 1024 : 256), 1, int.MaxValue);
        _maxAdapters = (int)Math.Clamp(options.Flags.Integer("max_loras") ?? 1, 1, int.MaxValue);
        _maxQueued = options.Flags.Integer("max_num_queued_reqs");
        _maxQueuedTokens = options.Flags.Integer("max_num_queued_tokens");
        _blocks = new(plan.NumBlocks, options.Flags.Switch("kv_cache_metrics")
            ? new(options.Flags.Number("kv_cache_metrics_sample") ?? 0.01, metrics, time) : null);
    }

    /// <summary>Sequences that may run at once.</summary>
    public int Places { get; }

    /// <summary>Sequences that run.</summary>
    public int Running => _running;

    /// <summary>What the engine last told of itself. It tells nothing while it stands still: what comes then is not seen.</summary>
    public Gauges Shown
    {
        get
        {
            lock (_gate)
                return _shown;
        }
    }

    /// <summary>Requests in the queue that came during this pause.</summary>
    public int CountHeld(PauseGate? pause)
    {
        lock (_gate)
            return pause is null ? 0 : _queue.Count(place => ReferenceEquals(place.BornDuring, pause));
    }

    /// <summary>Whether the limits of the queue leave room for a request.</summary>
    public bool Accepts(int sequences, int promptTokens)
    {
        if (_maxQueued is null && _maxQueuedTokens is null)
            return true;
        lock (_gate)
            return (_queue.Count == 0 && _running + sequences <= Places)
                || (_waiting + sequences <= (_maxQueued ?? long.MaxValue) && _waitingTokens + promptTokens <= (_maxQueuedTokens ?? long.MaxValue));
    }

    /// <summary>Lets a request run if that can be at once.</summary>
    public bool TryEnter(Place place)
    {
        lock (_gate)
        {
            if (_queue.Count > 0 || IsHeld(place) || !Fits(place))
                return false;
            Run(place);
            Show();
            return true;
        }
    }

    /// <summary>Waits for the turn of a request; its place in the queue is lost when the wait is cancelled.</summary>
    public async ValueTask EnterAsync(Place place, CancellationToken cancellationToken)
    {
        Task turn;
        lock (_gate)
        {
            if (place.Runs)
                return;
            if (place.Node.List is null)
                Enqueue(place, first: false);
            turn = place.Turn!.Task;
            Admit();
            if (!IsHeld(place))
                Show();
        }
        try
        {
            await turn.WaitAsync(cancellationToken);
        }
        catch (OperationCanceledException)
        {
            Leave(place);
            throw;
        }
    }

    /// <summary>Gives a running request more blocks. When there are none, the request that began last goes back into the queue.</summary>
    /// <returns>False when this one does not run any more.</returns>
    public bool TryGrow(Place place, int blocks)
    {
        lock (_gate)
        {
            while (place.Runs && !_blocks.HasRoom(blocks) && Victim() is { } victim)
                SendBack(victim);
            if (!place.Runs)
                return false;
            _blocks.Grow(place.Lease, blocks);
            Show();
            return true;
        }

        Place? Victim()
        {
            if (_batch.Count == 1)
                return null;
            var node = _batch.Last;
            while (node is { Value.IsWhole: true })
                node = node.Previous;
            return node?.Value;
        }
    }

    /// <summary>Ends a request's stay, wherever it is.</summary>
    public void Leave(Place place)
    {
        lock (_gate)
        {
            if (place.Runs)
                Stop(place);
            else if (place.Node.List is not null)
                Dequeue(place);
            else
                return;
            Admit();
            if (_pause is null || place.BornDuring != _pause)
                Show();
        }
    }

    /// <summary>From now on a pause holds requests; null ends it.</summary>
    public void SetPause(PauseGate? pause)
    {
        lock (_gate)
        {
            _pause = pause;
            if (pause is not null)
                return;
            Admit();
            Show();
        }
    }

    /// <summary>Empties the prefix cache.</summary>
    /// <param name="force">Even when requests are using it; otherwise nothing happens then.</param>
    public void ForgetPrompts(bool force)
    {
        lock (_gate)
            if (force || !_blocks.IsInUse)
                _blocks.Forget();
    }

    private bool IsHeld(Place place) => _pause is { } pause && pause.Holds(place.BornDuring);

    private bool Fits(Place place) => _batch.Count == 0
        || (_running + place.Sequences <= Places && !IsDeferred(place) && _blocks.HasRoom(place.Prompts, place.PrivateBlocks));

    /// <summary>The batch has as many adapters as it can, and this one is not among them.</summary>
    private bool IsDeferred(Place place) =>
        place.Adapter is { } adapter && _adapters.Count >= _maxAdapters && !_adapters.ContainsKey(adapter);

    private void Run(Place place)
    {
        place.FoundBlocks = _blocks.Take(place.Lease, place.Prompts, place.PrivateBlocks);
        _batch.AddLast(place.Node);
        _running += place.Sequences;
        if (place.Adapter is { } adapter)
            _adapters[adapter] = _adapters.GetValueOrDefault(adapter) + 1;
        place.Runs = true;
    }

    private void Stop(Place place)
    {
        place.Runs = false;
        _batch.Remove(place.Node);
        _running -= place.Sequences;
        _blocks.Release(place.Lease);
        if (place.Adapter is { } adapter && --_adapters[adapter] == 0)
            _adapters.Remove(adapter);
    }

    private void SendBack(Place place)
    {
        Stop(place);
        Enqueue(place, first: true);
        _metrics.Preempted(place.Sequences);
    }

    private void Enqueue(Place place, bool first)
    {
        place.Turn = new(TaskCreationOptions.RunContinuationsAsynchronously);
        if (first)
            _queue.AddFirst(place.Node);
        else
            _queue.AddLast(place.Node);
        _waiting += place.Sequences;
        _waitingTokens += place.PromptTokens;
    }

    private void Dequeue(Place place)
    {
        _queue.Remove(place.Node);
        _waiting -= place.Sequences;
        _waitingTokens -= place.PromptTokens;
    }

    /// <summary>Lets those at the head of the queue run. Who waits for an adapter lets others pass.</summary>
    private void Admit()
    {
        for (var node = _queue.First; node is not null;)
        {
            var (place, next) = (node.Value, node.Next);
            if (IsHeld(place))
                return;
            if (Fits(place))
            {
                Dequeue(place);
                Run(place);
                place.Turn!.SetResult();
            }
            else if (!IsDeferred(place))
                return;
            node = next;
        }
    }

    private void Show()
    {
        var deferred = 0;
        if (_adapters.Count >= _maxAdapters)
            foreach (var place in _queue)
                deferred += IsDeferred(place) ? place.Sequences : 0;
        _shown = new(_running, _waiting, deferred, _blocks.Usage);
    }
}
