using System.Globalization;
using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>Deployments as the API shows them.</summary>
internal sealed class DeploymentReads(Database database, NodeRegistry nodes, TimeProvider time)
{
    private const int MaxName = 255;
    private static readonly TimeSpan LogPatience = TimeSpan.FromSeconds(10);

    /// <summary>The deployments that a query asks for, newest first, with what their engines say now.</summary>
    public async Task<Result<DeploymentPage>> ListAsync(DeploymentQuery query, CancellationToken cancellationToken)
    {
        var statuses = new List<DeploymentStatus>();
        foreach (var word in query.Status?.Where(word => word.Length > 0) ?? [])
        {
            if (DeploymentStatuses.FromWire(word) is not { } status)
                return Failure.Invalid("status", $"is none of {string.Join(", ", Enum.GetValues<DeploymentStatus>().Select(DeploymentStatuses.ToWire))}");
            statuses.Add(status);
        }
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = db.Deployments.AsNoTracking();
        if (statuses.Count > 0)
            rows = rows.Where(d => EF.Constant(statuses).Contains(d.Status));
        if (query.NodeId is { } node)
            rows = rows.Where(d => d.NodeId == node);
        if (query.BeforeId is { } before)
            rows = rows.Where(d => d.Id < before);
        var page = new List<DeploymentRead>();
        await foreach (var row in rows.OrderByDescending(d => d.Id).AsAsyncEnumerable().WithCancellation(cancellationToken))
        {
            var read = Read(row);
            // inside the stored spec, which is opaque to the database
            if (query.Owner is { Length: > 0 } owner && read.Owner != owner)
                continue;
            if (page.Count == query.Limit)
                return new DeploymentPage(page, page[^1].Id);
            page.Add(read);
        }
        return new DeploymentPage(page, null);
    }

    /// <summary>The uids of all deployments by their ids.</summary>
    public async Task<IReadOnlyDictionary<int, string>> UidsAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return await db.Deployments.Select(d => new { d.Id, d.Uid }).ToDictionaryAsync(d => d.Id, d => d.Uid, cancellationToken);
    }

    /// <summary>The deployments that are neither stopped nor expired, by id.</summary>
    public async Task<IReadOnlyList<ServingDeployment>> ServingAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Deployments.AsNoTracking().Where(d => d.Status != DeploymentStatus.Stopped && d.Status != DeploymentStatus.Expired)
            .OrderBy(d => d.Id).ToListAsync(cancellationToken);
        return rows.ConvertAll(row => new ServingDeployment(row.Id, row.Uid, row.NodeId, row.RunId, row.Status, row.ReadSpec()));
    }

    /// <summary>All deployments of a node, at rest or not, by id.</summary>
    public async Task<IReadOnlyList<RecordedDeployment>> OfNodeAsync(int nodeId, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Deployments.AsNoTracking().Where(d => d.NodeId == nodeId).OrderBy(d => d.Id).ToListAsync(cancellationToken);
        return rows.ConvertAll(row => new RecordedDeployment(row.Id, row.Status.IsActive(), row.EngineVersion, row.ReadSpec()));
    }

    /// <summary>One deployment.</summary>
    public async Task<Result<DeploymentRead>> FindAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken) is { } row
            ? Read(row) : DeploymentFailures.NotFound(id);
    }

    /// <summary>What decides how a deployment's engine is started; null: it is gone, or unreadable.</summary>
    public async Task<LaunchSpec?> FindSpecAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return LaunchSpec.FromJson(await db.Deployments.Where(d => d.Id == id).Select(d => d.Spec).FirstOrDefaultAsync(cancellationToken));
    }

    /// <summary>Whether a public name is free now, and a free one like it. A start checks again.</summary>
    public async Task<Result<NameCheck>> CheckNameAsync(string? name, int? exceptId, CancellationToken cancellationToken)
    {
        if (name is null)
            return Failure.Invalid("name", "is required");
        name = name.Trim();
        if (name.Length > MaxName)
            return Failure.Invalid("name", $"is longer than {MaxName} characters");
        if (name.Length == 0)
            return new NameCheck(true);
        await using var db = await database.OpenAsync(cancellationToken);
        var names = await db.PublicNames.AsNoTracking().Where(n => n.DeploymentId != exceptId).ToDictionaryAsync(n => n.Name, n => n.DeploymentId, cancellationToken);
        if (!names.TryGetValue(name, out var holder))
            return new NameCheck(true);
        var row = await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == holder, cancellationToken);
        return new NameCheck(false, holder, row?.ReadSpec().ModelName ?? name, Suggest(name, names.ContainsKey));
    }

    private static string Suggest(string name, Predicate<string> isTaken)
    {
        for (var number = 2; ; number++)
        {
            var ending = string.Create(CultureInfo.InvariantCulture, $"-{number}");
            var suggestion = name[..Math.Min(name.Length, MaxName - ending.Length)] + ending;
            if (!isTaken(suggestion))
                return suggestion;
        }
    }

    /// <summary>The last lines of the log of a run; null: the latest.</summary>
    public async Task<Result<DeploymentLogs>> LogsAsync(int id, int tail, string? run, CancellationToken cancellationToken)
    {
        Deployment? row;
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            row = await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken);
            if (row is null)
                return DeploymentFailures.NotFound(id);
            if (run is not null && !await db.Runs.AnyAsync(r => r.Id == run && r.DeploymentId == id, cancellationToken))
                return DeploymentFailures.RunNotFound(id, run);
        }
        if (nodes.Find(row.NodeId) is not { } node)
            return DeploymentFailures.NodeSilent($"{row.NodeId}");
        var spec = row.ReadSpec();
        try
        {
            var request = new LogsRequest { DeploymentUid = row.Uid, RunId = run ?? row.RunId, Tail = Math.Clamp(tail, 1, 2000) };
            var reply = await node.Link.LogsAsync(request, cancellationToken).WaitAsync(LogPatience, time, cancellationToken);
            return new DeploymentLogs($"{spec.ModelName}:{spec.Port}", reply.Lines);
        }
