using System.Text.Json.Serialization;

namespace ModelHost.Docker.Wire;

// The counters are 64 bits without a sign, and "no limit" is written as all ones. What a kernel or a state does not have is left out or null.

internal sealed record StatsAnswer
{
    [JsonPropertyName("read")]
    public string? Read { get; init; }
    [JsonPropertyName("pids_stats")]
    public PidsAnswer? Pids { get; init; }
    [JsonPropertyName("blkio_stats")]
    public BlockAnswer? Block { get; init; }
    [JsonPropertyName("cpu_stats")]
    public required CpuAnswer Cpu { get; init; }
    [JsonPropertyName("precpu_stats")]
    public CpuAnswer? CpuBefore { get; init; }
    [JsonPropertyName("memory_stats")]
    public required MemoryAnswer Memory { get; init; }
    [JsonPropertyName("networks")]
    public IReadOnlyDictionary<string, NetworkAnswer>? Networks { get; init; }
}

internal sealed record PidsAnswer
{
    [JsonPropertyName("current")]
    public ulong Current { get; init; }
}

internal sealed record BlockAnswer
{
    [JsonPropertyName("io_service_bytes_recursive")]
    public IReadOnlyList<BlockEntry>? Bytes { get; init; }
}

internal sealed record BlockEntry
{
    [JsonPropertyName("op")]
    public string? Operation { get; init; }
    [JsonPropertyName("value")]
    public ulong Value { get; init; }
}

internal sealed record CpuAnswer
{
    [JsonPropertyName("cpu_usage")]
    public CpuUsageAnswer? Usage { get; init; }
    [JsonPropertyName("system_cpu_usage")]
    public ulong System { get; init; }
    [JsonPropertyName("online_cpus")]
    public int OnlineCpus { get; init; }
}

internal sealed record CpuUsageAnswer
{
    [JsonPropertyName("total_usage")]
    public ulong Total { get; init; }
    [JsonPropertyName("percpu_usage")]
    public IReadOnlyList<ulong>? PerCpu { get; init; }
}

internal sealed record MemoryAnswer
{
    [JsonPropertyName("usage")]
    public ulong Usage { get; init; }
    [JsonPropertyName("limit")]
    public ulong Limit { get; init; }
    [JsonPropertyName("stats")]
    public MemoryDetailAnswer? Detail { get; init; }
}

internal sealed record MemoryDetailAnswer
{
    [JsonPropertyName("total_inactive_file")]
    public ulong? TotalInactiveFile { get; init; }
    [JsonPropertyName("inactive_file")]
    public ulong InactiveFile { get; init; }
}

internal sealed record NetworkAnswer
{
    [JsonPropertyName("rx_bytes")]
    public ulong Received { get; init; }
    [JsonPropertyName("tx_bytes")]
    public ulong Sent { get; init; }
}
