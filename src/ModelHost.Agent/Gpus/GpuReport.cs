using ModelHost.Core.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Agent.Gpus;

/// <summary>Puts what is known of the GPUs into the node's report.</summary>
internal static class GpuReport
{
    /// <summary>Writes the GPUs.</summary>
    public static void Write(GpuSample sample, NodeReport report)
    {
        report.GpuError = sample.Inventory.Error ?? "";
        report.GpuProcessError = sample.ProcessError ?? "";
        report.GpuDriver = sample.Inventory.Gpus.Select(gpu => gpu.Facts.Driver).FirstOrDefault(driver => driver is not null) ?? "";
        foreach (var known in sample.Inventory.Gpus)
        {
            var gpu = Read(known);
            gpu.MigInstances.AddRange(sample.Instances.Where(part => part.GpuUuid == known.Facts.Uuid)
                .Select(part => new Protocol.MigInstance { Index = part.Index, Profile = part.Profile, Uuid = part.Uuid }));
            gpu.Processes.AddRange(sample.ProcessesOf(known.Facts).Select(Read));
            report.Gpus.Add(gpu);
        }
    }

    private static Gpu Read(KnownGpu known)
    {
        var facts = known.Facts;
        var gpu = new Gpu
        {
            Index = facts.Index,
            Uuid = facts.Uuid,
            Name = facts.Name,
            Source = facts.Unified ? "unified" : "nvidia-smi",
            ReadAt = known.ReadAt.ToUnixTimeMilliseconds() / 1000.0,
            Stale = known.Stale ?? "",
        };
        if (facts.TotalBytes is { } total)
            gpu.MemoryTotalBytes = total;
        if (facts.UsedBytes is { } used)
            gpu.MemoryUsedBytes = used;
        if (facts.UtilizationPercent is { } utilization)
            gpu.UtilizationPercent = utilization;
        if (facts.TemperatureCelsius is { } temperature)
            gpu.TemperatureCelsius = temperature;
        if (facts.PowerWatts is { } power)
            gpu.PowerWatts = power;
        if (facts.MigEnabled is { } split)
            gpu.MigEnabled = split;
        return gpu;
    }

    private static GpuProcess Read(OwnedProcess owned)
    {
        var process = new GpuProcess { Pid = owned.Facts.Pid, Name = owned.Facts.Name ?? "", RunId = owned.RunId ?? "" };
        if (owned.Facts.UsedBytes is { } used)
            process.MemoryUsedBytes = used;
        return process;
    }
}
