using Microsoft.EntityFrameworkCore;
using ModelHost.Core.Deployments;
using ModelHost.Data;

namespace ModelHost.Features.Deployments;

/// <summary>
/// Empties nodes. A deployment that is drained is no longer wanted and takes no new requests; its engine ends when those under way have been
/// answered, or at the moment stored with it. What is stored brings it to its end, whoever restarts in between.
/// </summary>
internal static class DeploymentDrains
{
    private const string Draining = "draining";

    /// <summary>Begins to drain the active deployments of a node, in the transaction of the caller.</summary>
    /// <param name="db">The transaction.</param>
    /// <param name="nodeId">The node.</param>
    /// <param name="gpus">Only those that use one of these; empty: all.</param>
    /// <param name="now">The time.</param>
    /// <param name="until">When their engines are ended at the latest.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The deployments that are drained now and were not ending before.</returns>
    public static async Task<IReadOnlyList<int>> BeginAsync(
        ModelHostDbContext db, int nodeId, IReadOnlyCollection<int> gpus, DateTimeOffset now, DateTimeOffset until, CancellationToken cancellationToken)
    {
        var rows = await db.Deployments.Where(d => d.NodeId == nodeId && d.Wanted == WantedState.Running).ToListAsync(cancellationToken);
        var drained = rows.Where(row => gpus.Count == 0 || row.ReadSpec().GpuIds.Intersect(gpus).Any()).ToArray();
        foreach (var row in drained)
        {
            (row.Wanted, row.DrainUntil) = (WantedState.Stopped, until);
            if (row.Status is not (DeploymentStatus.Unreachable or DeploymentStatus.Stopping))
                (row.Status, row.Detail, row.StatusChangedAt) = (DeploymentStatus.Stopping, Draining, now);
            row.Version++;
        }
        return [.. drained.Select(row => row.Id)];
    }

    /// <summary>What is going on with a deployment while its engine is only waited for; null: it is not.</summary>
    public static string? Detail(Deployment row, DateTimeOffset now) => row.Wanted == WantedState.Stopped && row.DrainUntil > now ? Draining : null;
}
