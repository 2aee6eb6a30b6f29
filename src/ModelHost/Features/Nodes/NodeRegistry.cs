using System.Collections.Concurrent;
using System.Collections.Frozen;
using System.Threading.Channels;
using ModelHost.Cluster;
using ModelHost.Core.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;

namespace ModelHost.Features.Nodes;

/// <summary>The link to a node and the last thing it said.</summary>
internal sealed class NodeHandle(int id, INode link, LiveSettings settings, string uid)
{
    // requests for a pass that come in together are one
    private readonly Channel<bool> _wake = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly Channel<bool> _again = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly ConcurrentDictionary<string, EngineMetrics> _lastCounts = new();
    private volatile Heartbeat? _beat;
    private int _passes;
    private volatile Cordon _cordon = Cordon.None;
    private volatile State _state = new(null, FrozenDictionary<string, Engine>.Empty, null);

    /// <summary>Id of the node in the API.</summary>
    public int Id => id;

    /// <summary>The id that the node has itself.</summary>
    public string Uid => uid;

    /// <summary>How it is asked.</summary>
    public INode Link => link;

    /// <summary>What it said last; null: nothing yet, or it has been silent too long to go by it.</summary>
    public NodeReport? Report => IsUnreachable ? null : _state.Report;

    /// <summary>What it said last, however long ago.</summary>
    public NodeReport? LastReport => _state.Report;

    /// <summary>When it said that.</summary>
    public DateTimeOffset? ReportedAt => _state.At;

    /// <summary>Attempts to hear it that failed since; more than one in an interval are one.</summary>
    public int Failures => _state.Silence.Count;

    /// <summary>Whether it has been silent so long that nothing is known of its deployments any more.</summary>
    public bool IsUnreachable => Failures >= settings.Current.DeploymentFailureThreshold;

    /// <summary>Whether it has been silent so long that something is wrong with the node: it does not answer, or gives no sign of life by itself.</summary>
    public bool IsCritical(DateTimeOffset now) => _state.NodeSilence.Count >= settings.Current.NodeFailureThreshold
        || _beat is { } beat && now > beat.DueBy(settings.Current.NodeFailureThreshold);

    /// <summary>What of it takes no new deployments, as it was stored when it was looked at last.</summary>
    public Cordon Cordon
    {
        get => _cordon;
        set => _cordon = value;
    }

    /// <summary>The GPUs that it reported last.</summary>
    public IReadOnlyList<int> Gpus => [.. _state.Report?.Gpus.Select(gpu => gpu.Index) ?? []];

    /// <summary>What it says of a run; null: nothing.</summary>
    public Engine? Engine(string runId) => _state.Engines.GetValueOrDefault(runId);

    /// <summary>What it said last of the counters of runs that it does not tell of any more. Reports come faster than they are looked at: these may not have been counted.</summary>
    public IReadOnlyDictionary<string, EngineMetrics> LastCounts => _lastCounts;

    /// <summary>Forgets last counters, unless others have come in their place.</summary>
    public void Counted(KeyValuePair<string, EngineMetrics> last) => _lastCounts.TryRemove(last);

    /// <summary>Takes a report.</summary>
    public void Heard(NodeReport report, DateTimeOffset at)
    {
        var (before, now) = (_state.Engines, report.Engines.ToFrozenDictionary(engine => engine.RunId));
        foreach (var (run, engine) in before)
        {
            if (engine.Metrics is { } metrics && !now.ContainsKey(run))
                _lastCounts[run] = metrics;
        }
        _state = new(report, now, at);
    }

    /// <summary>Why the latest call failed; null: it did not.</summary>
    public string? Reason => _state.Reason;

    /// <summary>Counts an attempt to hear it that failed.</summary>
    public void Silent(DateTimeOffset at, string reason) => _state = _state with
    {
        Reason = reason,
        Silence = _state.Silence.Next(at, TimeSpan.FromSeconds(settings.Current.DeploymentsSyncIntervalSeconds)),
        NodeSilence = _state.NodeSilence.Next(at, TimeSpan.FromSeconds(settings.Current.NodesSyncIntervalSeconds)),
    };

