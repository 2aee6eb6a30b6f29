using Microsoft.EntityFrameworkCore;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Gateway;
using ModelHost.Protocol;

namespace ModelHost.Reconcile;

/// <summary>
/// Keeps one node as it is wanted: reads its report, compares, stores what is observed, asks for what is missing, and does it again. A
/// missed event costs one period; a lost answer is asked for again.
/// </summary>
internal sealed partial class NodeActor(
    NodeHandle node, Database database, EnvironmentVault vault, RouteSource routes, ChangeFeed feed, LiveSettings settings, TimeProvider time,
    ILogger<NodeActor> logger)
{
    private static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan CallDeadline = TimeSpan.FromSeconds(10);
    private const int MaxBackOffSeconds = 30;

    private string _nodeStatus = NodeService.Status(null);

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        var failures = 0;
        while (!cancellationToken.IsCancellationRequested)
        {
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            // asked for before the report is read: a change in between is not missed
            var changed = node.Link.ChangedAsync(waiting.Token);
            var adjusted = settings.ChangedAsync(waiting.Token);
            try
            {
                await PassAsync(cancellationToken);
                failures = 0;
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                return;
            }
#pragma warning disable CA1031 // the one catch-all of the loop: a full disk must not end the control of a node for good
            catch (Exception e)
#pragma warning restore CA1031
            {
                LogPassFailed(e, node.Id, ++failures);
            }
            await Task.WhenAny(changed, adjusted, node.WokenAsync(waiting.Token), Task.Delay(Pause(failures), time, waiting.Token));
            await waiting.CancelAsync();
            // a pull reports many times a second
            await Task.Delay(Spacing, time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private TimeSpan Pause(int failures)
    {
        var now = settings.Current;
        // one call tells of the node and of its deployments, and one pass finds what has expired: the shortest of the intervals serves all
        var seconds = Math.Min(Math.Min(now.NodesSyncIntervalSeconds, now.DeploymentsSyncIntervalSeconds), now.ExpiryCheckIntervalSeconds);
        return TimeSpan.FromSeconds(Math.Max(seconds, Math.Min(seconds << Math.Min(failures, 4), MaxBackOffSeconds)));
    }

    private async Task PassAsync(CancellationToken cancellationToken)
    {
        await HearAsync(cancellationToken);
        var mark = routes.Mark();
        var advanced = new List<(Deployment Row, NodeAction Action)>();
        foreach (var row in await UnsettledAsync(cancellationToken))
        {
            // what could not be stored goes on being served as it is: a full disk must not take a model away
            var step = (Row: row, Action: NodeAction.None);
            try
            {
                step = await AdvanceAsync(row, cancellationToken) ?? step;
            }
#pragma warning disable CA1031 // one row that cannot be read or written must not hold up the others of its node
            catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
            {
                LogRowFailed(e, row.Id);
            }
            advanced.Add(step);
        }
        routes.Publish(node.Id, advanced.Where(step => step.Row.Status.IsActive()).Select(step => step.Row.ToRoute(node.Engine(step.Row.RunId))), mark);
        foreach (var (row, action) in advanced)
            await ActAsync(row, action, cancellationToken);
    }

    /// <summary>The deployments that have something left to do: all but those at rest of whose run the node says nothing.</summary>
    private async Task<List<Deployment>> UnsettledAsync(CancellationToken cancellationToken)
    {
        var reported = node.LastReport?.Engines.Select(engine => engine.RunId).ToArray() ?? [];
        await using var db = await database.OpenAsync(cancellationToken);
        return await db.Deployments.AsNoTracking().Where(d => d.NodeId == node.Id
            && (d.ReservedPort != null || d.Wanted == WantedState.Running
                || (d.Wanted == WantedState.Stopped && d.Status != DeploymentStatus.Stopped)
                || (d.Wanted == WantedState.Expired && d.Status != DeploymentStatus.Expired)
                || EF.Constant(reported).Contains(d.RunId))).ToListAsync(cancellationToken);
    }

    private async Task HearAsync(CancellationToken cancellationToken)
    {
        using var deadline = new CancellationTokenSource(CallDeadline, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        try
        {
            node.Heard(await node.Link.ReportAsync(new ReportRequest(), linked.Token), time.GetUtcNow());
        }
#pragma warning disable CA1031 // whatever the link throws means the same: nothing was heard
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            node.Silent(time.GetUtcNow());
            LogSilent(node.Id, node.Failures, e.Message);
        }
        if (NodeService.Status(node) is var status && status != _nodeStatus)
        {
            _nodeStatus = status;
            feed.Publish(Change.Nodes);
        }
    }

    private RunObservation Observe(Deployment row, LaunchSpec spec)
    {
        if (node.IsUnreachable)
            return RunObservation.NodeUnreachable;
        if (node.Report is not { } report)
            return RunObservation.Unknown;
        if (node.Engine(row.RunId) is not { } engine)
            return report.Runtimes.Contains(spec.Runtime) ? RunObservation.Absent : RunObservation.Unknown;
        return engine.Phase switch
        {
            EnginePhase.Preparing => RunObservation.Preparing,
            EnginePhase.Loading => RunObservation.Loading,
            EnginePhase.Ready => RunObservation.Ready,
            EnginePhase.Stopping => RunObservation.Stopping,
            EnginePhase.Failed => RunObservation.Failed,
            _ => RunObservation.Unknown,
        };
    }

    /// <summary>Stores the next step of one deployment.</summary>
    /// <returns>The row as stored and what to ask of the node; null: the row was changed or deleted in between.</returns>
    private async Task<(Deployment Row, NodeAction Action)?> AdvanceAsync(Deployment seen, CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        var spec = LaunchSpec.FromJson(seen.Spec) ?? throw new InvalidDataException("its launch spec was written by a newer version");
        var observed = Observe(seen, spec);
        var step = DeploymentStateMachine.Next(
            new DeploymentState(seen.Wanted, seen.Status, seen.RunSeen, seen.ExpiresAt,
                spec.DurationSeconds is { } seconds ? TimeSpan.FromSeconds(seconds) : null),
            observed, now);
        await using var db = await database.OpenAsync(cancellationToken);
        var row = (Deployment)db.Entry(seen).CurrentValues.ToObject();
        db.Attach(row);
        Apply(row, step, observed == RunObservation.NodeUnreachable ? null : node.Engine(row.RunId), now);
        if (!db.ChangeTracker.HasChanges())
            return (row, step.Action);
        row.Version++;
        try
        {
            await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
            await db.SaveChangesAsync(cancellationToken);
            if (row.ReservedPort is null)
                await db.PublicNames.Where(name => name.DeploymentId == row.Id).ExecuteDeleteAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        catch (DbUpdateConcurrencyException)
        {
            node.Wake();
            return null;
        }
        if (row.Status != seen.Status || row.Detail != seen.Detail)
            feed.Publish(Change.Deployments(row.Id));
        if (row.Status != seen.Status)
        {
            LogStatus(row.Id, seen.Status, row.Status);
            if (row.Status == DeploymentStatus.Error)
                LogFailed(row.Id, row.LastError?.Split('\n')[0]);
        }
        return (row, step.Action);
    }

    private static void Apply(Deployment row, DeploymentStep step, Engine? engine, DateTimeOffset now)
    {
        var before = row.Status;
        (row.Wanted, row.Status, row.RunSeen, row.ExpiresAt) = (step.State.Wanted, step.State.Status, step.State.RunSeen, step.State.ExpiresAt);
        if (row.Status != before)
            row.StatusChangedAt = now;
        if (!row.Status.IsActive())
            row.ReservedPort = null;
        row.Detail = row.Status is DeploymentStatus.Starting or DeploymentStatus.Loading && engine is { Detail.Length: > 0 } ? engine.Detail : null;
        row.LastError = row.Status switch
        {
            DeploymentStatus.Error when engine is { Failure.Length: > 0 } => engine.Failure,
            DeploymentStatus.Error when step.Vanished => "The engine is gone from its node, and nobody told ModelHost to end it.",
            DeploymentStatus.Starting or DeploymentStatus.Loading or DeploymentStatus.Running or DeploymentStatus.Stopped => null,
            _ => row.LastError,
        };
        if (engine is null)
            return;
        row.EngineVersion = engine.EngineVersion.Length > 0 ? engine.EngineVersion : row.EngineVersion;
        row.ImageDigest = engine.ImageDigest.Length > 0 ? engine.ImageDigest : row.ImageDigest;
        if (engine.Metrics is { } metrics)
            Count(row, metrics);
    }

    /// <summary>Adds what the run's counters grew by since they were stored last; a counter that fell began anew.</summary>
    private static void Count(Deployment row, EngineMetrics metrics)
    {
        static long Grown(double now, double counted) => (long)(now >= counted ? now - counted : now);
        row.TotalPromptTokens += Grown(metrics.PromptTokens, row.CountedPromptTokens);
        row.TotalCompletionTokens += Grown(metrics.GenerationTokens, row.CountedCompletionTokens);
        row.TotalRequests += Grown(metrics.Requests, row.CountedRequests);
        (row.CountedPromptTokens, row.CountedCompletionTokens, row.CountedRequests) = (metrics.PromptTokens, metrics.GenerationTokens, metrics.Requests);
    }

    private async Task ActAsync(Deployment row, NodeAction action, CancellationToken cancellationToken)
    {
        if (action == NodeAction.None)
            return;
        using var deadline = new CancellationTokenSource(CallDeadline, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        try
        {
            if (action == NodeAction.Start)
            {
                var request = new StartRequest { DeploymentUid = row.Uid, RunId = row.RunId, LaunchSpec = row.Spec, LatestVersion = row.LatestVersion };
                request.Env.Add(vault.Open(row.EnvValues));
                await node.Link.StartAsync(request, linked.Token);
            }
            else
                await node.Link.StopAsync(new StopRequest { RunId = row.RunId }, linked.Token);
        }
#pragma warning disable CA1031 // one deployment that cannot be acted on must not hold up the others of its node
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            LogActionFailed(e, action, row.Id);
        }
    }

    [LoggerMessage(1201, LogLevel.Information, "Deployment {DeploymentId} went from {Before} to {Status}.")]
    private partial void LogStatus(int deploymentId, DeploymentStatus before, DeploymentStatus status);

    [LoggerMessage(1202, LogLevel.Error, "A pass over node {NodeId} failed ({Failures} in a row).")]
    private partial void LogPassFailed(Exception exception, int nodeId, int failures);

    [LoggerMessage(1206, LogLevel.Warning, "Deployment {DeploymentId} failed: {Reason}")]
    private partial void LogFailed(int deploymentId, string? reason);

    [LoggerMessage(1205, LogLevel.Error, "Deployment {DeploymentId} could not be brought on.")]
    private partial void LogRowFailed(Exception exception, int deploymentId);

    [LoggerMessage(1203, LogLevel.Warning, "Node {NodeId} did not answer ({Failures} in a row): {Reason}")]
    private partial void LogSilent(int nodeId, int failures, string reason);

    [LoggerMessage(1204, LogLevel.Warning, "{Action} of deployment {DeploymentId} did not reach its node; it is asked again.")]
    private partial void LogActionFailed(Exception exception, NodeAction action, int deploymentId);
}
