namespace ModelHost.Features.Nodes;

/// <summary>A node's figures as they are stored: a number and some bytes, so that a year of a hundred nodes takes little room.</summary>
internal abstract class StoredFigures
{
    /// <summary>Node and second in one number, which is the row's own id in SQLite: there is no index beside it, and a node's rows lie together in their order.</summary>
    public long Key { get; set; }

    /// <summary>From <see cref="Core.Nodes.NodeFigures.ToBytes"/>.</summary>
    public required byte[] Figures { get; set; }

    /// <summary>When the figures were taken, or the time began that they are the means of.</summary>
    public DateTimeOffset At => DateTimeOffset.FromUnixTimeSeconds(Key & uint.MaxValue);

    /// <summary>The key of a node's figures. Keys of one node are ordered by time, and lie between those of its neighbours, until the year 2106.</summary>
    public static long KeyOf(int nodeId, DateTimeOffset at) => FirstOf(nodeId) + Math.Clamp(at.ToUnixTimeSeconds(), 0, uint.MaxValue);

    /// <summary>The lowest key of a node.</summary>
    public static long FirstOf(int nodeId) => (long)nodeId << 32;
}

/// <summary>One sample.</summary>
internal sealed class NodeSample : StoredFigures;

/// <summary>The means of half an hour.</summary>
internal sealed class NodeSummary : StoredFigures;
