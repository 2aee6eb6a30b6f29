using System.Text.Json;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Features.Releases;
using ModelHost.Gateway;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>What can be asked of deployments. It writes what is wanted; reconciliation does the rest.</summary>
internal sealed partial class DeploymentService(
    Database database, NodeRegistry nodes, EnvironmentVault vault, ReleaseService releases, RouteSource routes, TimeProvider time, ILogger<DeploymentService> logger)
{
    private const int Attempts = 5;

    /// <summary>All deployments, newest first, with what their engines say now.</summary>
    public async Task<IReadOnlyList<DeploymentRead>> ListAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Deployments.AsNoTracking().OrderByDescending(d => d.Id).ToListAsync(cancellationToken);
        return [.. rows.Select(Read)];
    }

    /// <summary>One deployment.</summary>
    public async Task<Result<DeploymentRead>> FindAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken) is { } row
            ? Read(row) : DeploymentFailures.NotFound(id);
    }

    /// <summary>
    /// Checks what can be checked at once, reserves port and names, and stores the wish. The pull and the start go on in the background
    /// and survive a restart.
    /// </summary>
    public async Task<Result<DeploymentRead>> StartAsync(DeploymentStart request, CancellationToken cancellationToken)
    {
        if (!DeploymentRules.Check(request).TryGet(out var recipe, out var fault))
            return fault;
        await using var db = await database.OpenAsync(cancellationToken);
        var node = await db.Nodes.AsNoTracking().FirstOrDefaultAsync(n => n.Id == request.NodeId, cancellationToken);
        if (node is null)
            return DeploymentFailures.NodeNotFound(request.NodeId!.Value);
        if (nodes.Find(node.Id)?.Report is not { } report)
            return DeploymentFailures.NodeSilent(node.Hostname);
        if (recipe.Runtimes.FirstOrDefault(report.Runtimes.Contains) is not { } runtime)
            return DeploymentFailures.NoRuntime(node.Hostname, recipe.Name, recipe.Runtimes, report.Runtimes);
        var latest = string.IsNullOrEmpty(request.VllmVersion) && recipe.Image.Length > 0 ? await releases.LatestAsync(cancellationToken) : "";

        try
        {
            var stored = await StoreAsync(db, request, recipe, runtime, node, report, latest, cancellationToken);
            if (stored.TryGet(out var row, out _))
            {
                LogCreated(row.Id, row.Uid, node.Hostname);
                routes.Announce(node.Id, row.ToRoute(null));
                nodes.Wake(node.Id);
            }
            return stored.Match<Result<DeploymentRead>>(made => Read(made), failure => failure);
        }
        catch (DbUpdateException e) when (Database.IsDuplicate(e))
        {
            return DeploymentFailures.JustTaken();
        }
    }

    /// <summary>Asks for the end of a deployment's run. Asking again is harmless.</summary>
    public async Task<Result<DeploymentRead>> StopAsync(int id, CancellationToken cancellationToken)
    {
        for (var attempt = 0; attempt < Attempts; attempt++)
        {
            await using var db = await database.OpenAsync(cancellationToken);
            if (await db.Deployments.FirstOrDefaultAsync(d => d.Id == id, cancellationToken) is not { } row)
                return DeploymentFailures.NotFound(id);
            if (row.Wanted is WantedState.Stopped or WantedState.Expired && !row.Status.IsActive())
                return Read(row);
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
                return Read(row);
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

    /// <summary>The last lines of the log of the latest run.</summary>
    public async Task<Result<DeploymentLogs>> LogsAsync(int id, int tail, CancellationToken cancellationToken)
    {
        Deployment? row;
        await using (var db = await database.OpenAsync(cancellationToken))
            row = await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken);
        if (row is null)
            return DeploymentFailures.NotFound(id);
        if (nodes.Find(row.NodeId) is not { } node)
            return DeploymentFailures.NodeSilent($"{row.NodeId}");
        var reply = await node.Link.LogsAsync(
            new LogsRequest { DeploymentUid = row.Uid, RunId = row.RunId, Tail = Math.Clamp(tail, 1, 2000) }, cancellationToken);
        var spec = row.ReadSpec();
        return new DeploymentLogs($"{spec.ModelName}:{spec.Port}", reply.Lines);
    }

    private async Task<Result<Deployment>> StoreAsync(
        ModelHostDbContext db, DeploymentStart request, BackendRecipe recipe, string runtime, Node node, NodeReport report, string latest,
        CancellationToken cancellationToken)
    {
        // the write lock is taken here, so that two starts cannot both find the same room
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var active = await db.Deployments.AsNoTracking().Where(d => d.ReservedPort != null && d.NodeId == node.Id).ToListAsync(cancellationToken);
        var specs = active.Select(d => (d.Id, Spec: d.ReadSpec())).ToArray();
        var port = request.Port!.Value;
        if (specs.FirstOrDefault(d => d.Spec.Port == port) is { Spec: not null } holder)
            return DeploymentFailures.PortTaken(port, node.Hostname, holder.Id, holder.Spec.ModelName);
        var placed = Place(request, node, report, specs.Select(d => d.Spec));
        if (!placed.TryGet(out var gpus, out var refusal))
            return refusal;
        var variables = (request.EnvVars ?? []).GroupBy(v => v.Key!).ToDictionary(g => g.Key, g => g.Last().Value!);
        var spec = new LaunchSpec
        {
            Backend = recipe.Name,
            Runtime = runtime,
            ModelName = request.ModelName!,
            Port = port,
            GpuMemoryFraction = request.GpuMemoryFraction!.Value,
            GpuIds = gpus,
            TensorParallelSize = request.TensorParallelSize,
            ExtraArgs = request.ExtraArgs ?? [],
            EnvVarKeys = [.. variables.Keys],
            EngineVersion = request.VllmVersion is { Length: > 0 } version ? version : null,
            EngineArgs = request.EngineArgs ?? new Dictionary<string, JsonElement>(),
            LoraModules = request.LoraModules ?? [],
            MaxFailedRestarts = request.MaxFailedRestarts,
            Owner = request.Owner!,
            DurationSeconds = request.DurationSeconds,
            Pinned = request.Pinned,
        };
        var names = spec.LoraModules.Select(module => module.Name).Append(spec.PublicName).ToArray();
        if (names.Distinct().Count() != names.Length)
            return Failure.Invalid("lora_modules", "an adapter has the public name of the model");
        var taken = await db.PublicNames.Where(n => names.Contains(n.Name)).OrderBy(n => n.Name).FirstOrDefaultAsync(cancellationToken);
        if (taken is not null)
        {
            var owner = await db.Deployments.AsNoTracking().FirstAsync(d => d.Id == taken.DeploymentId, cancellationToken);
            return DeploymentFailures.NameTaken(taken.Name, owner.Id, owner.ReadSpec().ModelName);
        }

        var now = time.GetUtcNow();
        var row = new Deployment
        {
            Uid = Guid.NewGuid().ToString(),
            NodeId = node.Id,
            Spec = spec.ToJson(),
            EnvValues = vault.Seal(variables),
            LatestVersion = latest,
            Wanted = WantedState.Running,
            Status = DeploymentStatus.Starting,
            RunId = Guid.NewGuid().ToString("N"),
            ReservedPort = port,
            CreatedAt = now,
            StatusChangedAt = now,
        };
        db.Deployments.Add(row);
        await db.SaveChangesAsync(cancellationToken);
        row.Spec = (spec with { DeploymentId = row.Id }).ToJson();
        db.PublicNames.AddRange(names.Select(name => new PublicName { Name = name, DeploymentId = row.Id }));
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return row;
    }

    private static Result<IReadOnlyList<int>> Place(DeploymentStart request, Node node, NodeReport report, IEnumerable<LaunchSpec> active)
    {
        // of a list that is not whole, GPUs whose figures are current may be used
        if (report.GpuError.Length > 0 && report.Gpus.All(gpu => gpu.Stale.Length > 0))
            return DeploymentFailures.GpusUnknown(node.Hostname, report.GpuError);
        var declared = active.SelectMany(spec => spec.GpuIds.Select(id => (id, spec.GpuMemoryFraction)))
            .GroupBy(use => use.id).ToDictionary(group => group.Key, group => group.Sum(use => use.GpuMemoryFraction));
        var gpus = report.Gpus.Select(gpu => new GpuCapacity(
            gpu.Index, gpu.HasMemoryTotalBytes ? gpu.MemoryTotalBytes : null, gpu.HasMemoryUsedBytes ? gpu.MemoryUsedBytes : null,
            declared.GetValueOrDefault(gpu.Index))
        {
            Stale = gpu.Stale.Length > 0 ? gpu.Stale : null,
            Split = gpu.MigEnabled,
            Unified = gpu.Source == "unified",
        }).ToArray();
        return Placement.Choose(gpus, new PlacementRequest(
            request.GpuMemoryFraction!.Value, request.GpuIds, request.TensorParallelSize, request.SkipResourceCheck));
    }

    private DeploymentRead Read(Deployment row)
    {
        var spec = row.ReadSpec();
        var engine = nodes.Find(row.NodeId)?.Engine(row.RunId);
        var metrics = row.Status == DeploymentStatus.Running ? engine?.Metrics : null;
        var pull = row.Status is DeploymentStatus.Starting ? engine : null;
        return new DeploymentRead
        {
            Id = row.Id,
            NodeId = row.NodeId,
            ModelName = spec.ModelName,
            Port = spec.Port,
            GpuMemoryFraction = spec.GpuMemoryFraction,
            GpuIds = spec.GpuIds,
            TensorParallelSize = spec.TensorParallelSize,
            ExtraArgs = spec.ExtraArgs,
            EnvVars = [.. spec.EnvVarKeys.Select(key => new EnvironmentVariable { Key = key, Value = EnvironmentVariable.Mask })],
            VllmVersion = row.EngineVersion is { Length: > 0 } ? row.EngineVersion : spec.EngineVersion,
            EngineArgs = spec.EngineArgs,
            LoraModules = spec.LoraModules,
            MaxFailedRestarts = spec.MaxFailedRestarts,
            Owner = spec.Owner,
            DurationSeconds = spec.DurationSeconds,
            Pinned = spec.Pinned,
            Backend = spec.Backend,
            ContainerRuntime = spec.Runtime,
            Status = row.Status.ToWire(),
            // of the same moment as the progress beside it
            Detail = row.Status is DeploymentStatus.Starting or DeploymentStatus.Loading && engine is { Detail.Length: > 0 } ? engine.Detail : row.Detail,
            LastError = row.LastError,
            ExpiresAt = row.ExpiresAt,
            CreatedAt = row.CreatedAt,
            StatusChangedAt = row.StatusChangedAt,
            ImageDigest = row.ImageDigest,
            TotalPromptTokens = row.TotalPromptTokens,
            TotalCompletionTokens = row.TotalCompletionTokens,
            TotalRequests = row.TotalRequests,
            PromptTps = metrics is { HasPromptTps: true } ? metrics.PromptTps : null,
            GenerationTps = metrics is { HasGenerationTps: true } ? metrics.GenerationTps : null,
            PromptThroughput = metrics is { HasPromptThroughput: true } ? metrics.PromptThroughput : null,
            GenerationThroughput = metrics is { HasGenerationThroughput: true } ? metrics.GenerationThroughput : null,
            RequestsRunning = metrics is { HasRequestsRunning: true } ? (int)metrics.RequestsRunning : null,
            RequestsWaiting = metrics is { HasRequestsWaiting: true } ? (int)metrics.RequestsWaiting : null,
            PullPercent = pull is { HasPullPercent: true } ? pull.PullPercent : null,
            PullDownloadedMb = pull is { HasPullDoneBytes: true } ? pull.PullDoneBytes / 1_000_000 : null,
            PullTotalMb = pull is { HasPullTotalBytes: true } ? pull.PullTotalBytes / 1_000_000 : null,
            PullLayersDone = pull is { HasPullLayersDone: true } ? pull.PullLayersDone : null,
            PullLayers = pull is { HasPullLayers: true } ? pull.PullLayers : null,
        };
    }

    [LoggerMessage(1001, LogLevel.Information, "Deployment {DeploymentId} ({DeploymentUid}) is wanted on node {Hostname}.")]
    private partial void LogCreated(int deploymentId, string deploymentUid, string hostname);

    [LoggerMessage(1002, LogLevel.Information, "Deployment {DeploymentId} is no longer wanted.")]
    private partial void LogStopped(int deploymentId);

    [LoggerMessage(1003, LogLevel.Information, "Deployment {DeploymentId} was deleted.")]
    private partial void LogDeleted(int deploymentId);
}

/// <summary>Seals the values of environment variables for storage.</summary>
internal sealed class EnvironmentVault(IDataProtectionProvider protection)
{
    private readonly IDataProtector _protector = protection.CreateProtector("ModelHost.Deployments.EnvValues.v1");

    /// <summary>The values, encrypted; null when there are none.</summary>
    public string? Seal(Dictionary<string, string> values) => values.Count == 0 ? null : _protector.Protect(JsonSerializer.Serialize(values));

    /// <summary>The values back.</summary>
    public Dictionary<string, string> Open(string? secret) =>
        secret is null ? [] : JsonSerializer.Deserialize<Dictionary<string, string>>(_protector.Unprotect(secret)) ?? [];
}
