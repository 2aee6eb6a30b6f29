using Microsoft.EntityFrameworkCore;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Reconcile;

/// <summary>
/// Looks after engines whose run is not the current one of any deployment. What the database has lost comes back under its own uid; what
/// it knows to be over is to be ended; what was deleted is left as it is.
/// </summary>
internal sealed partial class Adoption(NodeHandle node, Database database, EnvironmentVault vault, TimeProvider time, ILogger logger)
{
    // what a label says is taken only as far as the ids that follow have room
    private const int HighestReclaimedId = 100_000_000;

    private static readonly TimeSpan CallDeadline = TimeSpan.FromSeconds(10);

    /// <summary>Sorts engines that no current run accounts for.</summary>
    /// <param name="engines">They, of one report.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>Runs that were followed by others and are to be ended, and whether a deployment was changed.</returns>
    public async Task<(HashSet<string> Superseded, bool Changed)> SortAsync(IEnumerable<Engine> engines, CancellationToken cancellationToken)
    {
        var superseded = new HashSet<string>();
        var changed = false;
        // of two that claim to be the same deployment the later one is
        foreach (var engine in engines.OrderBy(engine => engine.HasStartedAt ? engine.StartedAt : double.MaxValue))
        {
            try
            {
                switch (await SortAsync(engine, cancellationToken))
                {
                    case Kind.Superseded:
                        superseded.Add(engine.RunId);
                        break;
                    case Kind.Adopted:
                        changed = true;
                        break;
                    case Kind.Foreign:
                        break;
                }
            }
#pragma warning disable CA1031 // one container that cannot be made sense of must not hold up the others of its node
            catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
            {
                LogNotSorted(e, engine.RunId, engine.DeploymentUid);
            }
        }
        return (superseded, changed);
    }

    private async Task<Kind> SortAsync(Engine engine, CancellationToken cancellationToken)
    {
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            var row = await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Uid == engine.DeploymentUid, cancellationToken);
            if (row is null ? await db.Tombstones.AnyAsync(t => t.Uid == engine.DeploymentUid, cancellationToken) : row.NodeId != node.Id || row.RunId == engine.RunId)
                return Kind.Foreign;
            if (row is not null && await db.Runs.AnyAsync(r => r.Id == engine.RunId && r.DeploymentId == row.Id, cancellationToken))
                return Kind.Superseded;
        }
        if (engine.Phase is EnginePhase.Stopping || LaunchSpec.FromJson(engine.LaunchSpec) is not { } spec)
            return Kind.Foreign;
        await AdoptAsync(engine, spec, await EnvironmentAsync(engine, spec, cancellationToken), cancellationToken);
        return Kind.Adopted;
    }

    private async Task<Dictionary<string, string>> EnvironmentAsync(Engine engine, LaunchSpec spec, CancellationToken cancellationToken)
    {
        if (spec.EnvVarKeys.Count == 0)
            return [];
        using var deadline = new CancellationTokenSource(CallDeadline, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        var reply = await node.Link.EnvironmentAsync(new EnvironmentRequest { RunId = engine.RunId }, linked.Token);
        return reply.Env.ToDictionary();
    }

    /// <summary>Stores the deployment as its engine shows it; one that is stored of an earlier time goes on with this run.</summary>
    private async Task AdoptAsync(Engine engine, LaunchSpec spec, Dictionary<string, string> env, CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        var lease = Lease.FromJson(engine.Lease) ?? new Lease(0, null, spec.DurationSeconds);
        spec = spec with { DurationSeconds = lease.DurationSeconds };
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        if (await db.Tombstones.AnyAsync(t => t.Uid == engine.DeploymentUid, cancellationToken))
            return; // deleted at this moment
        var row = await db.Deployments.FirstOrDefaultAsync(d => d.Uid == engine.DeploymentUid, cancellationToken);
        if (row is null)
        {
            row = new Deployment
            {
                Uid = engine.DeploymentUid,
                RunId = engine.RunId,
                NodeId = node.Id,
                Spec = "",
                CreatedAt = engine.HasStartedAt ? Run.FromSeconds(engine.StartedAt) : now,
                StatusChangedAt = now,
            };
            if (spec.DeploymentId is > 0 and <= HighestReclaimedId && !await db.Deployments.AnyAsync(d => d.Id == spec.DeploymentId, cancellationToken))
                row.Id = spec.DeploymentId;
            db.Deployments.Add(row);
            await db.SaveChangesAsync(cancellationToken);
        }
        await db.Runs.Where(r => r.DeploymentId == row.Id && r.EndedAt == null).ExecuteUpdateAsync(r => r.SetProperty(x => x.EndedAt, now), cancellationToken);
        (row.Spec, row.StartOnDemand) = ((spec with { DeploymentId = row.Id }).ToJson(), spec.StartOnDemand);
        row.EnvValues = vault.Seal(env);
        (row.Wanted, row.RunId, row.RunSeen, row.FailedStarts) = (WantedState.Running, engine.RunId, true, 0);
        if (!row.Status.IsActive())
            (row.Status, row.StatusChangedAt) = (DeploymentStatus.Starting, now);
        (row.ExpiresAt, row.LeaseVersion) = (lease.ExpiresAt, lease.Version);
        // how long it has been loading is not known: it gets the whole time
        (row.BeginsAt, row.ReadyAt, row.LastError, row.ErrorCode) = (now, engine.HasReadyAt ? Run.FromSeconds(engine.ReadyAt) : null, null, null);
        (row.CountedPromptTokens, row.CountedCompletionTokens, row.CountedRequests) = (0, 0, 0);
        row.Version++;
        await DeploymentClaims.ClaimAsync(db, row, spec, cancellationToken);
        db.Runs.Add(new Run { Id = engine.RunId, DeploymentId = row.Id, StartedAt = engine.HasStartedAt ? Run.FromSeconds(engine.StartedAt) : now });
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        LogAdopted(row.Id, row.Uid, engine.RunId);
        if (row.Conflict is not null)
            LogConflict(row.Id, row.Conflict);
    }

    private enum Kind
    {
        /// <summary>Of a deleted deployment, of another node, or going anyway.</summary>
        Foreign,
        Superseded,
        Adopted,
    }

    [LoggerMessage(1208, LogLevel.Warning, "Deployment {DeploymentId} ({DeploymentUid}) was found running and is looked after again; its run is {RunId}.")]
    private partial void LogAdopted(int deploymentId, string deploymentUid, string runId);

    [LoggerMessage(1209, LogLevel.Warning, "Deployment {DeploymentId} does not have all that it had: {Conflict}")]
    private partial void LogConflict(int deploymentId, string conflict);

    [LoggerMessage(1211, LogLevel.Error, "Run {RunId} of the unknown deployment {DeploymentUid} could not be taken over.")]
    private partial void LogNotSorted(Exception exception, string runId, string deploymentUid);
}
