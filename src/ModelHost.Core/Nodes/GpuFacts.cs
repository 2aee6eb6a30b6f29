namespace ModelHost.Core.Nodes;

/// <summary>A GPU as the node sees it; null where nobody knows.</summary>
/// <param name="Index">Its number on the node.</param>
/// <param name="Uuid">Its id; empty where the driver gives none.</param>
/// <param name="Name">The product's name.</param>
/// <param name="TotalBytes">Its memory; on a <see cref="Unified"/> GPU the system's RAM.</param>
/// <param name="UsedBytes">What is taken of it; on a <see cref="Unified"/> GPU what is not available of the system's RAM.</param>
/// <param name="UtilizationPercent">Share of the last moments in which it worked.</param>
/// <param name="TemperatureCelsius">Temperature of the chip.</param>
/// <param name="PowerWatts">Power drawn.</param>
public sealed record GpuFacts(
    int Index, string Uuid, string Name, long? TotalBytes, long? UsedBytes, int? UtilizationPercent, int? TemperatureCelsius, double? PowerWatts)
{
    /// <summary>Whether the card is split into instances; null: it cannot be.</summary>
    public bool? MigEnabled { get; init; }

    /// <summary>The driver's version; null where it does not tell.</summary>
    public string? Driver { get; init; }

    /// <summary>Whether it has no memory of its own and computes in the system's RAM.</summary>
    public bool Unified { get; init; }
}

/// <summary>A part of a card that is split by MIG.</summary>
/// <param name="GpuUuid">The card.</param>
/// <param name="Index">Its number on the card.</param>
/// <param name="Profile">Its size as the driver names it: <c>3g.20gb</c>.</param>
/// <param name="Uuid">Its own id.</param>
public sealed record MigInstance(string GpuUuid, int Index, string Profile, string Uuid);

/// <summary>A process that computes on a GPU.</summary>
/// <param name="GpuUuid">The GPU, or an instance of it.</param>
/// <param name="Pid">Its number.</param>
/// <param name="Name">What the driver calls it; null where it does not tell.</param>
/// <param name="UsedBytes">GPU memory that it holds; null where the driver does not tell.</param>
public sealed record GpuProcessFacts(string GpuUuid, int Pid, string? Name, long? UsedBytes);
