using System.Globalization;
using System.Text.RegularExpressions;

namespace ModelHost.Agent.Runtimes;

/// <summary>Where a process of this machine came from, as the kernel tells it.</summary>
/// <param name="Session">The session that it belongs to; null: it is unknown.</param>
/// <param name="Containers">Containers in whose control groups it is.</param>
internal sealed partial record ProcessOrigin(int? Session, IReadOnlySet<string> Containers)
{
    /// <summary>Asks the kernel; a process that is gone, or not ours to ask, comes from nowhere.</summary>
    public static ProcessOrigin Of(int pid)
    {
        var folder = $"/proc/{pid.ToString(CultureInfo.InvariantCulture)}";
        return Parse(Read(folder + "/stat"), Read(folder + "/cgroup"));
    }

    /// <summary>Reads the texts of <c>/proc/PID/stat</c> and <c>/proc/PID/cgroup</c>.</summary>
    internal static ProcessOrigin Parse(string stat, string cgroup)
    {
        // the name may hold blanks and brackets: fields are counted from its end; field 6 is the session (proc(5))
        var fields = stat[(stat.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return new ProcessOrigin(
            fields.Length > 3 && int.TryParse(fields[3], NumberStyles.None, CultureInfo.InvariantCulture, out var session) && session > 0 ? session : null,
            ContainerId().Matches(cgroup).Select(match => match.Value).ToHashSet());
    }

    private static string Read(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    // "/docker/ID" with cgroup v1, ".../docker-ID.scope" or ".../libpod-ID.scope" with v2
    [GeneratedRegex(@"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", RegexOptions.CultureInvariant)]
    private static partial Regex ContainerId();
}
