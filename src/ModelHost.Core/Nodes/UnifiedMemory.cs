using System.Globalization;
using System.Text.RegularExpressions;

namespace ModelHost.Core.Nodes;

/// <summary>The system's RAM.</summary>
/// <param name="TotalBytes">All of it.</param>
/// <param name="AvailableBytes">What programs can get without swapping (<c>MemAvailable</c>): free, and caches that give way.</param>
public sealed record SystemMemory(long TotalBytes, long AvailableBytes)
{
    /// <summary>Reads <c>/proc/meminfo</c>.</summary>
    /// <returns>Null: it does not say.</returns>
    public static SystemMemory? Parse(string meminfo)
    {
        ArgumentNullException.ThrowIfNull(meminfo);
        long? total = null, available = null;
        foreach (var line in meminfo.Split('\n'))
        {
            // the unit is a kibibyte in spite of its name (proc(5))
            if (line.Split(' ', StringSplitOptions.RemoveEmptyEntries) is not [var name, var kib, "kB"]
                || !long.TryParse(kib, NumberStyles.None, CultureInfo.InvariantCulture, out var value) || value > long.MaxValue / 1024)
                continue;
            if (name == "MemTotal:")
                total = value * 1024;
            else if (name == "MemAvailable:")
                available = value * 1024;
        }
        return total is > 0 && available <= total ? new SystemMemory(total.Value, available.Value) : null;
    }
}

/// <summary>GPUs that share the system's RAM: the driver tells nothing of their memory, or a figure that is far too small.</summary>
public static partial class UnifiedMemory
{
    /// <summary>Gives a GPU without memory of its own the system's RAM; any other stays as the driver described it.</summary>
    public static GpuFacts Apply(GpuFacts gpu, SystemMemory? ram)
    {
        ArgumentNullException.ThrowIfNull(gpu);
        return !Part().IsMatch(gpu.Name) ? gpu
            : gpu with { Unified = true, TotalBytes = ram?.TotalBytes, UsedBytes = ram?.TotalBytes - ram?.AvailableBytes };
    }

    // DGX Spark; N1X; the Jetson modules, which are called "Orin (nvgpu)" and the like. As whole words: GB100 is another part.
    [GeneratedRegex(@"\b(GB10|N1X|Xavier|Orin|Thor|Tegra|nvgpu)\b", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex Part();
}
