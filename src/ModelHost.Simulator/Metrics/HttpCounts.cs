using System.Collections.Concurrent;

namespace ModelHost.Simulator.Metrics;

/// <summary>Answers by route, method and status class. Routes come from the server's own table, so the set stays small.</summary>
internal sealed class HttpCounts
{
    private readonly ConcurrentDictionary<(string Handler, string Method, int Class), StrongBox> _counts = [];

    public void Add(string handler, string method, int status) =>
        Interlocked.Increment(ref _counts.GetOrAdd((handler, method, status / 100), static _ => new StrongBox()).Value);

    public IEnumerable<(string Handler, string Method, int Class, long Count)> Read() =>
        _counts.Select(pair => (pair.Key.Handler, pair.Key.Method, pair.Key.Class, Interlocked.Read(ref pair.Value.Value)));

    private sealed class StrongBox
    {
        public long Value;
    }
}
