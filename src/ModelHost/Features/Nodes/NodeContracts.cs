using System.ComponentModel;

namespace ModelHost.Features.Nodes;

/// <summary>A node as it stands.</summary>
internal sealed record NodeRead
{
    public required int Id { get; init; }
    public required string Hostname { get; init; }
    public required string IpAddress { get; init; }

    [Description("The agent's port; null for the node inside the control plane.")]
    public int? Port { get; init; }

    [Description("online, degraded, critical, maintenance, unknown or no-runtime.")]
    public required string Status { get; init; }
    public IReadOnlyList<GpuUsage>? GpuUsage { get; init; }

    [Description("Why gpu_usage is not to be trusted; null when it is.")]
    public string? GpuError { get; init; }
    public DiskUsage? DiskUsage { get; init; }
    public bool Maintenance { get; init; }
    public bool PartialMaintenance { get; init; }
    public IReadOnlyList<int> MaintenanceGpus { get; init; } = [];
    public bool WarmOffloadEnabled { get; init; }
    public int? RamCacheLimitMb { get; init; }
    public double? RamCacheUsedMb { get; init; }
    public IReadOnlyList<string>? AvailableRuntimes { get; init; }
    public string? ContainerRuntime { get; init; }
    public int? RogueContainerCount { get; init; }
    public int? RogueProcessCount { get; init; }
    public int? RogueArtifactCount { get; init; }
    public string? AgentVersion { get; init; }
    public DateTimeOffset? LastHeartbeatAt { get; init; }
    public DateTimeOffset CreatedAt { get; init; }
}

/// <summary>A GPU's use at the last reading; null where the driver does not tell.</summary>
internal sealed record GpuUsage(
    int Index, string Uuid, string Name, string Source, int? Utilization, double? MemoryUsedMb, double? MemoryTotalMb, int? TemperatureCelsius, double? PowerWatts);

/// <summary>Room on the disk that holds the model cache, in GB of 10^9 bytes.</summary>
internal sealed record DiskUsage(double TotalGb, double FreeGb, double HfCacheGb);
