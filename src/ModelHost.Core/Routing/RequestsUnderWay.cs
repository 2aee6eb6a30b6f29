using System.Collections.Concurrent;

namespace ModelHost.Core.Routing;

/// <summary>The requests under way by deployment.</summary>
public sealed class RequestsUnderWay
{
    private readonly ConcurrentDictionary<string, RequestCounter> _counters = new();

    /// <summary>The counter of a deployment.</summary>
    public RequestCounter Of(string deploymentUid) => _counters.GetOrAdd(deploymentUid, static _ => new RequestCounter());

    /// <summary>How many are under way on all of them.</summary>
    public int Total => _counters.Values.Sum(counter => counter.Count);

    /// <summary>How many are under way on a deployment now. Once its route has been taken from the table, none is added to them.</summary>
    public int Count(string deploymentUid) => _counters.TryGetValue(deploymentUid, out var counter) ? counter.Count : 0;
}

/// <summary>Counts the requests of one deployment.</summary>
public sealed class RequestCounter
{
    private int _count;

    /// <summary>Those that have begun and not ended.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>One begins.</summary>
    public void Begin() => Interlocked.Increment(ref _count);

    /// <summary>One ends.</summary>
    public void End() => Interlocked.Decrement(ref _count);
}
