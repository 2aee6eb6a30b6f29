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

    [Description("Why it is degraded or critical; null otherwise.")]
    public string? StatusDetail { get; init; }
    public IReadOnlyList<GpuUsage>? GpuUsage { get; init; }

    [Description("Why gpu_usage may not be what the machine has now; null when it is. Entries that are not current are marked as stale.")]
    public string? GpuError { get; init; }

    [Description("Why the processes of gpu_usage may not be what runs now; null when they are.")]
    public string? GpuProcessError { get; init; }
    public string? GpuDriver { get; init; }
    public DiskUsage? DiskUsage { get; init; }
    public int? CpuCount { get; init; }

    [Description("How busy all processors together were in the last seconds.")]
    public double? CpuPercent { get; init; }
    public double? MemoryTotalMb { get; init; }

    [Description("RAM that programs cannot get without swapping.")]
    public double? MemoryUsedMb { get; init; }
    public double? MemoryPercent { get; init; }

    [Description("Whether nothing here takes new deployments.")]
    public bool Maintenance { get; init; }

    [Description("Whether only some of the GPUs take none.")]
    public bool PartialMaintenance { get; init; }
    public IReadOnlyList<int> MaintenanceGpus { get; init; } = [];
    [Description("Whether models may be put to sleep for others; kept, and acts in a later version.")]
    public bool WarmOffloadEnabled { get; init; }
    public int? RamCacheLimitMb { get; init; }
    public double? RamCacheUsedMb { get; init; }
    public IReadOnlyList<string>? AvailableRuntimes { get; init; }

    [Description("The runtime preferred on this node; null: that of the settings.")]
    public string? ContainerRuntime { get; init; }

    [Description("Whether a person gave its name and address.")]
    public bool RegisteredByHand { get; init; }

    [Description("Engines of deployments that were deleted; they are left as they are.")]
    public int? RogueContainerCount { get; init; }
    public int? RogueProcessCount { get; init; }
    public int? RogueArtifactCount { get; init; }
    public string? AgentVersion { get; init; }
    public DateTimeOffset? LastHeartbeatAt { get; init; }
    public DateTimeOffset CreatedAt { get; init; }
}

/// <summary>A GPU at the last reading; null where the driver does not tell.</summary>
internal sealed record GpuUsage
{
    public required int Index { get; init; }
    public required string Uuid { get; init; }
    public required string Name { get; init; }

    [Description("nvidia-smi, or unified: the GPU computes in the system's RAM, and the memory figures are the system's.")]
    public required string Source { get; init; }
    public int? Utilization { get; init; }
    public double? MemoryUsedMb { get; init; }
    public double? MemoryTotalMb { get; init; }

    [Description("What processes that are no engines of ModelHost hold; null when the driver does not tell of all of them.")]
    public double? MemoryOthersMb { get; init; }
    public int? TemperatureCelsius { get; init; }
    public double? PowerWatts { get; init; }

    [Description("Whether the card is split into MIG instances; null: it cannot be.")]
    public bool? MigEnabled { get; init; }
    public IReadOnlyList<GpuInstance> MigInstances { get; init; } = [];
    public IReadOnlyList<GpuUser> Processes { get; init; } = [];

    [Description("When the figures were read.")]
    public DateTimeOffset? ReadAt { get; init; }

    [Description("Why the figures could not be read again since; null when they are current. Nothing is placed on such a GPU.")]
    public string? Stale { get; init; }
}

/// <summary>A part of a split card, with its size as the driver names it.</summary>
internal sealed record GpuInstance(int Index, string Profile, string Uuid);

/// <summary>A process that computes on a GPU; its deployment is null when it is no engine of ModelHost.</summary>
internal sealed record GpuUser(int Pid, string? Name, double? MemoryUsedMb, int? DeploymentId);

/// <summary>An engine's process on a GPU: one of a deployment, or one that looks like vLLM and belongs to none.</summary>
internal sealed record GpuProcessRead
{
    public required int Pid { get; init; }
    public int? GpuIndex { get; init; }
    public double? GpuMemoryMb { get; init; }
    public string? ProcessName { get; init; }

    [Description("Whether it belongs to a deployment.")]
    public bool Tracked { get; init; }

    [Description("model_name:port of that deployment.")]
    public string? Key { get; init; }
}

/// <summary>Room on the disk that holds the model cache, in GB of 10^9 bytes; null: the cache has not been measured yet.</summary>
internal sealed record DiskUsage(double TotalGb, double FreeGb, double? HfCacheGb);

/// <summary>What became of a node's records.</summary>
internal sealed record NodeDeleted(string Hostname, int DeploymentsDeleted)
{
    public string Status { get; } = "deleted";
}

/// <summary>Whether a port can be given to a deployment.</summary>
internal sealed record PortCheck
{
    public required bool Available { get; init; }

    [Description("Why it cannot; null when it can.")]
    public string? Reason { get; init; }
}

/// <summary>What a node's figures were.</summary>
internal sealed record NodeHistoryRead(int NodeId, IReadOnlyList<HistoryPoint> Points);

/// <summary>A node's figures at a moment, or in the half hour that began then; null where they were unknown.</summary>
internal sealed record HistoryPoint
{
    public required DateTimeOffset RecordedAt { get; init; }
    public required IReadOnlyList<GpuPoint> Gpus { get; init; }
    public double? CpuPercent { get; init; }
    public double? MemoryPercent { get; init; }
    public DiskUsage? DiskUsage { get; init; }

    [Description("Seconds of which these are the means; 0: a single sample.")]
    public int SpanSeconds { get; init; }
}

/// <summary>A GPU's figures.</summary>
internal sealed record GpuPoint(
    int Index, double? Utilization, double? MemoryUsedMb, double? MemoryTotalMb, double? TemperatureCelsius, double? PowerWatts);
