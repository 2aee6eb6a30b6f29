using System.Globalization;
using System.Text;

namespace ModelHost.Simulator.Metrics;

/// <summary>Writes series as Python's Prometheus client does: labels by name, floats with a point, a <c>_created</c> series each.</summary>
internal sealed class PageWriter(double created)
{
    private readonly StringBuilder _page = new(65_536);

    public override string ToString() => _page.ToString();

    public void Head(string name, string help, string type) => _page.Append(CultureInfo.InvariantCulture, $"# HELP {name} {help}\n# TYPE {name} {type}\n");

    public void Line(string name, double value, params ReadOnlySpan<(string Name, string Value)> labels)
    {
        _page.Append(name);
        if (!labels.IsEmpty)
        {
            var sorted = labels.ToArray();
            Array.Sort(sorted, static (a, b) => string.CompareOrdinal(a.Name, b.Name));
            var separator = '{';
            foreach (var (label, text) in sorted)
            {
                _page.Append(separator).Append(label).Append("=\"").Append(Escape(text)).Append('"');
                separator = ',';
            }
            _page.Append('}');
        }
        _page.Append(' ').Append(Number(value)).Append('\n');
    }

    public void Gauge(string name, string help, IEnumerable<((string, string)[] Labels, double Value)> series)
    {
        Head(name, help, "gauge");
        foreach (var (labels, value) in series)
            Line(name, value, labels);
    }

    public void Counter(string name, string help, IEnumerable<((string, string)[] Labels, double Value)> series)
    {
        var all = series.ToArray();
        Head(name + "_total", help, "counter");
        foreach (var (labels, value) in all)
            Line(name + "_total", value, labels);
        Created(name, help, all.Select(one => one.Labels));
    }

    public void Summary(string name, string help, IEnumerable<((string, string)[] Labels, long Count, double Sum)> series)
    {
        var all = series.ToArray();
        Head(name, help, "summary");
        foreach (var (labels, count, sum) in all)
        {
            Line(name + "_count", count, labels);
            Line(name + "_sum", sum, labels);
        }
        Created(name, help, all.Select(one => one.Labels));
    }

    public void Histogram(string name, string help, IEnumerable<((string, string)[] Labels, Histogram Histogram)> series)
    {
        var all = series.ToArray();
        Head(name, help, "histogram");
        foreach (var (labels, histogram) in all)
        {
            var total = 0L;
            for (var i = 0; i < histogram.Counts.Count; i++)
            {
                total += histogram.Counts[i];
                Line(name + "_bucket", total, [.. labels, ("le", i < histogram.Bounds.Count ? Number(histogram.Bounds[i]) : "+Inf")]);
            }
            Line(name + "_count", total, labels);
            Line(name + "_sum", histogram.Sum, labels);
        }
        Created(name, help, all.Select(one => one.Labels));
    }

    private void Created(string name, string help, IEnumerable<(string, string)[]> all)
    {
        Head(name + "_created", help, "gauge");
        foreach (var labels in all)
            Line(name + "_created", created, labels);
    }

    /// <summary>As Python's <c>repr</c> of a float: always with a point or an exponent.</summary>
    private static string Number(double value)
    {
        var text = value.ToString("R", CultureInfo.InvariantCulture);
        return text.AsSpan().ContainsAny(".E") ? text.Replace("E", "e", StringComparison.Ordinal) : text + ".0";
    }

    private static string Escape(string label) => !label.AsSpan().ContainsAny("\\\"\n") ? label
        : label.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);
}
