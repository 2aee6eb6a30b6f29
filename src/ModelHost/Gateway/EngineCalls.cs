using System.Collections.Concurrent;

namespace ModelHost.Gateway;

/// <summary>Counts the calls that the gateway has under way at each deployment.</summary>
internal sealed class EngineCalls
{
    private readonly ConcurrentDictionary<int, Counter> _counters = new();

    /// <summary>Calls under way at a deployment.</summary>
    public int UnderWay(int deploymentId) => _counters.TryGetValue(deploymentId, out var counter) ? counter.Count : 0;

    /// <summary>The counter of a deployment, to be kept by who counts.</summary>
    public Counter Of(int deploymentId) => _counters.GetOrAdd(deploymentId, static _ => new Counter());

    /// <summary>Calls under way.</summary>
    internal sealed class Counter
    {
        private int _count;

        /// <summary>How many there are.</summary>
        public int Count => Volatile.Read(ref _count);

        /// <summary>A call begins.</summary>
        public void Begin() => Interlocked.Increment(ref _count);

        /// <summary>A call has ended.</summary>
        public void End() => Interlocked.Decrement(ref _count);
    }
}
