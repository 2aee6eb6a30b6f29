using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;
using ModelHost.Features.Settings;

namespace ModelHost.Features.Nodes;

/// <summary>Changes what is stored of nodes. Every change is one transaction, and told after it.</summary>
internal sealed partial class NodeChanges(
    Database database, NodeService nodes, NodeRegistry registry, ChangeFeed feed, LiveSettings settings, TimeProvider time,
    ILogger<NodeChanges> logger)
{
    private const int DefaultPort = 9000, MostByHand = 10_000;

    /// <summary>Stores a node that has not registered itself. It is not spoken to: only who joins can prove who it is.</summary>
    public async Task<Result<NodeRead>> RegisterAsync(NodeCreate request, CancellationToken cancellationToken)
    {
        if ((DeploymentRules.Unknown(request) ?? NodeRules.Hostname(request.Hostname!)) is { } fault)
            return fault;
        if (!NodeRules.Address(request.IpAddress!).TryGet(out var address, out fault))
            return fault;
        var row = new Node
        {
            Uid = Node.UnverifiedUid(),
            Hostname = request.Hostname!,
            IpAddress = address,
            Port = request.Port ?? DefaultPort,
            IsByHand = true,
            WarmOffloadEnabled = settings.Current.DefaultWarmOffloadEnabled,
            CreatedAt = time.GetUtcNow(),
        };
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            // the write lock is taken here: two requests cannot both find a name free
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            if (await db.Nodes.CountAsync(n => n.IsByHand, cancellationToken) >= MostByHand)
                return NodeFailures.Full(MostByHand);
            if (await HeldAsync(db, row, cancellationToken) is { } held)
                return held;
            db.Nodes.Add(row);
            await db.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        LogRegistered(row.Id, row.Hostname, row.IpAddress, row.Port.Value);
        feed.Publish(Change.Nodes);
        return await nodes.FindAsync(row.Id, cancellationToken);
    }

    /// <summary>Changes name and address of a node registered by hand.</summary>
    public async Task<Result<NodeRead>> UpdateAsync(int id, NodeUpdate request, CancellationToken cancellationToken)
    {
        if ((DeploymentRules.Unknown(request) ?? (request.Hostname is { } name ? NodeRules.Hostname(name) : null)) is { } fault)
            return fault;
        string? address = null;
        if (request.IpAddress is { } asked && !NodeRules.Address(asked).TryGet(out address, out fault))
            return fault;
        return await ChangeAsync(id, async (db, row) =>
        {
            if (!row.IsByHand)
                return NodeFailures.NotByHand(id);
            (row.Hostname, row.IpAddress, row.Port) = (request.Hostname ?? row.Hostname, address ?? row.IpAddress, request.Port ?? row.Port);
            return await HeldAsync(db, row, cancellationToken);
        }, cancellationToken);
    }

    /// <summary>Sets or takes away the runtime that is preferred on a node; what runs stays as it is.</summary>
    public async Task<Result<NodeRead>> SetRuntimeAsync(int id, NodeRuntime request, CancellationToken cancellationToken)
    {
        if ((DeploymentRules.Unknown(request) ?? (request.IsGiven ? null : Failure.Invalid("runtime", "is required; null is the choice of the settings"))) is { } fault)
            return fault;
        return await ChangeAsync(id, (_, row) =>
        {
            row.ContainerRuntime = request.Runtime;
            return Task.FromResult<Failure?>(null);
        }, cancellationToken);
    }

    /// <summary>Stores how a node's warm cache is to be.</summary>
    public async Task<Result<NodeRead>> SetWarmCacheAsync(int id, NodeWarmCache request, CancellationToken cancellationToken)
    {
        if (DeploymentRules.Unknown(request) is { } fault)
            return fault;
        return await ChangeAsync(id, (_, row) =>
        {
            (row.WarmOffloadEnabled, row.RamCacheLimitMb) = (request.Enabled!.Value, request.RamCacheLimitMb);
            return Task.FromResult<Failure?>(null);
        }, cancellationToken);
    }

    /// <summary>Cordons or uncordons, and drains in the same transaction: nothing is placed between the two.</summary>
    public async Task<Result<NodeRead>> SetMaintenanceAsync(int id, NodeMaintenance request, CancellationToken cancellationToken)
    {
        if ((DeploymentRules.Unknown(request) ?? Contradiction(request)) is { } fault)
            return fault;
        var asked = request.GpuIds ?? [];
        IReadOnlyList<int> drained = [];
        var answer = await ChangeAsync(id, async (db, row) =>
        {
            var known = registry.Find(id) is { LastReport: not null } node ? node.Gpus : null;
            if (asked.Count > 0 && known is null)
                return NodeFailures.GpusUnknown(row.Hostname);
            if (asked.Except(known ?? []).ToArray() is { Length: > 0 } unknown)
                return NodeFailures.UnknownGpus(row.Hostname, unknown, known ?? []);
            row.Cordoned = row.ReadCordon().With(asked, request.Enabled!.Value, known ?? []).ToString();
            if (request.Drain == true)
            {
                var now = time.GetUtcNow();
                drained = await DeploymentDrains.BeginAsync(
                    db, id, asked, now, now + TimeSpan.FromSeconds(request.DrainTimeoutSeconds ?? NodeMaintenance.DefaultDrainTimeout), cancellationToken);
            }
            return null;
        }, cancellationToken);
        if (drained.Count > 0 && answer.Failure is null)
        {
            LogDraining(id, string.Join(", ", drained));
            feed.Publish(Change.Deployments(drained));
        }
        return answer;
    }

    private static Failure? Contradiction(NodeMaintenance request) =>
        request is { Drain: true, Enabled: false } ? Failure.Invalid("drain", "cannot be true where enabled is false")
        : request is { DrainTimeoutSeconds: not null, Drain: not true } ? Failure.Invalid("drain_timeout_seconds", "is for drain alone")
        : request.GpuIds?.Any(gpu => gpu < 0) == true ? Failure.Invalid("gpu_ids", "holds a negative index")
        : null;

    // two machines may have told the same name themselves; a person has to tell them apart
    private static async Task<Failure?> HeldAsync(ModelHostDbContext db, Node row, CancellationToken cancellationToken)
    {
        var others = await db.Nodes.AsNoTracking().Where(n => n.Id != row.Id && (n.Hostname == row.Hostname || (n.IpAddress == row.IpAddress && n.Port == row.Port)))
            .OrderBy(n => n.Id).ToListAsync(cancellationToken);
        return others.FirstOrDefault(n => n.Hostname == row.Hostname) is { } named ? NodeFailures.HostnameTaken(row.Hostname, named.Id)
            : others.FirstOrDefault() is { } there ? NodeFailures.AddressTaken(row.IpAddress, row.Port!.Value, there.Id, there.Hostname)
            : null;
    }

    private async Task<Result<NodeRead>> ChangeAsync(int id, Func<ModelHostDbContext, Node, Task<Failure?>> changeAsync, CancellationToken cancellationToken)
    {
        Cordon cordon;
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            if (await db.Nodes.FirstOrDefaultAsync(n => n.Id == id, cancellationToken) is not { } row)
                return NodeFailures.NotFound(id);
            if (await changeAsync(db, row) is { } refusal)
                return refusal;
            await db.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            cordon = row.ReadCordon();
        }
        if (registry.Find(id) is { } node)
            node.Cordon = cordon;
        LogChanged(id);
        feed.Publish(Change.Nodes);
        registry.Wake(id);
        return await nodes.FindAsync(id, cancellationToken);
    }

    [LoggerMessage(2301, LogLevel.Information, "Node {NodeId} ({Hostname}) was registered by hand at {Address}, port {Port}.")]
    private partial void LogRegistered(int nodeId, string hostname, string address, int port);

    [LoggerMessage(2302, LogLevel.Information, "Node {NodeId} was changed.")]
    private partial void LogChanged(int nodeId);

    [LoggerMessage(2303, LogLevel.Information, "Node {NodeId} is drained: deployments {DeploymentIds} are stopped.")]
    private partial void LogDraining(int nodeId, string deploymentIds);
}
