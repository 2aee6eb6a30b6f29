using System.Collections.Concurrent;
using System.Collections.Frozen;

namespace ModelHost.Simulator.Metrics;

/// <summary>
/// What the HTTP side counts by route and method. Both come from closed sets, so that no client can make them grow. All numbers of a route
/// stand together, so that a request takes one lock; what is shown for all routes is added up when the page is read.
/// </summary>
internal sealed class HttpCounts
{
    private static readonly FrozenSet<string> Methods = FrozenSet.Create("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT");

    private readonly ConcurrentDictionary<(string Handler, string Method), Entry> _entries = [];

    /// <summary>Counts one answer.</summary>
    /// <param name="handler">The route.</param>
    /// <param name="method">The method; one that HTTP does not know counts as OTHER.</param>
    /// <param name="status">The status of the answer.</param>
    /// <param name="requestBytes">The length that the request's header states; null when it has none.</param>
    /// <param name="responseBytes">The length that the answer's header states; null when it has none.</param>
    /// <param name="seconds">Time to the end of the answer.</param>
    public void Add(string handler, string method, int status, long? requestBytes, long? responseBytes, double seconds)
    {
        var entry = _entries.GetOrAdd((handler, Methods.Contains(method) ? method : "OTHER"), static _ => new Entry());
        lock (entry.Gate)
        {
            entry.ByClass[Math.Clamp(status / 100, 0, entry.ByClass.Length - 1)]++;
            entry.RequestBytes += requestBytes ?? 0;
            entry.ResponseBytes += responseBytes ?? 0;
            entry.Fine.Observe(seconds);
            entry.Coarse.Observe(seconds);
        }
    }

    /// <summary>Writes the series of Python's FastAPI instrumentator.</summary>
    public void Write(PageWriter page)
    {
        var all = _entries.Select(pair => (pair.Key.Handler, pair.Key.Method, Entry: pair.Value.Copy())).ToArray();
        page.Counter("http_requests", "Total number of requests by method, status and handler.", all.SelectMany(one => one.Entry.ByClass
            .Select((count, status) => (Count: count, Status: status)).Where(counted => counted.Count > 0)
            .Select(counted => (((string, string)[])[("handler", one.Handler), ("method", one.Method), ("status", $"{counted.Status}xx")], (double)counted.Count))));
        page.Summary("http_request_size_bytes", "Content length of incoming requests by handler. Only value of header is respected. Otherwise ignored.",
            ByHandler(entry => entry.RequestBytes));
        page.Summary("http_response_size_bytes", "Content length of outgoing responses by handler. Only value of header is respected. Otherwise ignored.",
            ByHandler(entry => entry.ResponseBytes));
        var fine = new Histogram(Buckets.HttpFine);
        foreach (var one in all)
            fine.Add(one.Entry.Fine);
        page.Histogram("http_request_duration_highr_seconds", "Latency with many buckets but no API specific labels.", [([], fine)]);
        page.Histogram("http_request_duration_seconds", "Latency with only few buckets by handler.",
            all.Select(one => (((string, string)[])[("handler", one.Handler), ("method", one.Method)], one.Entry.Coarse)));

        IEnumerable<((string, string)[], long, double)> ByHandler(Func<Entry, long> bytes) => all.GroupBy(one => one.Handler).Select(group =>
            (((string, string)[])[("handler", group.Key)], group.Sum(one => one.Entry.ByClass.Sum()), (double)group.Sum(one => bytes(one.Entry))));
    }

    private sealed class Entry
    {
        public Lock Gate { get; } = new();

        public long[] ByClass { get; private init; } = new long[6];

        public long RequestBytes { get; set; }

        public long ResponseBytes { get; set; }

        public Histogram Fine { get; private init; } = new(Buckets.HttpFine);

        public Histogram Coarse { get; private init; } = new(Buckets.HttpCoarse);

        public Entry Copy()
        {
            lock (Gate)
                return new()
                {
                    ByClass = (long[])ByClass.Clone(),
                    RequestBytes = RequestBytes,
                    ResponseBytes = ResponseBytes,
                    Fine = Fine.Copy(),
                    Coarse = Coarse.Copy(),
                };
        }
    }
}
