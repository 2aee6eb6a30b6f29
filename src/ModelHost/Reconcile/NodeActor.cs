using Microsoft.EntityFrameworkCore;
using ModelHost.Access;
using ModelHost.Core.Deployments;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Features.Usage;
using ModelHost.Gateway;
using ModelHost.Protocol;

namespace ModelHost.Reconcile;

/// <summary>
/// Keeps one node as it is wanted: takes what it said last, compares, stores what is observed, asks for what is missing, and does it again. A
/// missed event costs one period; a lost answer is asked for again.
/// </summary>
internal sealed partial class NodeActor(
    NodeHandle node, Database database, EnvironmentVault vault, LifecyclePolicySource policies, RouteSource routes, ChangeFeed feed, LiveSettings settings, NodeAccess access,
    NodeUsage usage, TimeProvider time, Random random, ILogger<NodeActor> logger)
{
    private readonly Adoption _adoption = new(node, database, vault, time, logger);

    private static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan CallDeadline = TimeSpan.FromSeconds(10);
    private const int MaxBackOffSeconds = 30;

    private static readonly TimeSpan DrainPeriod = TimeSpan.FromSeconds(1);

    private string _nodeStatus = NodeService.Status(null, default);
    private bool _isDraining;

    /// <summary>
    /// Has the names of its models known before it is heard. A node may take its time to answer, or not answer at all: until then its models are not here yet, which is
    /// not the same as unknown.
    /// </summary>
    public async Task AnnounceAsync(CancellationToken cancellationToken)
    {
        var stored = await UnsettledAsync(cancellationToken);
        routes.Announce(node.Id, [.. stored.Where(IsRoute).Select(row => row.ToRoute(null))]);
    }

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        var hearing = new NodeWatch(node, settings, time, random, logger).RunAsync(cancellationToken);
        try
        {
            await PassForeverAsync(cancellationToken);
        }
        finally
        {
            await hearing;
        }
    }

    private async Task PassForeverAsync(CancellationToken cancellationToken)
    {
        var failures = 0;
        // all nodes are looked at when the control plane starts, and from then on not all at the same moment
        var share = random.NextDouble();
        while (!cancellationToken.IsCancellationRequested)
        {
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            var adjusted = settings.ChangedAsync(waiting.Token);
            var rekeyed = access.ChangedAsync(waiting.Token);
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
            node.Passed();
            await Task.WhenAny(adjusted, rekeyed, node.WokenAsync(waiting.Token), Task.Delay(UntilBeat(Pause(failures) * share), time, waiting.Token));
            share = 1;
            await waiting.CancelAsync();
            // a pull reports many times a second
            await Task.Delay(Spacing, time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private TimeSpan Pause(int failures)
    {
        var now = settings.Current;
        // one pass looks at the node and its deployments, and finds what has expired: the shortest of the intervals serves all
        var seconds = Math.Min(Math.Min(now.NodesSyncIntervalSeconds, now.DeploymentsSyncIntervalSeconds), now.ExpiryCheckIntervalSeconds);
        return failures == 0 && _isDraining ? DrainPeriod
            : TimeSpan.FromSeconds(Math.Max(seconds, Math.Min(seconds << Math.Min(failures, 4), MaxBackOffSeconds)));
    }

    /// <summary>A pause that ends with the moment from which a heartbeat is missed: that the node is degraded is told then.</summary>
    private TimeSpan UntilBeat(TimeSpan pause) =>
        node.BeatDueBy - time.GetUtcNow() is { } left && left > TimeSpan.Zero && left < pause ? left + Spacing : pause;

    private async Task PassAsync(CancellationToken cancellationToken)
    {
        _isDraining = false;
        await TellAccessAsync(cancellationToken);
        await TellOfNodeAsync(cancellationToken);
        var mark = routes.Mark();
        var lastCounts = node.LastCounts.ToDictionary();
        var rows = await UnsettledAsync(cancellationToken);
        var (superseded, adopted) = await _adoption.SortAsync(Unaccounted(rows), cancellationToken);
        if (adopted)
        {
            rows = await UnsettledAsync(cancellationToken);
            feed.Publish(Change.Deployments([.. rows.Select(row => row.Id)]));
        }
        var settled = rows.Where(IsSettled).ToArray();
        var steps = new List<Step>();
        foreach (var row in rows.Except(settled))
        {
            // what could not be stored goes on being served as it is: a full disk must not take a model away
            var step = new Step(row, NodeAction.None, row.RunId);
            try
            {
                step = await AdvanceAsync(row, superseded, mark, cancellationToken) ?? step;
            }
#pragma warning disable CA1031 // one row that cannot be read or written must not hold up the others of its node
            catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
            {
                LogRowFailed(e, row.Id);
                lastCounts.Remove(row.RunId); // not counted yet
            }
            steps.Add(step);
        }
        routes.Publish(node.Id, steps.Select(step => step.Row).Concat(settled).Where(IsRoute).Select(row => row.ToRoute(node.Engine(row.RunId))), mark);
        foreach (var step in steps)
            await ActAsync(step, cancellationToken);
        foreach (var run in superseded)
            await AskAsync(NodeAction.Stop, null, token => node.Link.StopAsync(new StopRequest { RunId = run }, token), cancellationToken);
        foreach (var last in lastCounts)
            node.Counted(last);
        // when what the node runs has its deployments
        if (node is { Failures: 0, Report.UsageWaiting: true })
            await AskAsync(NodeAction.None, null, token => usage.CollectAsync(node, token), cancellationToken);
    }

    /// <summary>A deployment as it is stored now, and what to ask about the run that was observed.</summary>
    private sealed record Step(Deployment Row, NodeAction Action, string RunId);

    /// <summary>The engines reported that are the current run of none of these.</summary>
    private Engine[] Unaccounted(List<Deployment> rows) =>
        node.Report?.Engines.ExceptBy(rows.Select(row => row.RunId), engine => engine.RunId).ToArray() ?? [];

    /// <summary>The deployments that have something left to do, all but those at rest of whose run the node says nothing; and those that requests start.</summary>
    private async Task<List<Deployment>> UnsettledAsync(CancellationToken cancellationToken)
    {
        var reported = node.LastReport?.Engines.Select(engine => engine.RunId).ToArray() ?? [];
        await using var db = await database.OpenAsync(cancellationToken);
        return await db.Deployments.AsNoTracking().Where(d => d.NodeId == node.Id
            && (d.ReservedPort != null || d.StartOnDemand || d.Wanted == WantedState.Running
                || (d.Wanted == WantedState.Stopped && d.Status != DeploymentStatus.Stopped)
                || (d.Wanted == WantedState.Expired && d.Status != DeploymentStatus.Expired)
                || EF.Constant(reported).Contains(d.RunId))).ToListAsync(cancellationToken);
    }

    private bool IsSettled(Deployment row) => row is { StartOnDemand: true, ReservedPort: null } && node.LastReport?.Engines.Any(engine => engine.RunId == row.RunId) != true
        && (row.Wanted, row.Status) is (WantedState.Stopped, DeploymentStatus.Stopped) or (WantedState.Expired, DeploymentStatus.Expired) or (WantedState.Failed, _);

    private static bool IsRoute(Deployment row) => (row.Status.IsActive() || row.StartOnDemand) && !row.NamesTaken;

    /// <summary>Tells the node who may ask its engines directly, whenever it says that it knows something else: it was cut off, is new, or has lost it.</summary>
    private async Task TellAccessAsync(CancellationToken cancellationToken)
    {
        var current = access.Current;
        if (node.Failures == 0 && node.Report is { HasAccessVersion: true } report && report.AccessVersion != current.Version)
            await AskAsync(NodeAction.None, null, token => node.Link.AccessAsync(current, token), cancellationToken);
    }

    private async Task TellOfNodeAsync(CancellationToken cancellationToken)
    {
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            if (await db.Nodes.Where(n => n.Id == node.Id).Select(n => n.Cordoned).FirstOrDefaultAsync(cancellationToken) is { } cordoned)
                node.Cordon = Cordon.Parse(cordoned);
        }
        if (NodeService.Status(node, time.GetUtcNow()) is var status && status != _nodeStatus)
        {
            _nodeStatus = status;
            feed.Publish(Change.Nodes);
        }
    }

    private RunObservation Observe(Deployment row, LaunchSpec spec, HashSet<string> superseded)
    {
        if (node.IsUnreachable)
            return RunObservation.NodeUnreachable;
        if (node.Report is not { } report)
            return RunObservation.Unknown;
        if (node.Engine(row.RunId) is not { } engine)
        {
            return report.Engines.Any(other => other.DeploymentUid == row.Uid && superseded.Contains(other.RunId)) ? RunObservation.Clearing
                : report.Runtimes.Contains(spec.Runtime) ? RunObservation.Absent : RunObservation.Unknown;
        }
        return engine.Phase switch
        {
            EnginePhase.Preparing => RunObservation.Preparing,
            EnginePhase.Loading => RunObservation.Loading,
            EnginePhase.Ready => RunObservation.Ready,
            EnginePhase.Stopping => RunObservation.Stopping,
            EnginePhase.Failed => engine.FailureIsFinal ? RunObservation.Refused : RunObservation.Failed,
            EnginePhase.Expired => RunObservation.Expired,
            _ => RunObservation.Unknown,
        };
    }

    /// <summary>Stores the next step of one deployment.</summary>
    /// <returns>The row as stored and what to ask of the node; null: the row was changed or deleted in between.</returns>
    private async Task<Step?> AdvanceAsync(Deployment seen, HashSet<string> superseded, long mark, CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        await using var db = await database.OpenAsync(cancellationToken);
        var row = (Deployment)db.Entry(seen).CurrentValues.ToObject();
        db.Attach(row);
        var engine = node.IsUnreachable ? null : node.Engine(row.RunId);
        TakeLease(row, engine);
        var spec = LaunchSpec.FromJson(row.Spec) ?? throw new InvalidDataException("its launch spec was written by a newer version");
        var policy = policies.For(spec);
        var state = new DeploymentState(row.Wanted, row.Status, row.RunSeen, row.ExpiresAt, spec.DurationSeconds is { } seconds ? TimeSpan.FromSeconds(seconds) : null)
        {
            BeginsAt = row.BeginsAt,
            ReadyAt = row.ReadyAt,
            FailedStarts = row.FailedStarts,
            WarnedOf = row.WarnedOf,
        };
        var observed = Observe(row, spec, superseded);
        if (observed == RunObservation.Absent && row is { Wanted: WantedState.Running, RunSeen: false } && vault.Open(row.EnvValues) is null)
            (observed, engine) = (RunObservation.Refused, Unstartable(row));
        var readyAt = engine is { HasReadyAt: true } ? Run.FromSeconds(engine.ReadyAt) : (DateTimeOffset?)null;
        var step = DeploymentStateMachine.Next(state, new Observed(observed, now, readyAt, random.NextDouble()), policy);
        RunBook.Apply(row, step, engine, engine?.Metrics ?? node.LastCounts.GetValueOrDefault(row.RunId), policy, now);
        var result = new Step(row, step.Action, seen.RunId);
        if (!db.ChangeTracker.HasChanges() && row.Conflict is null)
            return result;
        // whoever reads that it runs may ask it something at once
        if (row is { Status: DeploymentStatus.Running, NamesTaken: false } && seen.Status != DeploymentStatus.Running)
            routes.Replace(node.Id, row.ToRoute(engine), mark);
        try
        {
            await StoreAsync(db, seen, row, spec, step, engine, now, cancellationToken);
        }
        catch (DbUpdateConcurrencyException)
        {
            node.Wake();
            return null;
        }
        Tell(seen, row, step, now);
        return result;
    }

    /// <summary>A run that cannot begin, in the words of a node: without its variables it would be another one, at every try.</summary>
    private static Engine Unstartable(Deployment row) => new()
    {
        DeploymentUid = row.Uid,
        RunId = row.RunId,
        Phase = EnginePhase.Failed,
        FailureIsFinal = true,
        FailureCode = "variables_unreadable",
        Failure = DeploymentFailures.VariablesGone,
    };

    private async Task StoreAsync(
        ModelHostDbContext db, Deployment seen, Deployment row, LaunchSpec spec, DeploymentStep step, Engine? engine, DateTimeOffset now,
        CancellationToken cancellationToken)
    {
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        if (row.Conflict is not null)
            await DeploymentClaims.ClaimAsync(db, row, spec, cancellationToken); // whoever held it may be gone
        await RunBook.NoteAsync(db, seen, row, step, engine, now, cancellationToken);
        if (!db.ChangeTracker.HasChanges())
            return;
        row.Version++;
        await db.SaveChangesAsync(cancellationToken);
        if (!row.Status.IsActive())
            await db.PublicNames.Where(name => name.DeploymentId == row.Id).ExecuteDeleteAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    /// <summary>The node may know of a later lease than the database, after an older copy of that was put back.</summary>
    private static void TakeLease(Deployment row, Engine? engine)
    {
        if (row.Wanted != WantedState.Running || engine is null || Lease.FromJson(engine.Lease) is not { } lease || lease.Version < row.LeaseVersion)
            return;
        if (lease.Version > row.LeaseVersion && LaunchSpec.FromJson(engine.LaunchSpec) is { } spec)
        {
            row.Spec = (spec with { DurationSeconds = lease.DurationSeconds, DeploymentId = row.Id }).ToJson();
            (row.LeaseVersion, row.ExpiresAt, row.StartOnDemand) = (lease.Version, lease.ExpiresAt, spec.StartOnDemand);
        }
        else if (engine.Phase == EnginePhase.Expired)
            row.ExpiresAt ??= lease.ExpiresAt; // counted by the node while nobody was there
    }

    private void Tell(Deployment seen, Deployment row, DeploymentStep step, DateTimeOffset now)
    {
        if (IsAnother(seen, row))
            feed.Publish(Change.Deployments(row.Id));
        if (row.Status != seen.Status)
            LogStatus(row.Id, seen.Status, row.Status);
        if (row.Status == DeploymentStatus.Error && seen.Status != DeploymentStatus.Error)
            LogFailed(row.Id, row.ErrorCode, row.LastError?.Split('\n')[0]);
        else if (step.NewRun)
            LogAgain(row.Id, row.ErrorCode, row.FailedStarts, row.BeginsAt);
        if (step.Warn)
            LogExpiring(row.Id, row.ExpiresAt, Math.Max(1, (int)(row.ExpiresAt!.Value - now).TotalMinutes));
    }

    private async Task ActAsync(Step step, CancellationToken cancellationToken)
    {
        var row = step.Row;
        if (step.Action == NodeAction.Start)
        {
            await AskAsync(step.Action, row.Id, async token =>
            {
                var request = new StartRequest
                {
                    DeploymentUid = row.Uid,
                    RunId = step.RunId,
                    LaunchSpec = row.Spec,
                    LatestVersion = row.LatestVersion,
                    Lease = row.ReadLease().ToJson(),
                };
                request.Env.Add(vault.Open(row.EnvValues) ?? throw new InvalidOperationException(DeploymentFailures.VariablesGone));
                await node.Link.StartAsync(request, token);
            }, cancellationToken);
        }
        else if (step.Action == NodeAction.Stop && IsWaitedFor(row, node.Engine(step.RunId)))
        {
            _isDraining = true;
            if (IsOpenDirectly(node.Engine(step.RunId)))
            {
                var request = new UpdateRequest { RunId = step.RunId, LaunchSpec = row.Spec, Lease = row.ReadLease().ToJson(), Draining = true };
                await AskAsync(step.Action, row.Id, token => node.Link.UpdateAsync(request, token), cancellationToken);
            }
        }
        else if (step.Action == NodeAction.Stop)
            await AskAsync(step.Action, row.Id, token => node.Link.StopAsync(new StopRequest { RunId = step.RunId }, token), cancellationToken);
        else if (row.Wanted == WantedState.Running && node is { IsUnreachable: false } && node.Engine(row.RunId) is { } engine && IsOutdated(row, engine))
        {
            var request = new UpdateRequest { RunId = row.RunId, LaunchSpec = row.Spec, Lease = row.ReadLease().ToJson() };
            await AskAsync(step.Action, row.Id, token => node.Link.UpdateAsync(request, token), cancellationToken);
        }
    }

    /// <summary>Whether an engine is to end when it has answered what is under way; its route is out of the table, so that nothing is added.</summary>
    private bool IsWaitedFor(Deployment row, Engine? engine) =>
        engine is { Phase: EnginePhase.Ready } && DeploymentDrains.Detail(row, time.GetUtcNow()) is not null
        && (routes.UnderWay(row.Uid, engine) > 0 || IsOpenDirectly(engine) || engine.Metrics is { } metrics && metrics.RequestsRunning + metrics.RequestsWaiting > 0);

    /// <summary>Whether its public port takes new requests, as far as the node has said.</summary>
    private static bool IsOpenDirectly(Engine? engine) => engine is { HasDirectRequests: true, Draining: false };

    /// <summary>Whether the node has yet to acknowledge what is stored.</summary>
    private static bool IsOutdated(Deployment row, Engine engine) =>
        engine.Phase is EnginePhase.Preparing or EnginePhase.Loading or EnginePhase.Ready
        && (engine.LaunchSpec != row.Spec || !(Lease.FromJson(engine.Lease)?.Version >= row.LeaseVersion));

    private async Task AskAsync(NodeAction action, int? deploymentId, Func<CancellationToken, Task> ask, CancellationToken cancellationToken)
    {
        using var deadline = new CancellationTokenSource(CallDeadline, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        try
        {
            await ask(linked.Token);
        }
#pragma warning disable CA1031 // one deployment that cannot be acted on must not hold up the others of its node
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            if (deploymentId is null)
                LogCallFailed(e, node.Id);
            else
                LogActionFailed(e, action, deploymentId);
        }
    }

    /// <summary>Whether more has changed than figures.</summary>
    private static bool IsAnother(Deployment before, Deployment row) =>
        (before.Status, before.Detail, before.LastError, before.RunId, before.Spec, before.ExpiresAt, before.EngineVersion, before.ImageDigest)
        != (row.Status, row.Detail, row.LastError, row.RunId, row.Spec, row.ExpiresAt, row.EngineVersion, row.ImageDigest);

    [LoggerMessage(1201, LogLevel.Information, "Deployment {DeploymentId} went from {Before} to {Status}.")]
    private partial void LogStatus(int deploymentId, DeploymentStatus before, DeploymentStatus status);

    [LoggerMessage(1202, LogLevel.Error, "A pass over node {NodeId} failed ({Failures} in a row).")]
    private partial void LogPassFailed(Exception exception, int nodeId, int failures);

    [LoggerMessage(1206, LogLevel.Warning, "Deployment {DeploymentId} failed ({ErrorCode}): {Reason}")]
    private partial void LogFailed(int deploymentId, string? errorCode, string? reason);

    [LoggerMessage(1207, LogLevel.Warning, "A run of deployment {DeploymentId} ended ({ErrorCode}); after {FailedStarts} failed starts in a row the next begins at {BeginsAt}.")]
    private partial void LogAgain(int deploymentId, string? errorCode, int failedStarts, DateTimeOffset? beginsAt);

    [LoggerMessage(1210, LogLevel.Warning, "The lease of deployment {DeploymentId} ends at {ExpiresAt}, in {Minutes} min.")]
    private partial void LogExpiring(int deploymentId, DateTimeOffset? expiresAt, int minutes);

    [LoggerMessage(1205, LogLevel.Error, "Deployment {DeploymentId} could not be brought on.")]
    private partial void LogRowFailed(Exception exception, int deploymentId);

    [LoggerMessage(1212, LogLevel.Warning, "A call to node {NodeId} failed; it is made again.")]
    private partial void LogCallFailed(Exception exception, int nodeId);

    [LoggerMessage(1204, LogLevel.Warning, "{Action} of deployment {DeploymentId} did not reach its node; it is asked again.")]
    private partial void LogActionFailed(Exception exception, NodeAction action, int? deploymentId);
}
