using System.Globalization;

namespace ModelHost.Simulator.Gpu;

/// <summary>One line of the bench's <c>gpus.csv</c>: <c>index,uuid,name,total_mib</c>.</summary>
internal sealed record GpuDevice(int Index, string Uuid, string Name, long TotalMib)
{
    public static IReadOnlyList<GpuDevice> ReadAll(string directory) =>
    [
        .. File.ReadLines(Path.Combine(directory, "gpus.csv")).Select(line => line.Split(',', StringSplitOptions.TrimEntries))
            .Where(fields => fields.Length == 4)
            .Select(fields => new GpuDevice(
                int.Parse(fields[0], CultureInfo.InvariantCulture), fields[1], fields[2], long.Parse(fields[3], CultureInfo.InvariantCulture))),
    ];

    /// <summary>The devices that the container runtime lets a process see, in the order in which it names them.</summary>
    /// <param name="all">The devices of the machine.</param>
    /// <param name="visible">NVIDIA_VISIBLE_DEVICES: indices or uuids, <c>all</c>, <c>none</c>, <c>void</c>; null is all.</param>
    public static IReadOnlyList<GpuDevice> Visible(IReadOnlyList<GpuDevice> all, string? visible) => visible switch
    {
        null or "all" => all,
        "" or "none" or "void" => [],
        _ =>
        [
            .. visible.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)
                .Select(wanted => all.FirstOrDefault(gpu =>
                    gpu.Uuid == wanted || gpu.Index.ToString(CultureInfo.InvariantCulture) == wanted))
                .OfType<GpuDevice>(),
        ],
    };
}
