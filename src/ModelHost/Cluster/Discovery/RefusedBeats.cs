using System.Collections.Concurrent;
using System.Net;

namespace ModelHost.Cluster.Discovery;

/// <summary>Where nodes were that wanted to report and were refused because their certificates count no more. Each had one of this cluster, so they are few.</summary>
internal sealed class RefusedBeats(TimeProvider time)
{
    private readonly ConcurrentDictionary<string, (IPAddress? Address, DateTimeOffset At)> _latest = new();

    /// <summary>Notes a refusal.</summary>
    public void Note(string nodeId, IPAddress? address) => _latest[nodeId] = (address?.IsIPv4MappedToIPv6 == true ? address.MapToIPv4() : address, time.GetUtcNow());

    /// <summary>The latest of a node; null: there was none since the start.</summary>
    public (IPAddress? Address, DateTimeOffset At)? Latest(string nodeId) => _latest.TryGetValue(nodeId, out var latest) ? latest : null;
}
