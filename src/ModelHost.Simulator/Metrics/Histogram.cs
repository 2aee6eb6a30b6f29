namespace ModelHost.Simulator.Metrics;

/// <summary>Counts values in fixed buckets. Not safe for threads: <see cref="EngineMetrics"/> holds one lock for all.</summary>
internal sealed class Histogram(string name, string help, double[] bounds)
{
    private readonly long[] _counts = new long[bounds.Length + 1];

    public string Name { get; } = name;

    public string Help { get; } = help;

    public IReadOnlyList<double> Bounds { get; } = bounds;

    public double Sum { get; private set; }

    /// <summary>Values per bucket, not added up; the last one is for values above every bound.</summary>
    public IReadOnlyList<long> Counts => _counts;

    public void Observe(double value, long times = 1)
    {
        var bucket = Array.BinarySearch(bounds, value);
        _counts[bucket < 0 ? ~bucket : bucket] += times;
        Sum += value * times;
    }
}
