using System.Net;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using ModelHost.Access;
using ModelHost.Cluster;
using ModelHost.Common;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Backends;
using ModelHost.Features.Events;
using ModelHost.Features.Settings;

namespace ModelHost.Features.Nodes;

/// <summary>The machines that run engines.</summary>
internal static class NodesFeature
{
    /// <summary>Adds the service.</summary>
    public static IServiceCollection AddNodes(this IServiceCollection services) => services
        .AddSingleton<NodeRegistry>().AddSingleton<NodeService>().AddSingleton<NodeChanges>().AddSingleton<NodePorts>().AddSingleton<NodeHistory>()
        .AddSingleton<JoinTokenService>().AddSingleton<PeerTokens>();

    /// <summary>Maps <c>/api/nodes</c>.</summary>
    public static void MapNodes(this IEndpointRouteBuilder api)
    {
        var group = api.MapGroup("/nodes").WithTags("Nodes").AdminOnly();
        group.MapGet("/", ListAsync).WithName("ListNodes").WithSummary("List all nodes with GPU metrics, disk usage and status.");
        group.MapGet("/{id:int}", FindAsync).WithName("GetNode").WithSummary("Read one node.").ProducesProblem(StatusCodes.Status404NotFound);
        group.MapDelete("/{id:int}", RemoveAsync).WithName("DeleteNode")
            .WithSummary("Remove a node, its history and the records of its deployments; what runs goes on, and a live node registers again. With revoke=true its certificates end.")
            .ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapJoinTokens();
        group.MapDiscovery();
        group.MapNodeChanges();
        group.MapNodeMonitoring();
        group.MapNodeBackends();
        group.MapGet("/{id:int}/gpu-processes", GpuProcesses).WithName("ListGpuProcesses")
            .WithSummary("List the engine processes on a node's GPUs, those that no deployment owns among them.")
            .ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status503ServiceUnavailable);
    }

    private static async Task<Ok<IReadOnlyList<NodeRead>>> ListAsync(NodeService nodes, CancellationToken cancellationToken) =>
        TypedResults.Ok(await nodes.ListAsync(cancellationToken));

    private static async Task<Results<Ok<NodeRead>, ProblemHttpResult>> FindAsync(int id, NodeService nodes, CancellationToken cancellationToken) =>
        (await nodes.FindAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<NodeDeleted>, ProblemHttpResult>> RemoveAsync(
        int id, ClusterService cluster, CancellationToken cancellationToken, bool revoke = false) => (await cluster.RemoveAsync(id, revoke, cancellationToken)).ToAnswer();

    private static Results<Ok<IReadOnlyList<GpuProcessRead>>, ProblemHttpResult> GpuProcesses(int id, NodeService nodes) => nodes.GpuProcesses(id).ToAnswer();
}

/// <summary>What can be asked of nodes.</summary>
internal sealed class NodeService(Database database, NodeRegistry registry, ChangeFeed feed, LiveSettings settings, TimeProvider time)
{
    private const double Gb = 1e9, Mib = 1024 * 1024;

