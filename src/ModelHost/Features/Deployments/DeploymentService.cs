using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>Changes what is wanted of deployments that are there; reconciliation does the rest.</summary>
internal sealed partial class DeploymentService(
    Database database, NodeRegistry nodes, RunEnds ends, DeploymentReads reads, ChangeFeed feed, TimeProvider time, ILogger<DeploymentService> logger)
{
    private const int Attempts = 5;

    /// <summary>Asks for the end of a deployment's run. Asking again is harmless.</summary>
    public Task<Result<DeploymentRead>> StopAsync(int id, CancellationToken cancellationToken) => ChangeAsync(id, row =>
    {
        if (row.Wanted is WantedState.Stopped or WantedState.Expired && !row.Status.IsActive())
            return false;
        if (row.Wanted != WantedState.Expired)
            row.Wanted = WantedState.Stopped;
        row.DrainUntil = null; // whoever stops it while it is drained does not want to wait
        // an unreachable node cannot be told now; it is as soon as it is back
        if (row.Status.IsActive() && row.Status is not (DeploymentStatus.Unreachable or DeploymentStatus.Stopping))
            (row.Status, row.Detail, row.StatusChangedAt) = (DeploymentStatus.Stopping, null, time.GetUtcNow());
        return true;
    }, LogStopped, cancellationToken);

    /// <summary>Moves the deadline of a deployment on, or drops it; its engine goes on as it is.</summary>
    public async Task<Result<DeploymentRead>> ExtendAsync(int id, DeploymentExtend request, CancellationToken cancellationToken)
    {
        if ((DeploymentRules.Unknown(request) ?? DeploymentRules.Extension(request)) is { } fault)
            return fault;
        return await ChangeAsync(id, row =>
        {
            if (row.Wanted != WantedState.Running || !row.Status.CanBeExtended())
                return DeploymentFailures.WrongStatus(row.Id, row.Status, "extended",
                    [.. Enum.GetValues<DeploymentStatus>().Where(DeploymentStatuses.CanBeExtended)]);
            if (LaunchSpec.FromJson(row.Spec) is null)
                return DeploymentFailures.Unreadable(row.Id);
            if (row.ReadLease().Extend(request.Hours) is not { } lease)
                return DeploymentFailures.NoExpiry(row.Id);
            row.Take(lease);
            return true;
        }, LogExtended, cancellationToken);
    }

    /// <summary>Protects a deployment from warm-cache eviction, or no longer.</summary>
    public async Task<Result<DeploymentRead>> PinAsync(int id, DeploymentPin request, CancellationToken cancellationToken)
    {
        if (DeploymentRules.Unknown(request) is { } fault)
            return fault;
        return await ChangeAsync(id, row =>
        {
            if (LaunchSpec.FromJson(row.Spec) is not { } spec)
                return DeploymentFailures.Unreadable(row.Id);
            if (spec.Pinned == request.Pinned)
                return false;
            row.Spec = (spec with { Pinned = request.Pinned!.Value }).ToJson();
            row.LeaseVersion++;
            return true;
        }, LogPinned, cancellationToken);
    }

    /// <summary>Has requests for its model start a deployment while it rests, or no longer. What runs goes on as it is.</summary>
    public async Task<Result<DeploymentRead>> SetOnDemandAsync(int id, DeploymentOnDemand request, CancellationToken cancellationToken)
    {
        if (DeploymentRules.Unknown(request) is { } fault)
            return fault;
        return await ChangeAsync(id, row =>
        {
            if (LaunchSpec.FromJson(row.Spec) is not { } spec)
                return DeploymentFailures.Unreadable(row.Id);
            if (row.StartOnDemand == request.StartOnDemand)
                return false;
            row.StartOnDemand = request.StartOnDemand!.Value;
            row.Spec = (spec with { StartOnDemand = row.StartOnDemand }).ToJson();
            row.LeaseVersion++;
            return true;
        }, LogOnDemand, cancellationToken);
    }

    /// <summary>Deletes the record and frees its port and names. A running container stays; a start under way is given up.</summary>
    public async Task<Result<Deleted>> DeleteAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        if (await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken) is not { } row)
            return DeploymentFailures.NotFound(id);
        // what still runs of it is not taken for something new
        var spec = row.ReadSpec();
        db.Tombstones.Add(new Tombstone { Uid = row.Uid, NodeId = row.NodeId, DeletedAt = time.GetUtcNow(), DeploymentId = row.Id, Model = spec.PublicName, Owner = spec.Owner });
        await db.SaveChangesAsync(cancellationToken);
        await db.Deployments.Where(d => d.Id == id).ExecuteDeleteAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        LogDeleted(id);
        feed.Publish(Change.Deployments(id));
        if (nodes.Find(row.NodeId) is { } node)
            await ends.EndAsync(node, Idle(node, row));
        nodes.Wake(row.NodeId);
        return new Deleted();
    }

    /// <summary>The runs of a deployment that do not run yet or no longer.</summary>
    private static IEnumerable<string> Idle(NodeHandle node, Deployment row)
    {
        var reported = node.LastReport?.Engines.Where(engine => engine.DeploymentUid == row.Uid).ToArray() ?? [];
        var idle = reported.Where(engine => engine.Phase is EnginePhase.Preparing or EnginePhase.Failed or EnginePhase.Expired).Select(engine => engine.RunId);
        return reported.Any(engine => engine.RunId == row.RunId) ? idle : idle.Append(row.RunId);
    }

    /// <summary>Changes a row, and tells its node.</summary>
    /// <param name="id">The deployment.</param>
    /// <param name="change">Changes what it is given; false: there is nothing to change.</param>
    /// <param name="changed">Hears of a change once it is stored.</param>
    /// <param name="cancellationToken">Gives up.</param>
    private async Task<Result<DeploymentRead>> ChangeAsync(
        int id, Func<Deployment, Result<bool>> change, Action<int> changed, CancellationToken cancellationToken)
    {
        for (var attempt = 0; attempt < Attempts; attempt++)
        {
            await using var db = await database.OpenAsync(cancellationToken);
            if (await db.Deployments.FirstOrDefaultAsync(d => d.Id == id, cancellationToken) is not { } row)
                return DeploymentFailures.NotFound(id);
            var outcome = change(row);
            if (outcome.Failure is { } refusal)
                return refusal;
            if (!outcome.Match(isChanged => isChanged, _ => false))
                return reads.Read(row);
            row.Version++;
            try
            {
                await database.SaveAsync(db, cancellationToken);
                changed(row.Id);
                feed.Publish(Change.Deployments(row.Id));
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

    [LoggerMessage(1002, LogLevel.Information, "Deployment {DeploymentId} is no longer wanted.")]
    private partial void LogStopped(int deploymentId);

    [LoggerMessage(1003, LogLevel.Information, "Deployment {DeploymentId} was deleted.")]
    private partial void LogDeleted(int deploymentId);

    [LoggerMessage(1005, LogLevel.Information, "The deadline of deployment {DeploymentId} was moved.")]
    private partial void LogExtended(int deploymentId);

    [LoggerMessage(1008, LogLevel.Information, "Deployment {DeploymentId} is started by requests, or no longer.")]
    private partial void LogOnDemand(int deploymentId);

    [LoggerMessage(1006, LogLevel.Information, "Deployment {DeploymentId} was pinned or unpinned.")]
    private partial void LogPinned(int deploymentId);
}
