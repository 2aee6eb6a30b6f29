namespace ModelHost.Docker;

/// <summary>What a container uses. Of one that does not run all is zero or null.</summary>
public sealed record ContainerStats
{
    /// <summary>When it was measured; null when the container does not run.</summary>
    public DateTimeOffset? ReadAt { get; init; }

    /// <summary>
    /// Bytes in use without the page cache that the kernel could drop at once, as <c>docker stats</c> shows it: usage less
    /// <c>total_inactive_file</c> (cgroup v1) or <c>inactive_file</c> (v2).
    /// </summary>
    public long MemoryUsageBytes { get; init; }

    /// <summary>Bytes it may use; the machine's memory when it was given no limit.</summary>
    public long MemoryLimitBytes { get; init; }

    /// <summary>Processor time since its start, of all its processes.</summary>
    public long CpuNanoseconds { get; init; }

    /// <summary>Processor time of the whole machine since its start, idle time included.</summary>
    public long SystemCpuNanoseconds { get; init; }

    /// <summary>Processors that the machine has on line.</summary>
    public int OnlineCpus { get; init; }

    /// <summary>
    /// Processor use over the second before <see cref="ReadAt"/>, as <c>docker stats</c> shows it: 100 is one processor, so it may be as much as 100
    /// times <see cref="OnlineCpus"/>. Null without two measurements to compare, as when the container has just started.
    /// </summary>
    public double? CpuPercent { get; init; }

    /// <summary>Processes and threads.</summary>
    public long Pids { get; init; }

    /// <summary>Bytes received on all its networks; null when it has none of its own, as on the machine's network.</summary>
    public long? NetworkReceivedBytes { get; init; }

    /// <summary>Bytes sent on all its networks; null as for <see cref="NetworkReceivedBytes"/>.</summary>
    public long? NetworkSentBytes { get; init; }

    /// <summary>Bytes read from all disks. 0 as well where the kernel does not count, which is common with cgroup v1.</summary>
    public long BlockReadBytes { get; init; }

    /// <summary>Bytes written to all disks. 0 as for <see cref="BlockReadBytes"/>.</summary>
    public long BlockWrittenBytes { get; init; }
}