    /// <summary>All nodes by hostname.</summary>
    public async Task<IReadOnlyList<NodeRead>> ListAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return await ReadAsync(db, await db.Nodes.AsNoTracking().OrderBy(n => n.Hostname).ToListAsync(cancellationToken), cancellationToken);
    }

    /// <summary>The names of all nodes by their ids.</summary>
    public async Task<IReadOnlyDictionary<int, string>> NamesAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return await db.Nodes.ToDictionaryAsync(node => node.Id, node => node.Hostname, cancellationToken);
    }

    /// <summary>One node.</summary>
    public async Task<Result<NodeRead>> FindAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Nodes.AsNoTracking().Where(n => n.Id == id).ToListAsync(cancellationToken);
        return rows.Count == 0 ? NodeFailures.NotFound(id) : (await ReadAsync(db, rows, cancellationToken))[0];
    }

    private async Task<IReadOnlyList<NodeRead>> ReadAsync(ModelHostDbContext db, List<Node> rows, CancellationToken cancellationToken)
    {
        var reported = registry.All.SelectMany(node => node.LastReport?.Engines ?? []).Select(engine => engine.DeploymentUid).Distinct().ToArray();
        var deleted = reported.Length == 0 ? [] : await db.Tombstones.Where(t => EF.Constant(reported).Contains(t.Uid)).Select(t => t.Uid).ToHashSetAsync(cancellationToken);
        return [.. rows.Select(row => Read(row, deleted))];
    }

    /// <summary>The engine processes on a node's GPUs.</summary>
    public Result<IReadOnlyList<GpuProcessRead>> GpuProcesses(int id)
    {
        if (registry.Find(id) is not { } node)
            return NodeFailures.NotFound(id);
        return node.Report switch
        {
            null => NodeFailures.Unreachable(id),
            { GpuProcessError: { Length: > 0 } error } => new Failure(FailureKind.Unavailable, "node.processes_unknown", $"What computes on node {id} is unknown: {error}"),
            { } report => GpuReads.EngineProcesses(report).ToArray(),
        };
    }

    /// <summary>Finds or makes the record of the node in this process.</summary>
    /// <returns>Its id.</returns>
    public Task<int> EnsureLocalAsync(string uid, CancellationToken cancellationToken) =>
        EnsureAsync(uid, Dns.GetHostName(), "127.0.0.1", null, isProved: false, cancellationToken);

    /// <summary>Finds or makes the record of a node on another machine, and notes where it is now.</summary>
    /// <param name="node">The node.</param>
    /// <param name="isProved">Whether it has proved that it is where it says: then a record made by hand for that address is its.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>Its id.</returns>
    public Task<int> EnsureAsync(NodeSeen node, bool isProved, CancellationToken cancellationToken) =>
        EnsureAsync(node.Uid, node.Hostname, node.Address.ToString(), node.Port, isProved, cancellationToken);

    /// <summary>Whether a record was made by hand for the address of a node that has none of its own.</summary>
    public async Task<bool> IsByHandAsync(NodeSeen node, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return !await db.Nodes.AnyAsync(n => n.Uid == node.Uid, cancellationToken) && await ByHand(db, node.Address.ToString(), node.Port).AnyAsync(cancellationToken);
    }

    /// <summary>The nodes on other machines, where they were when they last spoke.</summary>
    public async Task<IReadOnlyList<(int Id, NodeSeen Node)>> ListRemoteAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Nodes.AsNoTracking().Where(n => n.Port != null && !n.IsByHand).ToListAsync(cancellationToken);
        return [.. rows.Where(row => IPAddress.TryParse(row.IpAddress, out _))
            .Select(row => (row.Id, new NodeSeen(row.Uid, row.Hostname, IPAddress.Parse(row.IpAddress), row.Port!.Value)))];
    }

    private static IQueryable<Node> ByHand(ModelHostDbContext db, string address, int? port) =>
        db.Nodes.Where(n => n.IsByHand && n.IpAddress == address && n.Port == port).OrderBy(n => n.Id);

    private async Task<int> EnsureAsync(string uid, string hostname, string address, int? port, bool isProved, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var row = await db.Nodes.FirstOrDefaultAsync(n => n.Uid == uid, cancellationToken);
        // a name is only told; who is at the address that a person gave is that node, with all that was set for it
        if (row is null && isProved)
            row = await ByHand(db, address, port).FirstOrDefaultAsync(cancellationToken);
        if (row is null)
        {
            row = new Node
            {
                Uid = uid,
                Hostname = hostname,
                IpAddress = address,
                Port = port,
                WarmOffloadEnabled = settings.Current.DefaultWarmOffloadEnabled,
                CreatedAt = time.GetUtcNow(),
            };
            db.Nodes.Add(row);
        }
        (row.Uid, row.IsByHand, row.Hostname, row.IpAddress, row.Port) = (uid, false, hostname, address, port);
        if (!db.ChangeTracker.HasChanges())
            return row.Id;
        await database.SaveAsync(db, cancellationToken);
        feed.Publish(Change.Nodes);
        return row.Id;
    }

    /// <summary>
    /// Deletes records and their history, in the transaction of the caller. Nodes that are linked register again at once, as new ones, under the ids
    /// by which they are known here.
    /// </summary>
    /// <returns>The number of records deleted.</returns>
    public async Task<int> ForgetAsync(ModelHostDbContext db, CancellationToken cancellationToken)
    {
        var linked = registry.All.Select(node => node.Id).ToArray();
        var again = await db.Nodes.AsNoTracking().Where(node => linked.Contains(node.Id)).ToListAsync(cancellationToken);
        await NodeHistory.ForgetAsync(db, nodeId: null, cancellationToken);
        var deleted = await db.Nodes.ExecuteDeleteAsync(cancellationToken);
        db.Nodes.AddRange(again.Select(node => new Node
        {
            Id = node.Id,
            Uid = node.Uid,
            Hostname = node.Hostname,
            IpAddress = node.IpAddress,
            Port = node.Port,
            WarmOffloadEnabled = settings.Current.DefaultWarmOffloadEnabled,
            CreatedAt = time.GetUtcNow(),
        }));
        await db.SaveChangesAsync(cancellationToken);
        return deleted;
    }

    /// <summary>The word of the API for how a node is.</summary>
    public static string Status(NodeHandle? node, DateTimeOffset now) => node switch
    {
        not null when node.Cordon.CoversAll(node.Gpus) => "maintenance",
        null or { LastReport: null, Failures: 0 } => "unknown",
        _ when node.IsCritical(now) => "critical",
        { Failures: > 0 } => "degraded",
        _ when node.IsBeatMissed(now) => "degraded",
        { LastReport.Runtimes.Count: 0 } => "no-runtime",
        _ => "online",
    };

    private NodeRead Read(Node row, HashSet<string> deleted)
    {
        var node = registry.Find(row.Id);
        var report = node?.LastReport;
        var cordon = row.ReadCordon();
        var gpus = node?.Gpus ?? [];
        var isWhole = cordon.CoversAll(gpus);
        return new NodeRead
        {
            Id = row.Id,
            Hostname = row.Hostname,
            IpAddress = row.IpAddress,
            Port = row.Port,
            Status = isWhole ? "maintenance" : Status(node, time.GetUtcNow()),
            StatusDetail = node?.Reason ?? (node is not null && node.IsBeatMissed(time.GetUtcNow()) ? $"No heartbeat of it has come since {node.BeatAt:u}." : null),
            Maintenance = isWhole,
            PartialMaintenance = !isWhole && cordon.Gpus(gpus).Count > 0,
            MaintenanceGpus = cordon.Gpus(gpus),
            ContainerRuntime = row.ContainerRuntime,
            WarmOffloadEnabled = row.WarmOffloadEnabled,
            RamCacheLimitMb = row.RamCacheLimitMb,
            RegisteredByHand = row.IsByHand,
            CpuCount = report?.Cpu?.Count,
            CpuPercent = report?.Cpu is { HasPercent: true } cpu ? Math.Round(cpu.Percent, 1) : null,
            MemoryTotalMb = report?.Memory is { } all ? Math.Round(all.TotalBytes / Mib) : null,
            MemoryUsedMb = report?.Memory is { } used ? Math.Round((used.TotalBytes - used.AvailableBytes) / Mib) : null,
            MemoryPercent = report?.Memory is { TotalBytes: > 0 } ram ? Math.Round(100.0 * (ram.TotalBytes - ram.AvailableBytes) / ram.TotalBytes, 1) : null,
            GpuUsage = report is null ? null : GpuReads.Gpus(report),
            GpuError = report?.GpuError is { Length: > 0 } error ? error : null,
            GpuProcessError = report?.GpuProcessError is { Length: > 0 } processError ? processError : null,
            GpuDriver = report?.GpuDriver is { Length: > 0 } driver ? driver : null,
            RogueProcessCount = report is { GpuProcessError: "" } ? GpuReads.EngineProcesses(report).Count(process => !process.Tracked) : null,
            DiskUsage = report?.Disk is { TotalBytes: > 0 } disk
                ? new DiskUsage(Math.Round(disk.TotalBytes / Gb, 1), Math.Round(disk.FreeBytes / Gb, 1), disk.HasHfCacheBytes ? Math.Round(disk.HfCacheBytes / Gb, 1) : null) : null,
            AvailableRuntimes = report?.Runtimes,
            RogueContainerCount = report?.Engines.Count(engine => deleted.Contains(engine.DeploymentUid)),
            AgentVersion = report?.AgentVersion,
            LastHeartbeatAt = node?.BeatAt > node?.ReportedAt ? node.BeatAt : node?.ReportedAt ?? node?.BeatAt,
            CreatedAt = row.CreatedAt,
        };
    }
}
