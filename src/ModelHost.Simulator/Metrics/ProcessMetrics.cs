using System.Globalization;

namespace ModelHost.Simulator.Metrics;

/// <summary>The series that Python's Prometheus client has about its own process. This process answers with its own numbers.</summary>
internal static class ProcessMetrics
{
    private const string Limits = "/proc/self/limits";

    /// <summary>The interpreter of current images.</summary>
    private static readonly (string, string)[] Python =
        [("implementation", "CPython"), ("major", "3"), ("minor", "12"), ("patchlevel", "11"), ("version", "3.12.11")];

    public static void Write(PageWriter page)
    {
        Generations("python_gc_objects_collected_total", "Objects collected during gc", static _ => 0);
        Generations("python_gc_objects_uncollectable_total", "Uncollectable objects found during GC", static _ => 0);
        Generations("python_gc_collections_total", "Number of times this generation was collected", GC.CollectionCount);
        page.Gauge("python_info", "Python platform information", [(Python, 1)]);
        using var process = System.Diagnostics.Process.GetCurrentProcess();
        Single("process_virtual_memory_bytes", "Virtual memory size in bytes.", "gauge", process.VirtualMemorySize64);
        Single("process_resident_memory_bytes", "Resident memory size in bytes.", "gauge", process.WorkingSet64);
        Single("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "gauge",
            new DateTimeOffset(process.StartTime).ToUnixTimeMilliseconds() / 1000.0);
        Single("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter", process.TotalProcessorTime.TotalSeconds);
        Single("process_open_fds", "Number of open file descriptors.", "gauge", process.HandleCount);
        Single("process_max_fds", "Maximum number of open file descriptors.", "gauge", MaxFiles());

        void Single(string name, string help, string type, double value)
        {
            page.Head(name, help, type);
            page.Line(name, value);
        }

        void Generations(string name, string help, Func<int, int> count)
        {
            page.Head(name, help, "counter");
            for (var generation = 0; generation < 3; generation++)
                page.Line(name, count(generation), ("generation", generation.ToString(CultureInfo.InvariantCulture)));
        }
    }

    private static double MaxFiles() => File.Exists(Limits) && Array.Find(File.ReadAllLines(Limits), line => line.StartsWith("Max open files", StringComparison.Ordinal)) is { } line
        && long.TryParse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[3], CultureInfo.InvariantCulture, out var limit) ? limit : double.PositiveInfinity;
}
