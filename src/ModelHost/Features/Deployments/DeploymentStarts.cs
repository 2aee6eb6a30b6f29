using System.Text.Json;
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

/// <summary>Begins deployments: checks, reserves and stores the wish.</summary>
internal sealed partial class DeploymentStarts(
    Database database, NodeRegistry nodes, EnvironmentVault vault, ReleaseService releases, RouteSource routes, DeploymentReads reads,
    TimeProvider time, ILogger<DeploymentStarts> logger)
{
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
            return stored.Match<Result<DeploymentRead>>(made => reads.Read(made), failure => failure);
        }
        catch (DbUpdateException e) when (Database.IsDuplicate(e))
        {
            return DeploymentFailures.JustTaken();
        }
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
        if (report.GpuError.Length > 0)
            return DeploymentFailures.GpusUnknown(node.Hostname, report.GpuError);
        var declared = active.SelectMany(spec => spec.GpuIds.Select(id => (id, spec.GpuMemoryFraction)))
            .GroupBy(use => use.id).ToDictionary(group => group.Key, group => group.Sum(use => use.GpuMemoryFraction));
        var gpus = report.Gpus.Select(gpu => new GpuCapacity(
            gpu.Index, gpu.HasMemoryTotalBytes ? gpu.MemoryTotalBytes : null, gpu.HasMemoryUsedBytes ? gpu.MemoryUsedBytes : null,
            declared.GetValueOrDefault(gpu.Index))).ToArray();
        return Placement.Choose(gpus, new PlacementRequest(
            request.GpuMemoryFraction!.Value, request.GpuIds, request.TensorParallelSize, request.SkipResourceCheck));
    }

    [LoggerMessage(1001, LogLevel.Information, "Deployment {DeploymentId} ({DeploymentUid}) is wanted on node {Hostname}.")]
    private partial void LogCreated(int deploymentId, string deploymentUid, string hostname);
}
