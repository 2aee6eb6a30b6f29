namespace ModelHost.Features.Nodes;

/// <summary>A machine that runs engines.</summary>
internal sealed class Node
{
    public int Id { get; set; }

    /// <summary>The id that the node keeps in its own data folder.</summary>
    public required string Uid { get; set; }

    public required string Hostname { get; set; }

    public required string IpAddress { get; set; }

    /// <summary>Port of its agent; null: it is the node in this process.</summary>
    public int? Port { get; set; }

    public DateTimeOffset CreatedAt { get; set; }
}
