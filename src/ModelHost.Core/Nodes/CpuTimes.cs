using System.Globalization;

namespace ModelHost.Core.Nodes;

/// <summary>What the processors of a machine have done since it was started, in ticks.</summary>
/// <param name="Busy">Ticks in which they worked.</param>
/// <param name="Total">All ticks.</param>
/// <param name="Count">The number of processors.</param>
public sealed record CpuTimes(ulong Busy, ulong Total, int Count)
{
    // user nice system idle iowait irq softirq steal; guests, which follow, are counted in user as well (proc_stat(5))
    private const int Columns = 8, Idle = 3, IoWait = 4;

    /// <summary>Reads <c>/proc/stat</c>.</summary>
    /// <returns>Null: it does not say.</returns>
    public static CpuTimes? Parse(string stat)
    {
        ArgumentNullException.ThrowIfNull(stat);
        ulong[]? ticks = null;
        var count = 0;
        foreach (var line in stat.Split('\n'))
        {
            if (!line.StartsWith("cpu", StringComparison.Ordinal))
                continue;
            var cells = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (cells[0] != "cpu")
                count++;
            else if (cells.Length > Columns)
                ticks = [.. cells[1..(Columns + 1)].Select(cell => ulong.TryParse(cell, NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : 0)];
        }
        if (ticks is null || count == 0)
            return null;
        var total = ticks.Aggregate(0UL, (sum, value) => sum + value);
        return new CpuTimes(total - ticks[Idle] - ticks[IoWait], total, count);
    }

    /// <summary>How busy they were since an earlier reading, in percent of all of them; null: no time has passed.</summary>
    public double? PercentSince(CpuTimes earlier)
    {
        ArgumentNullException.ThrowIfNull(earlier);
        // the kernel lets iowait fall at times
        var total = (double)Total - earlier.Total;
        return total > 0 ? Math.Clamp(100 * ((double)Busy - earlier.Busy) / total, 0, 100) : null;
    }
}
