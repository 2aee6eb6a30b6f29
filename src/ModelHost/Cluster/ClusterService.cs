using System.Net;
using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Gateway;
using ModelHost.Hosting;

namespace ModelHost.Cluster;

/// <summary>What nodes ask of the control plane: to join, to stay, and to be known as alive.</summary>
internal sealed partial class ClusterService(
    Database database, Lazy<ClusterAuthority> authority, ClusterBook book, NodeLinks links, RouteSource routes, ChangeFeed feed, DataFolder folder, TimeProvider time, ILogger<ClusterService> logger)
{
    /// <summary>Makes a node a member, for a token.</summary>
    public async Task<Result<MemberAnswer>> JoinAsync(JoinRequest request, CancellationToken cancellationToken)
    {
        if (!ClusterName.IsNodeId(request.NodeId) || request.NodeId == folder.NodeId)
            return Failure.Invalid("node_id", "must be the id of a node, 32 hexadecimal digits, and not that of the control plane");
        if (request.Name.Length is 0 or > 255 || request.Name.Any(char.IsControl))
            return Failure.Invalid("name", "must be a name of up to 255 characters");
        var now = time.GetUtcNow();
        await using var db = await database.OpenAsync(cancellationToken);
        if (!(await JoinTokenService.FindAsync(db, request.Secret, request.Name, now, cancellationToken)).TryGet(out var token, out var refused))
            return Refuse(refused, request);
        if (authority.Value.SignNode(request.SigningRequest, request.NodeId) is not var (certificate, keyHash))
            return Failure.Invalid("signing_request", "must be a PKCS#10 request in PEM, signed with its own EC key of 256 or 384 bits");
        using (certificate)
        {
            // whoever has a token must not become another node with it: the id stays with its key, or goes to the node for which the token was made
            if (book.Members.GetValueOrDefault(request.NodeId) is { } member && member.KeyHash != keyHash && !member.Name.Equals(token.NodeName, StringComparison.OrdinalIgnoreCase))
            {
                return Refuse(new Failure(FailureKind.Conflict, "join.id_taken",
                    $"The node {request.NodeId} is a member under another key. Make a token for its name ({member.Name}) to let it join anew."), request);
            }
            if (!await JoinTokenService.UseAsync(db, token, request.Name, now, cancellationToken))
                return Refuse(new Failure(FailureKind.Conflict, "join.token_used", "The join token was used before; each lets one node join, once."), request);
            book.Write(request.NodeId, _ => new ClusterMember { Name = request.Name, KeyHash = keyHash, JoinedAt = now, ValidFrom = ClusterAuthority.SignedAt(certificate) });
            LogJoined(request.Name, request.NodeId, token.Id);
            return new MemberAnswer(folder.ClusterId, certificate.ExportCertificatePem());
        }
    }

    /// <summary>Gives a member a further certificate; those signed earlier count on until they run out.</summary>
    public Result<MemberAnswer> Renew(ClusterName name, RenewRequest request)
    {
        if (authority.Value.SignNode(request.SigningRequest, name.NodeId) is not var (certificate, keyHash))
            return Failure.Invalid("signing_request", "must be a PKCS#10 request in PEM, signed with its own EC key of 256 or 384 bits");
        using (certificate)
        {
            // one that the book has lost comes back into it
            book.Write(name.NodeId, member => member is null
                ? new ClusterMember { Name = name.NodeId, KeyHash = keyHash, JoinedAt = time.GetUtcNow(), ValidFrom = DateTimeOffset.UnixEpoch }
                : member with { KeyHash = keyHash, RenewedAt = time.GetUtcNow() });
            return new MemberAnswer(folder.ClusterId, certificate.ExportCertificatePem());
        }
    }

    /// <summary>Takes a sign of life, and links a node that is not linked, or is elsewhere now.</summary>
    public async Task<Result<HeartbeatAnswer>> HeardAsync(ClusterName name, HeartbeatRequest request, IPAddress from, CancellationToken cancellationToken)
    {
        if (request.Port is < 1 or > IPEndPoint.MaxPort)
            return Failure.Invalid("port", "must be a port");
        if (request.Hostname.Length is 0 or > 255)
            return Failure.Invalid("hostname", "must be a name of up to 255 characters");
        var seen = new NodeSeen(name.NodeId, request.Hostname, from.IsIPv4MappedToIPv6 ? from.MapToIPv4() : from, request.Port,
            AgentVersion.Fault(request.AgentVersion, AgentVersion.Own));
        return await links.HeardAsync(seen, cancellationToken) is var (id, next) ? new HeartbeatAnswer(id, next.TotalSeconds)
            : new Failure(FailureKind.Conflict, "cluster.certificate_refused", "the certificates of this node have just been revoked");
    }

    /// <summary>Ends the certificates of a node; what runs on it runs on, and it is not spoken to any more.</summary>
    public async Task RevokeAsync(string nodeId, string name, CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        book.Write(nodeId, member => (member ?? new ClusterMember { Name = name, KeyHash = "", JoinedAt = now, ValidFrom = now }) with { RevokedAt = now });
        LogRevoked(nodeId);
        await links.ReconnectAsync(nodeId, cancellationToken);
    }

    /// <summary>
    /// Removes a node with its history and the records of its deployments. What runs on it runs on; with its next sign of life it registers again, and what runs there is
    /// adopted, unless its certificates were revoked.
    /// </summary>
    public async Task<Result<NodeDeleted>> RemoveAsync(int id, bool revoke, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var row = await db.Nodes.AsNoTracking().FirstOrDefaultAsync(node => node.Id == id, cancellationToken);
        if (row is null)
            return NodeFailures.NotFound(id);
        if (row.Port is null)
            return new Failure(FailureKind.Conflict, "node.local", "This is the node in the control plane itself. Start the control plane with --no-local-node to be without it.");
        if (revoke && !row.IsByHand)
            await RevokeAsync(row.Uid, row.Hostname, cancellationToken);
        var deployments = 0;
        await links.RemoveAsync(row.Uid, async () =>
        {
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            deployments = await db.Deployments.Where(deployment => deployment.NodeId == id).ExecuteDeleteAsync(cancellationToken);
            await NodeHistory.ForgetAsync(db, id, cancellationToken);
            await db.Nodes.Where(node => node.Id == id).ExecuteDeleteAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            routes.Publish(id, [], routes.Mark());
        }, cancellationToken);
        LogRemoved(id, row.Hostname);
        feed.Publish(Change.Nodes);
        feed.Publish(Change.AllDeployments);
        return new NodeDeleted(row.Hostname, deployments);
    }

    private Failure Refuse(Failure failure, JoinRequest request)
    {
        LogRefused(request.NodeId, failure.Code);
        return failure;
    }

    [LoggerMessage(1401, LogLevel.Information, "{NodeName} ({NodeUid}) has joined with token {TokenId}.")]
    private partial void LogJoined(string nodeName, string nodeUid, int tokenId);

    [LoggerMessage(1402, LogLevel.Warning, "{NodeUid} wanted to join and was refused: {Code}.")]
    private partial void LogRefused(string nodeUid, string code);

    [LoggerMessage(1404, LogLevel.Warning, "Node {NodeId} ({NodeName}) and the records of its deployments are removed.")]
    private partial void LogRemoved(int nodeId, string nodeName);

    [LoggerMessage(1403, LogLevel.Warning, "The certificates of {NodeUid} are revoked.")]
    private partial void LogRevoked(string nodeUid);
}
