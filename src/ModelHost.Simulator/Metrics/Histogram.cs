namespace ModelHost.Simulator.Metrics;

/// <summary>Counts values in fixed buckets. Not safe for threads: its owner holds a lock.</summary>
internal sealed class Histogram
{
    private readonly double[] _bounds;
    private readonly long[] _counts;

    public Histogram(double[] bounds) => (_bounds, _counts) = (bounds, new long[bounds.Length + 1]);

    private Histogram(Histogram other) => (_bounds, _counts, Sum) = (other._bounds, (long[])other._counts.Clone(), other.Sum);

    public IReadOnlyList<double> Bounds => _bounds;

    public double Sum { get; private set; }

    /// <summary>Values per bucket, not added up; the last one is for values above every bound.</summary>
    public IReadOnlyList<long> Counts => _counts;

    public void Observe(double value, long times = 1)
    {
        var bucket = Array.BinarySearch(_bounds, value);
        _counts[bucket < 0 ? ~bucket : bucket] += times;
        Sum += value * times;
    }

    /// <summary>Adds what another one with the same bounds has counted.</summary>
    public void Add(Histogram other)
    {
        for (var i = 0; i < _counts.Length; i++)
            _counts[i] += other._counts[i];
        Sum += other.Sum;
    }

    public Histogram Copy() => new(this);
}
