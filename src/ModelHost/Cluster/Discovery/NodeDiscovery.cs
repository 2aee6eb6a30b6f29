using ModelHost.Core;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;

namespace ModelHost.Cluster.Discovery;

/// <summary>The machines that are no nodes here: found in Consul, members that have not reported, and those whose certificates were revoked.</summary>
internal sealed partial class NodeDiscovery(
    ClusterBook book, ConsulDiscovery consul, RefusedBeats refused, NodeRegistry registry, NodeLinks links, ClusterListener listener, ChangeFeed feed, TimeProvider time,
    ILogger<NodeDiscovery> logger)
{
    private const string Found = "found", Joined = "joined", Revoked = "revoked";

    /// <summary>All of them by name.</summary>
    public DiscoveredNodes List()
    {
        var now = time.GetUtcNow();
        var inConsul = consul.Unregistered.ToArray();
        var members = book.Members.Where(member => member.Value.RevokedAt is not null || (registry.FindByUid(member.Key) is null && CanReturn(member.Value, now)))
            .Select(member => Read(member.Key, member.Value, inConsul.FirstOrDefault(node => node.Uid == member.Key)?.Service)).ToArray();
        var known = members.Select(member => member.NodeUid).ToHashSet();
        var others = inConsul.Where(node => node.Uid is null || !known.Contains(node.Uid)).Select(node => new DiscoveredNode
        {
            Node = node.Service.Node,
            Address = node.Service.Address,
            Port = node.Service.Port,
            ServiceId = node.Service.ServiceId,
            Status = Found,
            StatusDetail = node.Fault ?? "It has not been asked yet.",
            NodeUid = node.Uid,
        });
        return new DiscoveredNodes([.. members.Concat(others).OrderBy(node => node.Node, StringComparer.Ordinal).ThenBy(node => node.ServiceId, StringComparer.Ordinal)], consul.Fault);
    }

    /// <summary>Lets the certificates of a node count again that were revoked; it registers with its next heartbeat.</summary>
    public async Task<Result<DiscoveredNode>> AdmitAsync(string nodeId, CancellationToken cancellationToken)
    {
        var member = book.Members.GetValueOrDefault(nodeId);
        if (member is null)
            return NodeFailures.NotAMember(nodeId);
        if (member.RevokedAt is null)
            return NodeFailures.NotRevoked(member.Name);
        if (!CanReturn(member, time.GetUtcNow()))
            return NodeFailures.CannotReturn(member.Name);
        if (await listener.OpenAsync(cancellationToken) is { } fault)
            return new Failure(FailureKind.Unavailable, "cluster.not_listening", fault);
        book.Write(nodeId, before => (before ?? member) with { RevokedAt = null });
        LogAdmitted(nodeId, member.Name);
        await links.ReconnectAsync(nodeId, cancellationToken);
        feed.Publish(Change.Nodes);
        return Read(nodeId, book.Members[nodeId], null);
    }

    // its last certificate, and the time for which one that ran out can still be renewed
    private static bool CanReturn(ClusterMember member, DateTimeOffset now) =>
        now < (member.RenewedAt ?? member.JoinedAt) + ClusterAuthority.Lifetime + ClusterListener.RenewalGrace;

    private DiscoveredNode Read(string nodeId, ClusterMember member, ConsulService? service)
    {
        var beat = refused.Latest(nodeId);
        return new DiscoveredNode
        {
            Node = member.Name,
            Address = service?.Address ?? beat?.Address?.ToString(),
            Port = service?.Port,
            ServiceId = service?.ServiceId,
            Status = member.RevokedAt is null ? Joined : Revoked,
            StatusDetail = member.RevokedAt is null ? "It has a certificate, and registers with its next heartbeat." : "Its certificates were revoked.",
            NodeUid = nodeId,
            RevokedAt = member.RevokedAt,
            LastHeartbeatAt = beat?.At,
        };
    }

    [LoggerMessage(1435, LogLevel.Warning, "The certificates of {NodeUid} ({NodeName}) count again.")]
    private partial void LogAdmitted(string nodeUid, string nodeName);
}
