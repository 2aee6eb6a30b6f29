using ModelHost.Core.Galleries;
using ModelHost.Protocol;

namespace ModelHost.Features.Backends;

/// <summary>Which builds of backends a node can run, in the words of the galleries.</summary>
internal static class NodeCapability
{
    // drivers from which on the runtime of a CUDA release works (CUDA compatibility, minimum driver of each major release)
    private const int Cuda13Driver = 580, Cuda12Driver = 525;
    // with less memory on its largest GPU a node is served better by its processor (as LocalAI has it)
    private const long LeastGpuMemory = 4L << 30;

    private static readonly (string Word, string Capability)[] Makers =
        [("amd", "amd"), ("radeon", "amd"), ("instinct", "amd"), ("intel", "intel"), ("apple", "metal")];

    /// <summary>The capability of a node: what the settings say, else what it reports.</summary>
    /// <param name="hostname">Its name.</param>
    /// <param name="report">Its report.</param>
    /// <param name="settings">Capabilities by host name, <c>*</c> for all others.</param>
    public static string Of(string hostname, NodeReport report, IReadOnlyDictionary<string, string> settings) =>
        settings.GetValueOrDefault(hostname) ?? settings.GetValueOrDefault("*") ?? Of(report);

    /// <summary>The capability that a report tells of.</summary>
    public static string Of(NodeReport report)
    {
        if (report.Gpus.Count == 0)
            return BackendChoice.Default;
        var gpu = report.Gpus.MaxBy(one => one.HasMemoryTotalBytes ? one.MemoryTotalBytes : 0)!;
        if (gpu is { HasMemoryTotalBytes: true, MemoryTotalBytes: > 0 and <= LeastGpuMemory })
            return BackendChoice.Default;
        if (Array.Find(Makers, maker => gpu.Name.Contains(maker.Word, StringComparison.OrdinalIgnoreCase)).Capability is { } other)
            return other;
        // GPUs that share the memory of the system are those of Jetson and GB10, which have builds of their own
        var family = gpu.Source == "unified" ? "nvidia-l4t" : "nvidia";
        return int.TryParse(report.GpuDriver.Split('.')[0], out var driver) ? driver switch
        {
            >= Cuda13Driver => $"{family}-cuda-13",
            >= Cuda12Driver => $"{family}-cuda-12",
            _ => family,
        } : family;
    }
}
