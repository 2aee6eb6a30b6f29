namespace ModelHost.Docker.Wire;

/// <summary>From the engine's counters to what they say. The formulas are those of Docker's command line (<c>stats_helpers.go</c>).</summary>
internal static class StatsMapping
{
    public static ContainerStats ToStats(this StatsAnswer answer) => new()
    {
        ReadAt = WireMapping.Time(answer.Read),
        MemoryUsageBytes = Clamp(WithoutCache(answer.Memory)),
        MemoryLimitBytes = Clamp(answer.Memory.Limit),
        CpuNanoseconds = Clamp(Total(answer.Cpu)),
        SystemCpuNanoseconds = Clamp(answer.Cpu.System),
        OnlineCpus = OnlineCpus(answer.Cpu),
        CpuPercent = answer.CpuBefore is { } before ? Percent(before, answer.Cpu) : null,
        Pids = Clamp(answer.Pids?.Current ?? 0),
        NetworkReceivedBytes = Sum(answer.Networks, n => n.Received),
        NetworkSentBytes = Sum(answer.Networks, n => n.Sent),
        BlockReadBytes = BlockBytes(answer.Block, "read"),
        BlockWrittenBytes = BlockBytes(answer.Block, "write"),
    };

    private static ulong WithoutCache(MemoryAnswer memory)
    {
        // cgroup v1; without "total_" it is there too, but leaves out the groups below
        if (memory.Detail?.TotalInactiveFile is { } total && total < memory.Usage)
            return memory.Usage - total;
        return memory.Detail?.InactiveFile is { } inactive && inactive < memory.Usage ? memory.Usage - inactive : memory.Usage;
    }

    /// <summary>Null without an earlier measurement, which engines write as zeros, and when a counter went back: it was started anew.</summary>
    private static double? Percent(CpuAnswer before, CpuAnswer now)
    {
        if (before.System == 0 || now.System <= before.System || Total(now) < Total(before))
            return null;
        return (double)(Total(now) - Total(before)) / (now.System - before.System) * OnlineCpus(now) * 100;
    }

    private static ulong Total(CpuAnswer cpu) => cpu.Usage?.Total ?? 0;

    private static int OnlineCpus(CpuAnswer cpu) => cpu.OnlineCpus > 0 ? cpu.OnlineCpus : cpu.Usage?.PerCpu?.Count ?? 0;

    private static long? Sum(IReadOnlyDictionary<string, NetworkAnswer>? networks, Func<NetworkAnswer, ulong> counter) =>
        networks is null ? null : Clamp(networks.Values.Aggregate(0UL, (sum, n) => sum + counter(n)));

    /// <summary>cgroup v1 begins the operations with a capital and has totals among them, v2 writes them small.</summary>
    private static long BlockBytes(BlockAnswer? block, string operation) => Clamp((block?.Bytes ?? [])
        .Where(e => operation.Equals(e.Operation, StringComparison.OrdinalIgnoreCase)).Aggregate(0UL, (sum, e) => sum + e.Value));

    private static long Clamp(ulong counter) => (long)Math.Min(counter, long.MaxValue);
}
