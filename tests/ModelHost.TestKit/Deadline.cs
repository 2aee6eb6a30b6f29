using System.Globalization;

namespace ModelHost.TestKit;

/// <summary>Waits in tests: for a condition, never for a time.</summary>
public static class Deadline
{
    // of what comes at once on an idle machine: that it ever comes is what is asked for, and on a crowded one that stands still for seconds it comes late
    private const double Patience = 120;

    /// <summary>Polls until the condition holds, and fails with the last value seen after <paramref name="seconds"/>.</summary>
    public static async Task<T> UntilAsync<T>(Func<Task<T>> read, Func<T, bool> holds, double seconds = Patience, string? what = null)
    {
        var until = TimeProvider.System.GetTimestamp() + (long)(seconds * TimeProvider.System.TimestampFrequency);
        while (true)
        {
            var value = await read();
            if (holds(value))
                return value;
            if (TimeProvider.System.GetTimestamp() > until)
                throw new TimeoutException($"{what ?? "the condition"} did not hold within {seconds} s; last seen: {value}");
            await Task.Delay(20);
        }
    }

    // what other tests that begin at the same moment may cost, of which the load of the last minute does not tell yet
    private static readonly TimeSpan Crowded = TimeSpan.FromSeconds(5);

    /// <summary>
    /// A demanded time, for a machine whose cores others leave free: with more work than cores it grows with the load, there are some seconds for what the load does not
    /// tell yet, and with <c>MODELHOST_TEST_SLOW</c> set it is twenty times as long. What was measured belongs into the test's output.
    /// </summary>
    public static TimeSpan Allowed(double seconds)
    {
        if (Environment.GetEnvironmentVariable("MODELHOST_TEST_SLOW") is { Length: > 0 })
            return TimeSpan.FromSeconds(seconds) * 20;
        var load = double.Parse(File.ReadAllText("/proc/loadavg").Split(' ')[0], CultureInfo.InvariantCulture);
        return (TimeSpan.FromSeconds(seconds) * Math.Max(1, load / Environment.ProcessorCount)) + Crowded;
    }

    /// <summary>Polls until the condition holds.</summary>
    public static Task UntilAsync(Func<bool> holds, double seconds = Patience, string? what = null) =>
        UntilAsync(() => Task.FromResult(holds()), static v => v, seconds, what);
}
