using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>Changes what is wanted of deployments that are there; reconciliation does the rest.</summary>
internal sealed partial class DeploymentService(
    Database database, NodeRegistry nodes, DeploymentReads reads, TimeProvider time, ILogger<DeploymentService> logger)
{
    private const int Attempts = 5;

    /// <summary>Asks for the end of a deployment's run. Asking again is harmless.</summary>
    public async Task<Result<DeploymentRead>> StopAsync(int id, CancellationToken cancellationToken)
    {
        for (var attempt = 0; attempt < Attempts; attempt++)
        {
            await using var db = await database.OpenAsync(cancellationToken);
            if (await db.Deployments.FirstOrDefaultAsync(d => d.Id == id, cancellationToken) is not { } row)
                return DeploymentFailures.NotFound(id);
            if (row.Wanted is WantedState.Stopped or WantedState.Expired && !row.Status.IsActive())
                return reads.Read(row);
            if (row.Wanted != WantedState.Expired)
                row.Wanted = WantedState.Stopped;
            // an unreachable node cannot be told now; it is as soon as it is back
            if (row.Status.IsActive() && row.Status is not (DeploymentStatus.Unreachable or DeploymentStatus.Stopping))
                (row.Status, row.Detail, row.StatusChangedAt) = (DeploymentStatus.Stopping, null, time.GetUtcNow());
            row.Version++;
            try
            {
                await db.SaveChangesAsync(cancellationToken);
                LogStopped(row.Id);
                nodes.Wake(row.NodeId);
                return reads.Read(row);
            }
            catch (DbUpdateConcurrencyException)
            {
                // reconciliation wrote in between; what is wanted now is written over what is there now
            }
        }
        return DeploymentFailures.Changed(id);
    }

    /// <summary>Deletes the record and frees its port and names. A running container stays; a start under way is given up.</summary>
    public async Task<Result<Deleted>> DeleteAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var row = await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken);
        if (row is null || await db.Deployments.Where(d => d.Id == id).ExecuteDeleteAsync(cancellationToken) == 0)
            return DeploymentFailures.NotFound(id);
        LogDeleted(id);
        if (nodes.Find(row.NodeId) is { } node && node.Engine(row.RunId) is null or { Phase: EnginePhase.Preparing or EnginePhase.Failed })
            await node.Link.StopAsync(new StopRequest { RunId = row.RunId }, cancellationToken);
        nodes.Wake(row.NodeId);
        return new Deleted();
    }

    [LoggerMessage(1002, LogLevel.Information, "Deployment {DeploymentId} is no longer wanted.")]
    private partial void LogStopped(int deploymentId);

    [LoggerMessage(1003, LogLevel.Information, "Deployment {DeploymentId} was deleted.")]
    private partial void LogDeleted(int deploymentId);
}
