using System.Globalization;
using ModelHost.Core.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Agent.Engines;

/// <summary>Sums up, once in an interval, what the processes of each engine use, as the kernel tells it.</summary>
/// <param name="runOf">The run whose engine a process is part of; null: of none.</param>
/// <param name="anyRuns">Whether there is any.</param>
/// <param name="interval">Time between two looks.</param>
/// <param name="time">The clock.</param>
internal sealed class ProcessSampler(Func<int, string?> runOf, Func<bool> anyRuns, TimeSpan interval, TimeProvider time)
{
    // a process may take its place in a session or container shortly after it begins, and keeps it then
    private const double SettledSeconds = 30;
    // the kernel's USER_HZ, the same on all platforms that .NET runs on
    private const double TicksPerSecond = 100;

    private Dictionary<(int Pid, long Start), string?> _known = [];
    private volatile IReadOnlyDictionary<string, ProcessUsage> _current = new Dictionary<string, ProcessUsage>();

    /// <summary>The last figures by run; one whose processes are not seen is not there.</summary>
    public IReadOnlyDictionary<string, ProcessUsage> Current => _current;

    /// <summary>Looks until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        await Task.Yield();
        while (!cancellationToken.IsCancellationRequested)
        {
            _current = anyRuns() ? Sample() : new Dictionary<string, ProcessUsage>();
            await Task.Delay(interval, time, cancellationToken);
        }
    }

    private Dictionary<string, ProcessUsage> Sample()
    {
        var seen = new Dictionary<(int Pid, long Start), string?>();
        var usage = new Dictionary<string, ProcessUsage>();
        var uptime = Read("/proc/uptime") is { } text ? double.Parse(text.AsSpan(0, text.IndexOf(' ', StringComparison.Ordinal)), CultureInfo.InvariantCulture) : 0;
        var total = Read("/proc/meminfo") is { } meminfo ? SystemMemory.Parse(meminfo)?.TotalBytes : null;
        foreach (var folder in Directory.Exists("/proc") ? Directory.EnumerateDirectories("/proc") : [])
        {
            if (!int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var pid) || Facts.Read(pid) is not { } facts)
                continue;
            var age = uptime - (facts.StartTicks / TicksPerSecond);
            if (!_known.TryGetValue((pid, facts.StartTicks), out var run))
                run = runOf(pid);
            if (run is not null || age > SettledSeconds)
                seen[(pid, facts.StartTicks)] = run;
            if (run is null)
                continue;
            if (!usage.TryGetValue(run, out var sum))
                usage[run] = sum = new ProcessUsage();
            sum.RssBytes += facts.RssPages * Environment.SystemPageSize;
            sum.VmsBytes += facts.VmsBytes;
            sum.CpuPercent += age > 0 ? facts.CpuTicks / age : 0; // ticks are hundredths of a second
        }
        foreach (var sum in usage.Values)
            sum.MemoryPercent = total > 0 ? 100.0 * sum.RssBytes / total.Value : 0;
        _known = seen;
        return usage;
    }

    private static string? Read(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private readonly record struct Facts(long StartTicks, long CpuTicks, long VmsBytes, long RssPages)
    {
        public static Facts? Read(int pid)
        {
            if (ProcessSampler.Read($"/proc/{pid.ToString(CultureInfo.InvariantCulture)}/stat") is not { } stat)
                return null;
            // the name may hold blanks and brackets: fields are counted from its end, where field 3 follows (proc(5))
            var fields = stat[(stat.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            return fields.Length < 22 || fields[0] is "Z" or "X" ? null : new Facts(Number(19), Number(11) + Number(12), Number(20), Number(21));

            long Number(int index) => long.TryParse(fields[index], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var value) ? value : 0;
        }
    }
}
