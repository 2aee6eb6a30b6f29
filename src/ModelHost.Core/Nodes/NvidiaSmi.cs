using System.Globalization;

namespace ModelHost.Core.Nodes;

/// <summary>A GPU as <c>nvidia-smi</c> describes it; null where it does not know.</summary>
public sealed record GpuFacts(
    int Index, string Uuid, string Name, long? TotalBytes, long? UsedBytes, int? UtilizationPercent, int? TemperatureCelsius, double? PowerWatts);

/// <summary>The query that reads a node's GPUs, and its answer.</summary>
public static class NvidiaSmi
{
    private const long Mib = 1024 * 1024;

    /// <summary>Arguments of the query; the order of the fields is the order of the columns.</summary>
    public static IReadOnlyList<string> GpuQuery { get; } =
    [
        "--query-gpu=index,uuid,name,memory.total,memory.used,memory.free,utilization.gpu,temperature.gpu,power.draw,mig.mode.current,driver_version",
        "--format=csv,noheader,nounits",
    ];

    private const int Columns = 11;
    private const int NameColumn = 2;

    /// <summary>Reads the answer. A numeric column that holds a word is unknown, never zero.</summary>
    /// <returns>The GPUs in the order of the answer. Lines that are no GPU (a warning, say) are left out.</returns>
    public static IReadOnlyList<GpuFacts> ParseGpus(string csv)
    {
        ArgumentNullException.ThrowIfNull(csv);
        var gpus = new List<GpuFacts>();
        foreach (var line in csv.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            var cells = line.Split(',', StringSplitOptions.TrimEntries);
            if (cells.Length < Columns || !int.TryParse(cells[0], NumberStyles.None, CultureInfo.InvariantCulture, out var index))
                continue;
            // a name may hold commas: what is over the column count belongs to it
            var over = cells.Length - Columns;
            var name = string.Join(", ", cells[NameColumn..(NameColumn + over + 1)]);
            string After(int column) => cells[column + over];
            gpus.Add(new GpuFacts(index, cells[1], name,
                Number(After(3)) is { } total ? (long)total * Mib : null, Number(After(4)) is { } used ? (long)used * Mib : null,
                (int?)Number(After(6)), (int?)Number(After(7)), Number(After(8))));
        }
        return gpus;
    }

    private static double? Number(string cell) =>
        double.TryParse(cell, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var value)
        && value < int.MaxValue ? value : null; // NaN is not below
}
