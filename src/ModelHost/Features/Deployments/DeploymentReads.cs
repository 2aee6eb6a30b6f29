using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>Deployments as the API shows them.</summary>
internal sealed class DeploymentReads(Database database, NodeRegistry nodes)
{
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
}
