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
    private volatile Heartbeat? _beat;
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

    /// <summary>Looks at its deployments that failed since; more calls than one in an interval are one look.</summary>
    public int Failures => _state.Silence.Count;

    /// <summary>Whether it has been silent so long that nothing is known of its deployments any more.</summary>
    public bool IsUnreachable => Failures >= settings.Current.DeploymentFailureThreshold;

    /// <summary>Whether it has been silent so long that something is wrong with the node.</summary>
    public bool IsCritical => _state.NodeSilence.Count >= settings.Current.NodeFailureThreshold;

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

    /// <summary>Takes a report.</summary>
    public void Heard(NodeReport report, DateTimeOffset at) =>
        _state = new(report, report.Engines.ToFrozenDictionary(engine => engine.RunId), at);

    /// <summary>Why the latest call failed; null: it did not.</summary>
    public string? Reason => _state.Reason;

    /// <summary>Counts a call that failed.</summary>
    public void Silent(DateTimeOffset at, string reason) => _state = _state with
    {
        Reason = reason,
        Silence = _state.Silence.Next(at, TimeSpan.FromSeconds(settings.Current.DeploymentsSyncIntervalSeconds)),
        NodeSilence = _state.NodeSilence.Next(at, TimeSpan.FromSeconds(settings.Current.NodesSyncIntervalSeconds)),
    };

    /// <summary>Takes a sign of life of a node that sends some.</summary>
    /// <param name="at">When it came.</param>
    /// <param name="next">How long until the next is due.</param>
    public void Beat(DateTimeOffset at, TimeSpan next) => _beat = new Heartbeat(at, at + next + Heartbeats.Grace);

    /// <summary>When it last gave a sign of life; null: it sends none.</summary>
    public DateTimeOffset? BeatAt => _beat?.At;

    /// <summary>Whether a sign of life that was due has not come.</summary>
    public bool IsBeatMissed(DateTimeOffset now) => _beat is { } beat && now > beat.DueBy;

    /// <summary>Asks for a pass soon.</summary>
    public void Wake() => _wake.Writer.TryWrite(true);

    /// <summary>Waits until a pass is asked for.</summary>
    public async Task WokenAsync(CancellationToken cancellationToken) => await _wake.Reader.ReadAsync(cancellationToken);

    private sealed record Heartbeat(DateTimeOffset At, DateTimeOffset DueBy);

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