#pragma warning disable CA1031 // whatever the link throws means the same: the node did not hand it out
        catch (Exception) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            return DeploymentFailures.LogUnreachable(node.LastReport?.Hostname ?? $"{row.NodeId}");
        }
    }

    /// <summary>A row with what its engine says now.</summary>
    public DeploymentRead Read(Deployment row)
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
            ExtraPackages = spec.ExtraPackages,
            LoraModules = spec.LoraModules,
            MaxFailedRestarts = spec.MaxFailedRestarts,
            Owner = spec.Owner.Length > 0 ? spec.Owner : null,
            DurationSeconds = spec.DurationSeconds,
            Pinned = spec.Pinned,
            StartOnDemand = row.StartOnDemand,
            Backend = spec.Backend,
            ContainerRuntime = spec.Runtime,
            Status = row.Status.ToWire(),
            // of the same moment as the progress beside it
            Detail = row.Status is DeploymentStatus.Starting or DeploymentStatus.Loading && engine is { Detail.Length: > 0 } ? engine.Detail : row.Detail,
            LastError = row.LastError,
            ErrorCode = row.ErrorCode,
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
            KvCacheUsage = metrics is { HasKvCacheUsage: true } ? Math.Round(metrics.KvCacheUsage, 4) : null,
            MetricsReadAt = metrics is { HasReadAt: true } ? Run.FromSeconds(metrics.ReadAt) : null,
            MetricsStale = metrics is { Stale.Length: > 0 } ? metrics.Stale : null,
            PullPercent = pull is { HasPullPercent: true } ? pull.PullPercent : null,
            PullDownloadedMb = pull is { HasPullDoneBytes: true } ? pull.PullDoneBytes / 1_000_000 : null,
            PullTotalMb = pull is { HasPullTotalBytes: true } ? pull.PullTotalBytes / 1_000_000 : null,
            PullLayersDone = pull is { HasPullLayersDone: true } ? pull.PullLayersDone : null,
            PullLayers = pull is { HasPullLayers: true } ? pull.PullLayers : null,
        };
    }
}
