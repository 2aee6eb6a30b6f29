using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Protocol;

namespace ModelHost.Features.Nodes;

/// <summary>Tells whether ports are free.</summary>
internal sealed partial class NodePorts(Database database, NodeRegistry registry, TimeProvider time, ILogger<NodePorts> logger)
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(5);

    /// <summary>Whether a deployment could have a port: no other holds it, and nothing on the node listens there.</summary>
    public async Task<Result<PortCheck>> CheckAsync(int id, int? asked, CancellationToken cancellationToken)
    {
        if (asked is not { } port)
            return Failure.Invalid("port", "is required");
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            if (await db.Nodes.AsNoTracking().FirstOrDefaultAsync(n => n.Id == id, cancellationToken) is not { } row)
                return NodeFailures.NotFound(id);
            // nobody listens there for a deployment that is starting
            if (LaunchChecks.PortHeld(port, row, await LaunchChecks.ActiveAsync(db, id, except: null, cancellationToken)) is { } held)
                return new PortCheck { Available = false, Reason = held.Detail };
        }
        if (registry.Find(id) is not { Report: not null } node)
            return NodeFailures.Unreachable(id);
        using var deadline = new CancellationTokenSource(Deadline, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        try
        {
            var reply = await node.Link.CheckPortAsync(new PortRequest { Port = port }, linked.Token);
            return new PortCheck { Available = reply.Available, Reason = reply.Available ? null : reply.Reason };
        }
#pragma warning disable CA1031 // whatever the link throws means the same: it is not known
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            LogNotAsked(id, e.Message);
            return NodeFailures.Unreachable(id);
        }
    }

    [LoggerMessage(2305, LogLevel.Warning, "Node {NodeId} could not be asked for a port: {Reason}")]
    private partial void LogNotAsked(int nodeId, string reason);
}
