using ModelHost.Core.Deployments;
using ModelHost.Protocol;

namespace ModelHost.Features.Nodes;

/// <summary>What a node's report says of its GPUs, in the words of the API.</summary>
internal static class GpuReads
{
    private const double Mib = 1024 * 1024;

    /// <summary>The GPUs.</summary>
    public static IReadOnlyList<GpuUsage> Gpus(NodeReport report)
    {
        var owners = Owners(report);
        return [.. report.Gpus.Select(gpu => Read(gpu, owners, report.GpuProcessError.Length == 0))];
    }

    /// <summary>The processes of engines: those of deployments, and those that look like vLLM and belong to none.</summary>
    public static IEnumerable<GpuProcessRead> EngineProcesses(NodeReport report)
    {
        var owners = Owners(report);
        return report.Gpus
            .SelectMany(gpu => gpu.Processes.Select(process => (gpu.Index, Process: process, Owner: owners.GetValueOrDefault(process.RunId))))
            .Where(found => found.Process.RunId.Length > 0 || LooksLikeVllm(found.Process.Name))
            .Select(found => new GpuProcessRead
            {
                Pid = found.Process.Pid,
                GpuIndex = found.Index,
                GpuMemoryMb = Mb(found.Process.HasMemoryUsedBytes ? found.Process.MemoryUsedBytes : null),
                ProcessName = NullIfEmpty(found.Process.Name),
                Tracked = found.Process.RunId.Length > 0,
                Key = found.Owner is { } spec ? $"{spec.ModelName}:{spec.Port}" : null,
            });
    }

    private static GpuUsage Read(Gpu gpu, Dictionary<string, LaunchSpec?> owners, bool processesKnown) => new()
    {
        Index = gpu.Index,
        Uuid = gpu.Uuid,
        Name = gpu.Name,
        Source = gpu.Source,
        Utilization = gpu.HasUtilizationPercent ? gpu.UtilizationPercent : null,
        MemoryUsedMb = Mb(gpu.HasMemoryUsedBytes ? gpu.MemoryUsedBytes : null),
        MemoryTotalMb = Mb(gpu.HasMemoryTotalBytes ? gpu.MemoryTotalBytes : null),
        MemoryOthersMb = processesKnown ? Others(gpu) : null,
        TemperatureCelsius = gpu.HasTemperatureCelsius ? gpu.TemperatureCelsius : null,
        PowerWatts = gpu.HasPowerWatts ? gpu.PowerWatts : null,
        MigEnabled = gpu.HasMigEnabled ? gpu.MigEnabled : null,
        MigInstances = [.. gpu.MigInstances.Select(part => new GpuInstance(part.Index, part.Profile, part.Uuid))],
        Processes = [.. gpu.Processes.Select(process => new GpuUser(process.Pid, NullIfEmpty(process.Name),
            Mb(process.HasMemoryUsedBytes ? process.MemoryUsedBytes : null), owners.GetValueOrDefault(process.RunId)?.DeploymentId))],
        ReadAt = gpu.ReadAt > 0 ? DateTimeOffset.FromUnixTimeMilliseconds((long)(gpu.ReadAt * 1000)) : null,
        Stale = NullIfEmpty(gpu.Stale),
    };

    /// <summary>Memory that processes hold which are no engines of ours.</summary>
    private static double? Others(Gpu gpu)
    {
        var others = gpu.Processes.Where(process => process.RunId.Length == 0).ToArray();
        return others.All(process => process.HasMemoryUsedBytes) ? Mb(others.Sum(process => process.MemoryUsedBytes)) : null;
    }

    private static Dictionary<string, LaunchSpec?> Owners(NodeReport report) =>
        report.Engines.DistinctBy(engine => engine.RunId).ToDictionary(engine => engine.RunId, engine => LaunchSpec.FromJson(engine.LaunchSpec));

    // what vLLM calls its processes, and what stands in its command line
    private static bool LooksLikeVllm(string name) =>
        name.Contains("vllm", StringComparison.OrdinalIgnoreCase) || name.Contains("enginecore", StringComparison.OrdinalIgnoreCase);

    private static double? Mb(long? bytes) => bytes is { } value ? Math.Round(value / Mib) : null;

    private static string? NullIfEmpty(string text) => text.Length == 0 ? null : text;
}
