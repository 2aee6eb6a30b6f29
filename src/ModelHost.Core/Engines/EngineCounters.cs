using System.Globalization;
using ModelHost.Core.Backends;

namespace ModelHost.Core.Engines;

/// <summary>An engine's counters at one moment, summed over label sets; null: the engine has no such metric.</summary>
public sealed record EngineCounters
{
    /// <summary>Prompt tokens since the engine's start.</summary>
    public double? PromptTokens { get; init; }

    /// <summary>Generated tokens since the engine's start.</summary>
    public double? GenerationTokens { get; init; }

    /// <summary>Requests finished since the engine's start.</summary>
    public double? Requests { get; init; }

    /// <summary>Requests in the batch.</summary>
    public double? RequestsRunning { get; init; }

    /// <summary>Requests queued.</summary>
    public double? RequestsWaiting { get; init; }

    /// <summary>Share of the KV cache in use, 0 to 1: the mean over the ranks of the engine.</summary>
    public double? KvCacheUsage { get; init; }

    /// <summary>Seconds spent on prompts, over all requests.</summary>
    public double? PrefillSeconds { get; init; }

    /// <summary>Seconds spent on generation, over all requests.</summary>
    public double? DecodeSeconds { get; init; }

    /// <summary>Reads the engine's Prometheus page. Lines that are no samples are passed over.</summary>
    /// <returns>Null when the page holds none of the counters.</returns>
    public static EngineCounters? Parse(MetricNames names, string page)
    {
        ArgumentNullException.ThrowIfNull(names);
        ArgumentNullException.ThrowIfNull(page);
        var sums = new Dictionary<string, (double Value, int Sets)>();
        var sumsByName = sums.GetAlternateLookup<ReadOnlySpan<char>>();
        foreach (var line in page.AsSpan().EnumerateLines())
        {
            if (line.IsEmpty || line[0] == '#')
                continue;
            var nameEnd = line.IndexOfAny('{', ' ', '\t');
            if (nameEnd <= 0)
                continue;
            var name = line[..nameEnd];
            // a label value may hold a brace, but the last one closes the labels
            var rest = line[nameEnd] == '{' ? line[(line.LastIndexOf('}') + 1)..] : line[nameEnd..];
            rest = rest.Trim();
            var valueEnd = rest.IndexOfAny(' ', '\t'); // an optional timestamp follows
            if (!double.TryParse(valueEnd < 0 ? rest : rest[..valueEnd], NumberStyles.Float, CultureInfo.InvariantCulture, out var value) || !double.IsFinite(value))
                continue;
            sumsByName.TryGetValue(name, out var sum);
            sumsByName[name] = (sum.Value + value, sum.Sets + 1);
        }

        (double Value, int Sets)? Find(string[] candidates)
        {
            foreach (var name in candidates)
            {
                if (sums.TryGetValue(name, out var sum))
                    return sum;
            }
            return null;
        }
        double? Read(string[] candidates) => Find(candidates)?.Value;

        var counters = new EngineCounters
        {
            PromptTokens = Read(names.PromptTokens),
            GenerationTokens = Read(names.GenerationTokens),
            Requests = Read(names.Requests),
            RequestsRunning = Read(names.RequestsRunning),
            RequestsWaiting = Read(names.RequestsWaiting),
            KvCacheUsage = Find(names.KvCacheUsage) is { } usage ? Math.Clamp(usage.Value / usage.Sets, 0, 1) : null,
            PrefillSeconds = Read(names.PrefillSeconds),
            DecodeSeconds = Read(names.DecodeSeconds),
        };
        return counters is { PromptTokens: null, GenerationTokens: null, Requests: null } ? null : counters;
    }
}

/// <summary>Rates of one engine, from its counters over time.</summary>
/// <param name="PromptTps">Prompt tokens per second of prompt work since the first request; null: none yet.</param>
/// <param name="GenerationTps">Generated tokens per second of generation work since the first request; null: none yet.</param>
/// <param name="PromptThroughput">Prompt tokens per second between the last two readings; null: none.</param>
/// <param name="GenerationThroughput">Generated tokens per second between the last two readings; null: none.</param>
public sealed record EngineRates(double? PromptTps, double? GenerationTps, double? PromptThroughput, double? GenerationThroughput);

/// <summary>Turns successive counters of one run into rates.</summary>
/// <remarks>The per-second rates leave out everything before the first finished request, so that warm-up does not count.</remarks>
public sealed class EngineRateMeter
{
    private EngineCounters? _baseline;
    private (EngineCounters Counters, TimeSpan At)? _previous;

    /// <summary>Takes the next reading.</summary>
    /// <param name="now">The counters.</param>
    /// <param name="at">When they were read, on any clock that only goes forward.</param>
    public EngineRates Next(EngineCounters now, TimeSpan at)
    {
        ArgumentNullException.ThrowIfNull(now);
        var fell = _previous is { } last && (now.PromptTokens < last.Counters.PromptTokens
            || now.GenerationTokens < last.Counters.GenerationTokens || now.Requests < last.Counters.Requests);
        if (fell)
            _baseline = null; // the engine began anew
        if (_baseline is null && now.Requests > 0)
            _baseline = now;
        var rates = new EngineRates(
            Rate(now.PromptTokens - _baseline?.PromptTokens, now.PrefillSeconds - _baseline?.PrefillSeconds),
            Rate(now.GenerationTokens - _baseline?.GenerationTokens, now.DecodeSeconds - _baseline?.DecodeSeconds),
            fell ? null : Rate(now.PromptTokens - _previous?.Counters.PromptTokens, (at - _previous?.At)?.TotalSeconds),
            fell ? null : Rate(now.GenerationTokens - _previous?.Counters.GenerationTokens, (at - _previous?.At)?.TotalSeconds));
        _previous = (now, at);
        return rates;
    }

    private static double? Rate(double? amount, double? seconds) => amount > 0 && seconds > 0 ? Math.Round(amount.Value / seconds.Value, 1) : null;
}
