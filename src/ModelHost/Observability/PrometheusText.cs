using System.Collections.Frozen;
using System.Globalization;
using System.Text;
using OpenTelemetry;
using OpenTelemetry.Metrics;

namespace ModelHost.Observability;

/// <summary>Writes collected metrics as Prometheus text, exposition format 0.0.4.</summary>
internal sealed class PrometheusText : BaseExporter<Metric>
{
    private static readonly Dictionary<string, string> UnitSuffixes = new()
    {
        ["s"] = "seconds",
        ["ms"] = "milliseconds",
        ["By"] = "bytes",
        ["%"] = "percent",
        ["1"] = "ratio",
    };

    // the runtime makes counters of these, but they go down as well
    private static readonly FrozenSet<string> NotCounters = FrozenSet.ToFrozenSet(["dotnet.thread_pool.threads", "dotnet.thread_pool.queue.length"]);

    /// <summary>The page of the last collection.</summary>
    public string Page { get; private set; } = "";

    public override ExportResult Export(in Batch<Metric> batch)
    {
        var page = new StringBuilder();
        var seen = new HashSet<string>();
        foreach (var metric in batch)
        {
            var kind = NotCounters.Contains(metric.Name) ? "gauge" : Kind(metric.MetricType);
            if (kind is null)
                continue;
            var name = Name(metric.Name, metric.Unit, kind);
            // two meters may have an instrument of the same name, but a family is announced once
            if (seen.Add(name))
                page.Append(CultureInfo.InvariantCulture, $"# HELP {name} {EscapeHelp(metric.Description is { Length: > 0 } text ? text : metric.Name)}\n# TYPE {name} {kind}\n");
            foreach (ref readonly var point in metric.GetMetricPoints())
                Write(page, name, metric.MetricType, in point);
        }
        Page = page.ToString();
        return ExportResult.Success;
    }

    /// <summary>The name that an instrument has on the page: its own with <c>_</c> for what is not allowed, its unit, and <c>_total</c> for counters.</summary>
    internal static string Name(string instrument, string? unit, string kind)
    {
        var name = new StringBuilder();
        foreach (var c in instrument)
            name.Append(char.IsAsciiLetterOrDigit(c) || c is ':' or '_' ? c : '_');
        if (char.IsAsciiDigit(name[0]))
            name.Insert(0, '_');
        // a unit in braces is an annotation ("{request}"), not a unit; "1" is a ratio for gauges and nothing for counts
        if (unit is { Length: > 0 } && UnitSuffixes.TryGetValue(unit, out var suffix) && (unit != "1" || kind == "gauge") && !EndsWith(name, "_" + suffix))
            name.Append('_').Append(suffix);
        if (kind == "counter" && !EndsWith(name, "_total"))
            name.Append("_total");
        return name.ToString();
    }

    private static bool EndsWith(StringBuilder name, string suffix) => name.ToString().EndsWith(suffix, StringComparison.Ordinal);

    private static string? Kind(MetricType type) => type switch
    {
        MetricType.LongSum or MetricType.DoubleSum => "counter",
        MetricType.LongSumNonMonotonic or MetricType.DoubleSumNonMonotonic or MetricType.LongGauge or MetricType.DoubleGauge => "gauge",
        MetricType.Histogram => "histogram",
        _ => null,
    };

    private static void Write(StringBuilder page, string name, MetricType type, in MetricPoint point)
    {
        var labels = Labels(point.Tags);
        if (type != MetricType.Histogram)
        {
            var value = type switch
            {
                MetricType.LongSum or MetricType.LongSumNonMonotonic => point.GetSumLong(),
                MetricType.LongGauge => point.GetGaugeLastValueLong(),
                MetricType.DoubleGauge => point.GetGaugeLastValueDouble(),
                _ => point.GetSumDouble(),
            };
            Sample(page, name, labels, Number(value));
            return;
        }
        long count = 0;
        foreach (var bucket in point.GetHistogramBuckets())
        {
            count += bucket.BucketCount;
            Sample(page, name + "_bucket", labels.Length == 0 ? $"le=\"{Number(bucket.ExplicitBound)}\"" : $"{labels},le=\"{Number(bucket.ExplicitBound)}\"", Number(count));
        }
        Sample(page, name + "_sum", labels, Number(point.GetHistogramSum()));
        Sample(page, name + "_count", labels, Number(point.GetHistogramCount()));
    }

    private static void Sample(StringBuilder page, string name, string labels, string value)
    {
        page.Append(name);
        if (labels.Length > 0)
            page.Append('{').Append(labels).Append('}');
        page.Append(' ').Append(value).Append('\n');
    }

    private static string Labels(ReadOnlyTagCollection tags)
    {
        // different tag names may become one label name; the format forbids it twice
        var labels = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var (key, value) in tags)
            labels.TryAdd(LabelName(key), Convert.ToString(value, CultureInfo.InvariantCulture) ?? "");
        return string.Join(',', labels.Select(label => $"{label.Key}=\"{EscapeLabel(label.Value)}\""));
    }

    private static string LabelName(string key)
    {
        var name = string.Concat(key.Select(c => char.IsAsciiLetterOrDigit(c) ? c : '_'));
        return name.Length == 0 || char.IsAsciiDigit(name[0]) ? "_" + name : name;
    }

    private static string EscapeLabel(string text) =>
        text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);

    private static string EscapeHelp(string text) =>
        text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);

    private static string Number(double value) =>
        double.IsPositiveInfinity(value) ? "+Inf" : double.IsNegativeInfinity(value) ? "-Inf" : value.ToString("R", CultureInfo.InvariantCulture);
}
