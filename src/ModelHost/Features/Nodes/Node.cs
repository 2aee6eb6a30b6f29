using ModelHost.Core.Nodes;

namespace ModelHost.Features.Nodes;

/// <summary>A machine that runs engines.</summary>
internal sealed class Node
{
    private const string Unverified = "unverified-";

    public int Id { get; set; }

    /// <summary>The id that the node keeps in its own data folder; of one registered by hand, <see cref="UnverifiedUid"/>.</summary>
    public required string Uid { get; set; }

    public required string Hostname { get; set; }

    public required string IpAddress { get; set; }

    /// <summary>The agent's port; null: the node is inside the control plane.</summary>
    public int? Port { get; set; }

    /// <summary>Whether a person gave its name and address, and nothing has been heard of it; the node that proves to be there takes the record over.</summary>
    public bool IsByHand { get; set; }

    public DateTimeOffset CreatedAt { get; set; }

    // written by the API alone

    /// <summary>The runtime preferred on this node; null: that of the settings.</summary>
    public string? ContainerRuntime { get; set; }

    public bool WarmOffloadEnabled { get; set; }

    /// <summary>RAM that sleeping models may hold, in MiB; null: any.</summary>
    public int? RamCacheLimitMb { get; set; }

    /// <summary>A <see cref="Cordon"/> as text.</summary>
    public string Cordoned { get; set; } = "";

    /// <summary>An id for a node that has not told its own: no two are the same, and no node has it.</summary>
    public static string UnverifiedUid() => Unverified + Guid.NewGuid().ToString("N");

    /// <summary>What of it takes no new deployments.</summary>
    public Cordon ReadCordon() => Cordon.Parse(Cordoned);
}
