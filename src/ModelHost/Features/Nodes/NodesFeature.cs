using System.Net;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using ModelHost.Access;
using ModelHost.Data;
using ModelHost.Protocol;

namespace ModelHost.Features.Nodes;

/// <summary>The machines that run engines.</summary>
internal static class NodesFeature
{
    /// <summary>Adds the service.</summary>
    public static IServiceCollection AddNodes(this IServiceCollection services) => services.AddSingleton<NodeRegistry>().AddSingleton<NodeService>();

    /// <summary>Maps <c>/api/nodes</c>.</summary>
    public static void MapNodes(this IEndpointRouteBuilder api)
    {
        var group = api.MapGroup("/nodes").WithTags("Nodes").AdminOnly();
        group.MapGet("/", ListAsync).WithName("ListNodes").WithSummary("List all nodes with GPU metrics, disk usage and status.");
    }

    private static async Task<Ok<IReadOnlyList<NodeRead>>> ListAsync(NodeService nodes, CancellationToken cancellationToken) =>
        TypedResults.Ok(await nodes.ListAsync(cancellationToken));
}

/// <summary>What can be asked of nodes.</summary>
internal sealed class NodeService(Database database, NodeRegistry registry, TimeProvider time)
{
    private const double Mib = 1024 * 1024;
    private const double Gb = 1e9;

    /// <summary>All nodes by hostname.</summary>
    public async Task<IReadOnlyList<NodeRead>> ListAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Nodes.AsNoTracking().OrderBy(n => n.Hostname).ToListAsync(cancellationToken);
        return [.. rows.Select(Read)];
    }

    /// <summary>Finds or makes the record of the node in this process.</summary>
    /// <returns>Its id.</returns>
    public async Task<int> EnsureLocalAsync(string uid, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var row = await db.Nodes.FirstOrDefaultAsync(n => n.Uid == uid, cancellationToken);
        if (row is null)
        {
            row = new Node { Uid = uid, Hostname = Dns.GetHostName(), IpAddress = "127.0.0.1", CreatedAt = time.GetUtcNow() };
            db.Nodes.Add(row);
        }
        row.Hostname = Dns.GetHostName();
        await db.SaveChangesAsync(cancellationToken);
        return row.Id;
    }

    /// <summary>The word of the API for how a node is.</summary>
    public static string Status(NodeHandle? node) => node switch
    {
        null or { LastReport: null, Failures: 0 } => "unknown",
        { IsUnreachable: true } => "critical",
        { Failures: > 0 } => "degraded",
        { LastReport.Runtimes.Count: 0 } => "no-runtime",
        _ => "online",
    };

    private NodeRead Read(Node row)
    {
        var node = registry.Find(row.Id);
        var report = node?.LastReport;
        return new NodeRead
        {
            Id = row.Id,
            Hostname = row.Hostname,
            IpAddress = row.IpAddress,
            Status = Status(node),
            GpuUsage = report?.Gpus.Select(Read).ToArray(),
            GpuError = report?.GpuError is { Length: > 0 } error ? error : null,
            DiskUsage = report?.Disk is { TotalBytes: > 0 } disk
                ? new DiskUsage(Math.Round(disk.TotalBytes / Gb, 1), Math.Round(disk.FreeBytes / Gb, 1), Math.Round(disk.HfCacheBytes / Gb, 1)) : null,
            AvailableRuntimes = report?.Runtimes,
            AgentVersion = report?.AgentVersion,
            LastHeartbeatAt = node?.ReportedAt,
            CreatedAt = row.CreatedAt,
        };
    }

    private static GpuUsage Read(Gpu gpu) => new(
        gpu.Index, gpu.Uuid, gpu.Name, gpu.Source,
        gpu.HasUtilizationPercent ? gpu.UtilizationPercent : null,
        gpu.HasMemoryUsedBytes ? Math.Round(gpu.MemoryUsedBytes / Mib) : null,
        gpu.HasMemoryTotalBytes ? Math.Round(gpu.MemoryTotalBytes / Mib) : null,
        gpu.HasTemperatureCelsius ? gpu.TemperatureCelsius : null,
        gpu.HasPowerWatts ? gpu.PowerWatts : null);
}
