using System.Diagnostics;
using System.Globalization;

namespace ModelHost.Benchmarks;

/// <summary>Something that answers chat requests, and what it costs.</summary>
/// <param name="name">Name in the tables.</param>
/// <param name="url">Where it listens.</param>
/// <param name="processes">Its processes; none: its cost is not measured.</param>
/// <param name="startedIn">Time from its start to its first answer.</param>
/// <param name="withChildren">Whether the processes it started are its cost too: workers are, engines are not.</param>
internal sealed class Peer(string name, Uri url, IReadOnlyList<Process> processes, TimeSpan startedIn, bool withChildren = true) : IDisposable
{
    private const int TicksPerSecond = 100; // sysconf(_SC_CLK_TCK) on every Linux that .NET runs on

    public string Name => name;

    public Uri Url => url;

    /// <summary>Time from its start to its first answer.</summary>
    public TimeSpan StartedIn => startedIn;

    /// <summary>CPU time of all its processes and their children so far.</summary>
    public TimeSpan CpuTime() => TimeSpan.FromSeconds(Tree().Sum(CpuSeconds));

    /// <summary>Physical memory of all its processes and their children, in MiB.</summary>
    public double MemoryMib() => Tree().Sum(pid => File.Exists($"/proc/{pid}/status") ? Field(pid, "VmRSS:") : 0) / 1024.0;

    /// <summary>Ends what was started for it.</summary>
    public void Dispose()
    {
        foreach (var process in processes)
        {
            if (!process.HasExited)
                process.Kill(entireProcessTree: true);
            process.WaitForExit();
            process.Dispose();
        }
    }

    private IEnumerable<int> Tree() => processes.SelectMany(process => (int[])[process.Id, .. withChildren ? Children(process.Id) : []]);

    private static IEnumerable<int> Children(int pid) =>
        Directory.EnumerateDirectories($"/proc/{pid}/task").SelectMany(task => File.ReadAllText(Path.Combine(task, "children")).Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Select(child => int.Parse(child, CultureInfo.InvariantCulture));

    private static double CpuSeconds(int pid)
    {
        var stat = File.ReadAllText($"/proc/{pid}/stat");
        var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return (long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture)) / (double)TicksPerSecond;
    }

    private static double Field(int pid, string name) => double.Parse(
        File.ReadLines($"/proc/{pid}/status").First(line => line.StartsWith(name, StringComparison.Ordinal)).Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1],
        CultureInfo.InvariantCulture);
}