    /// <summary>Takes a sign of life of a node that sends some.</summary>
    /// <param name="at">When it came.</param>
    /// <param name="next">How long until the next is due.</param>
    public void Beat(DateTimeOffset at, TimeSpan next)
    {
        var wasMissed = IsBeatMissed(at);
        _beat = new Heartbeat(at, next);
        // one that comes back is not waited for
        if (Failures > 0)
            _again.Writer.TryWrite(true);
        if (wasMissed)
            Wake();
    }

    /// <summary>When it last gave a sign of life; null: it sends none.</summary>
    public DateTimeOffset? BeatAt => _beat?.At;

    /// <summary>Whether a sign of life that was due has not come.</summary>
    public bool IsBeatMissed(DateTimeOffset now) => now > BeatDueBy;

    /// <summary>When the next sign of life is missed unless it has come; null: it sends none.</summary>
    public DateTimeOffset? BeatDueBy => _beat?.DueBy(1);

    /// <summary>Asks for a pass soon.</summary>
    public void Wake() => _wake.Writer.TryWrite(true);

    /// <summary>Waits until a pass is asked for.</summary>
    public async Task WokenAsync(CancellationToken cancellationToken) => await _wake.Reader.ReadAsync(cancellationToken);

    /// <summary>Waits until there is a reason to try again to hear it.</summary>
    public async Task AgainAsync(CancellationToken cancellationToken) => await _again.Reader.ReadAsync(cancellationToken);

    /// <summary>Passes over it that have ended since it was linked.</summary>
    public int Passes => Volatile.Read(ref _passes);

    /// <summary>Counts a pass.</summary>
    public void Passed() => Interlocked.Increment(ref _passes);

    private sealed record Heartbeat(DateTimeOffset At, TimeSpan Next)
    {
        public DateTimeOffset DueBy(int beats) => At + (beats * Next) + Heartbeats.Grace;
    }

    private sealed record State(
        NodeReport? Report, FrozenDictionary<string, Engine> Engines, DateTimeOffset? At, Silence Silence = default, Silence NodeSilence = default,
        string? Reason = null);

    /// <summary>Failed calls in a row, at most one of them counted in an interval: being asked often makes no node dead sooner.</summary>
    private readonly record struct Silence(int Count, DateTimeOffset At)
    {
        // a timer of one interval may be early by less than this
        private static readonly TimeSpan Early = TimeSpan.FromMilliseconds(50);

        public Silence Next(DateTimeOffset now, TimeSpan interval) => Count == 0 || now - At >= interval - Early ? new(Count + 1, now) : this;
    }
}

/// <summary>The nodes that are linked to this control plane.</summary>
internal sealed class NodeRegistry
{
    private readonly ConcurrentDictionary<int, NodeHandle> _nodes = new();

    /// <summary>All linked nodes.</summary>
    public IEnumerable<NodeHandle> All => _nodes.Values;

    /// <summary>Links a node.</summary>
    public void Add(NodeHandle node) => _nodes[node.Id] = node;

    /// <summary>A node's handle; null: it is not linked.</summary>
    public NodeHandle? Find(int id) => _nodes.GetValueOrDefault(id);

    /// <summary>A node's handle by the id that it has itself; null: it is not linked.</summary>
    public NodeHandle? FindByUid(string uid) => _nodes.Values.FirstOrDefault(node => node.Uid == uid);

    /// <summary>Takes a link away, unless the node was linked anew.</summary>
    public void Remove(NodeHandle node) => _nodes.TryRemove(KeyValuePair.Create(node.Id, node));

    /// <summary>Asks for a pass over a node soon.</summary>
    public void Wake(int id) => Find(id)?.Wake();
}
