using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Backends;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Features.Releases;
using ModelHost.Gateway;

namespace ModelHost.Features.Deployments;

/// <summary>Begins deployments: checks, reserves and stores the wish.</summary>
internal sealed partial class DeploymentStarts(
    Database database, NodeRegistry nodes, LaunchChecks checks, Idempotency idempotency, EnvironmentVault vault, ReleaseService releases,
    RouteSource routes, RunEnds ends, DeploymentReads reads, BackendRecipes recipes, ChangeFeed feed, TimeProvider time, ILogger<DeploymentStarts> logger)
{
    /// <summary>
    /// Checks what can be checked at once, reserves port and names, and stores the wish. The pull and the start go on in the background
    /// and survive a restart.
    /// </summary>
    public async Task<Result<DeploymentRead>> StartAsync(DeploymentStart request, IdempotencyClaim claim, CancellationToken cancellationToken)
    {
        if (!(await recipes.CheckAsync(request, cancellationToken)).TryGet(out var recipe, out var fault))
            return fault;
        var latest = await LatestAsync(recipe.Recipe, request.VllmVersion ?? recipe.Version, request.NodeId!.Value, cancellationToken);
        return await StoreOnceAsync(claim, db => StoreAsync(db, request, recipe, latest, cancellationToken), Launched, cancellationToken);
    }

    /// <summary>Stores a record that nothing is started for. It holds neither port nor names, but both must be free now.</summary>
    public async Task<Result<DeploymentRead>> RecordAsync(DeploymentCreate request, IdempotencyClaim claim, CancellationToken cancellationToken)
    {
        if (!(await recipes.CheckAsync(request, cancellationToken)).TryGet(out var recipe, out var fault))
            return fault;
        if (AtRest(request.Status) is not { } state)
            return Failure.Invalid("status", "is none of stopped, expired, error: a record starts nothing");
        return await StoreOnceAsync(claim, async db =>
        {
            if (await db.Nodes.AsNoTracking().FirstOrDefaultAsync(n => n.Id == request.NodeId, cancellationToken) is not { } node)
                return DeploymentFailures.NodeNotFound(request.NodeId!.Value);
            if (nodes.Find(node.Id)?.LastReport is { } report && LaunchChecks.Installed(recipe.Recipe, node.Id, node.Hostname, report) is { } absent)
                return absent;
            var spec = LaunchSpecs.From(request, recipe, recipe.Recipe.Runtimes[0]);
            var active = await LaunchChecks.ActiveAsync(db, node.Id, except: null, cancellationToken);
            if ((LaunchChecks.PortHeld(spec.Port, node, active) ?? await LaunchChecks.NameHeldAsync(db, spec, except: null, cancellationToken)) is { } held)
                return held;
            var row = Row(node, spec, request.Variables(), state.Wanted, state.Status);
            db.Deployments.Add(row);
            await db.SaveChangesAsync(cancellationToken);
            row.Spec = (spec with { DeploymentId = row.Id }).ToJson();
            return row;
        }, Recorded, cancellationToken);
    }

    /// <summary>Starts a deployment that ended again, on its node and as it was, with its variables; owner and lease are new.</summary>
    public async Task<Result<DeploymentRead>> RestartAsync(int id, DeploymentRestart request, IdempotencyClaim claim, CancellationToken cancellationToken)
    {
        if ((DeploymentRules.Unknown(request) ?? DeploymentRules.Owner(request.Owner)) is { } fault)
            return fault;
        return await StartAgainAsync(id, request, claim, cancellationToken);
    }

    /// <summary>Starts a deployment that rests because somebody asks for its model, if it may be started so: all is as it was, with owner and lease.</summary>
    public Task<Result<DeploymentRead>> StartOnDemandAsync(int id, CancellationToken cancellationToken) =>
        StartAgainAsync(id, request: null, IdempotencyClaim.None, cancellationToken);

    private async Task<Result<DeploymentRead>> StartAgainAsync(int id, DeploymentRestart? request, IdempotencyClaim claim, CancellationToken cancellationToken)
    {
        Deployment? known;
        await using (var db = await database.OpenAsync(cancellationToken))
            known = await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken);
        if (known is null)
            return DeploymentFailures.NotFound(id);
        var latest = Reread(known).TryGet(out var again, out _)
            ? await LatestAsync(again.Recipe, again.Spec.EngineVersion, known.NodeId, cancellationToken) : "";
        var before = "";
        var answer = await StoreOnceAsync(claim, async db =>
        {
            if (await db.Deployments.FirstOrDefaultAsync(d => d.Id == id, cancellationToken) is not { } row)
                return DeploymentFailures.NotFound(id);
            before = row.RunId;
            return await StoreAgainAsync(db, row, request, latest, cancellationToken);
        }, Launched, cancellationToken);
        // what is left of a run that failed: once the row names another one, nobody looks after it
        if (answer.Failure is null && nodes.Find(known.NodeId) is { } node && node.Engine(before) is not null)
            await ends.EndAsync(node, [before]);
        return answer;
    }

    /// <summary>Stores a deployment and its key in one transaction, or finds what was stored with the key before.</summary>
    private async Task<Result<DeploymentRead>> StoreOnceAsync(
        IdempotencyClaim claim, Func<ModelHostDbContext, Task<Result<Deployment>>> storeAsync, Action<Deployment> stored, CancellationToken cancellationToken)
    {
        try
        {
            await using var db = await database.OpenAsync(cancellationToken);
            // the write lock is taken here, so that two starts cannot both find the same room
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            if (await idempotency.FindAsync(db, claim, cancellationToken) is { } earlier)
                return earlier.Match<Result<DeploymentRead>>(made => reads.Read(made), failure => failure);
            if (!(await storeAsync(db)).TryGet(out var row, out var refusal))
                return refusal;
            if (await idempotency.AddAsync(db, claim, row.Uid, cancellationToken) is { } full)
                return full;
            await db.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            stored(row);
            return reads.Read(row);
        }
        catch (DbUpdateException e) when (Database.IsDuplicate(e))
        {
            return DeploymentFailures.JustTaken();
        }
    }

    private async Task<Result<Deployment>> StoreAsync(
        ModelHostDbContext db, DeploymentStart request, LaunchRecipe found, string latest, CancellationToken cancellationToken)
    {
        var recipe = found.Recipe;
        var spec = LaunchSpecs.From(request, found, recipe.Runtimes[0]);
        if (!(await checks.SiteAsync(db, request.NodeId!.Value, spec, recipe, preferred: null, cancellationToken)).TryGet(out var site, out var refusal))
            return refusal;
        spec = spec with { Runtime = site.Runtime };
        if (LaunchChecks.Unsupported(spec, recipe, latest) is { } unsupported)
            return unsupported;
        var wish = new PlacementRequest(spec.GpuMemoryFraction, request.GpuIds, request.TensorParallelSize, request.SkipResourceCheck);
        if (!(await ReserveAsync(db, site, spec, wish, except: null, cancellationToken)).TryGet(out var placed, out refusal))
            return refusal;
        var row = Row(site.Node, placed, request.Variables(), WantedState.Running, DeploymentStatus.Starting);
        (row.LatestVersion, row.ReservedPort) = (latest, spec.Port);
        db.Deployments.Add(row);
        await db.SaveChangesAsync(cancellationToken);
        row.Spec = (placed with { DeploymentId = row.Id }).ToJson();
        db.PublicNames.AddRange(LaunchChecks.Names(spec).Select(name => new PublicName { Name = name, DeploymentId = row.Id }));
        db.Runs.Add(Run.Of(row, row.CreatedAt));
        return row;
    }

    private async Task<Result<Deployment>> StoreAgainAsync(
        ModelHostDbContext db, Deployment row, DeploymentRestart? request, string latest, CancellationToken cancellationToken)
    {
        if (request is null && !row.StartOnDemand)
            return DeploymentFailures.NotOnDemand(row.Id);
        if (row.Status is not (DeploymentStatus.Stopped or DeploymentStatus.Expired or DeploymentStatus.Error))
            return DeploymentFailures.WrongStatus(
                row.Id, row.Status, "restarted", DeploymentStatus.Stopped, DeploymentStatus.Expired, DeploymentStatus.Error);
        if (!Reread(row).TryGet(out var again, out var refusal))
            return refusal;
        var (spec, recipe) = again;
        if (vault.Open(row.EnvValues) is not { } variables)
            return DeploymentFailures.VariablesUnreadable(row.Id);
        if (EngineRequestRules.Check(recipe, spec.EngineArgs, spec.ExtraArgs, variables) is { } denied)
            return denied;
        if (!(await checks.SiteAsync(db, row.NodeId, spec, recipe, spec.Runtime, cancellationToken)).TryGet(out var site, out refusal))
            return refusal;
        spec = spec with { DeploymentId = row.Id, Runtime = site.Runtime, StartOnDemand = row.StartOnDemand };
        if (request is not null)
            spec = spec with { Owner = request.Owner!, DurationSeconds = request.DurationSeconds };
        if (LaunchChecks.Unsupported(spec, recipe, latest) is { } unsupported)
            return unsupported;
        var wish = new PlacementRequest(spec.GpuMemoryFraction, spec.GpusChosen ? null : spec.GpuIds, spec.TensorParallelSize, SkipMemoryCheck: false);
        if (!(await ReserveAsync(db, site, spec, wish, except: row.Id, cancellationToken)).TryGet(out var placed, out refusal))
            return refusal;
        row.BeginRun(placed, latest, time.GetUtcNow());
        db.PublicNames.AddRange(LaunchChecks.Names(placed).Select(name => new PublicName { Name = name, DeploymentId = row.Id }));
        db.Runs.Add(Run.Of(row, row.StatusChangedAt));
        return row;
    }

    /// <summary>What a deployment was; the version of the engine that it ran with is part of that.</summary>
    private static Result<Relaunch> Reread(Deployment row) =>
        LaunchSpec.FromJson(row.Spec) is { } spec && BackendCatalogue.Of(spec) is { } recipe
            ? new Relaunch(spec with { EngineVersion = row.EngineVersion is { Length: > 0 } ran ? ran : spec.EngineVersion }, recipe)
            : DeploymentFailures.Unreadable(row.Id);

    private sealed record Relaunch(LaunchSpec Spec, BackendRecipe Recipe);

    /// <summary>Finds port and names free, and GPUs with room.</summary>
    /// <returns>The spec with its GPUs.</returns>
    private static async Task<Result<LaunchSpec>> ReserveAsync(
        ModelHostDbContext db, LaunchSite site, LaunchSpec spec, PlacementRequest wish, int? except, CancellationToken cancellationToken)
    {
        var active = await LaunchChecks.ActiveAsync(db, site.Node.Id, except, cancellationToken);
        if (LaunchChecks.PortHeld(spec.Port, site.Node, active) is { } held)
            return held;
        if (!LaunchChecks.Place(site, wish, active).TryGet(out var gpus, out var refusal))
            return refusal;
        if (await LaunchChecks.NameHeldAsync(db, spec, except, cancellationToken) is { } taken)
            return taken;
        return spec with { GpuIds = gpus, GpusChosen = wish.GpuIds is not { Count: > 0 } };
    }

    private Deployment Row(Node node, LaunchSpec spec, Dictionary<string, string> variables, WantedState wanted, DeploymentStatus status)
    {
        var now = time.GetUtcNow();
        return new Deployment
        {
            Uid = Guid.NewGuid().ToString(),
            NodeId = node.Id,
            Spec = spec.ToJson(),
            EnvValues = vault.Seal(variables),
            StartOnDemand = spec.StartOnDemand,
            Wanted = wanted,
            Status = status,
            RunId = Guid.NewGuid().ToString("N"),
            CreatedAt = now,
            StatusChangedAt = now,
        };
    }

    private static (WantedState Wanted, DeploymentStatus Status)? AtRest(string? status) => status switch
    {
        null or "stopped" => (WantedState.Stopped, DeploymentStatus.Stopped),
        "expired" => (WantedState.Expired, DeploymentStatus.Expired),
        "error" => (WantedState.Failed, DeploymentStatus.Error),
        _ => null,
    };

    // asked outside of the transaction, and not for a start that will be refused: the answer can take seconds
    private async Task<string> LatestAsync(BackendRecipe recipe, string? version, int nodeId, CancellationToken cancellationToken) =>
        string.IsNullOrEmpty(version) && recipe.Image.Length > 0 && nodes.Find(nodeId)?.Report is { } report && recipe.Runtimes.Any(report.Runtimes.Contains)
            ? await releases.LatestAsync(cancellationToken) : "";

    private void Launched(Deployment row)
    {
        LogCreated(row.Id, row.Uid, nodes.Find(row.NodeId)?.Report?.Hostname ?? $"{row.NodeId}");
        routes.Announce(row.NodeId, row.ToRoute(null));
        feed.Publish(Change.Deployments(row.Id));
        nodes.Wake(row.NodeId);
    }

    private void Recorded(Deployment row)
    {
        LogRecorded(row.Id, row.Uid);
        if (row.StartOnDemand)
        {
            routes.Announce(row.NodeId, row.ToRoute(null)); // it can be asked for
            nodes.Wake(row.NodeId);
        }
        feed.Publish(Change.Deployments(row.Id));
    }

    [LoggerMessage(1001, LogLevel.Information, "Deployment {DeploymentId} ({DeploymentUid}) is wanted on node {Hostname}.")]
    private partial void LogCreated(int deploymentId, string deploymentUid, string hostname);

    [LoggerMessage(1004, LogLevel.Information, "Deployment {DeploymentId} ({DeploymentUid}) was recorded; nothing is started for it.")]
    private partial void LogRecorded(int deploymentId, string deploymentUid);
}
