using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Gateway;

namespace ModelHost.Features.Admin;

/// <summary>
/// Forgets records, and nothing but records: what runs on a node goes on. Unlike a deletion it leaves no tombstones, so that what runs is
/// adopted again.
/// </summary>
internal sealed partial class PurgeService(
    Database database, NodeService nodeService, NodeRegistry nodes, RouteSource routes, ChangeFeed feed, ILogger<PurgeService> logger)
{
    private const string Deployments = "deployments", Nodes = "nodes", Metrics = "metrics", Configs = "configs";
    private const int MaxShown = 10, MaxLength = 64;
    private static readonly string[] Known = [Deployments, Nodes, Metrics, Configs];

    /// <summary>Deletes what is asked for in one transaction, or nothing.</summary>
    public async Task<Result<PurgeResult>> PurgeAsync(PurgeRequest request, CancellationToken cancellationToken)
    {
        if (request.Unknown?.Keys.FirstOrDefault() is { } field)
            return Failure.Invalid(Shown(field), "is no field of this request");
        var unknown = (request.Targets ?? []).Where(target => !Known.Contains(target)).Distinct().Take(MaxShown).ToArray();
        if (unknown.Length > 0)
            return Failure.Invalid("targets", $"there is no {string.Join(", ", unknown.Select(target => $"'{Shown(target ?? "null")}'"))}; there are {string.Join(", ", Known)}");
        var targets = request.Targets is { Count: > 0 } asked ? asked.ToHashSet() : [.. Known];
        if (targets.Contains(Nodes))
            targets.UnionWith([Deployments, Metrics]);

        var counts = await DeleteAsync(targets, cancellationToken);
        if (targets.Contains(Deployments))
            routes.Forget();
        foreach (var node in nodes.All)
            node.Wake();
        LogPurged(string.Join(", ", counts.Select(count => $"{count.Value} of {count.Key}")));
        if (targets.Overlaps([Deployments, Configs]))
            feed.Publish(Change.AllDeployments);
        if (targets.Overlaps([Nodes, Metrics]))
            feed.Publish(Change.Nodes);
        if (targets.Contains(Configs))
            feed.Publish(Change.Configs);
        return new PurgeResult(counts);
    }

    private async Task<OrderedDictionary<string, int>> DeleteAsync(HashSet<string?> targets, CancellationToken cancellationToken)
    {
        var counts = new OrderedDictionary<string, int>();
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        if (targets.Contains(Deployments))
            counts["deployments"] = await db.Deployments.ExecuteDeleteAsync(cancellationToken);
        if (targets.Contains(Metrics))
            counts["node_metrics"] = await NodeHistory.ForgetAsync(db, nodeId: null, cancellationToken);
        if (targets.Contains(Nodes))
            counts["nodes"] = await nodeService.ForgetAsync(db, cancellationToken);
        if (targets.Contains(Configs))
            counts["deployment_configs"] = await db.Configs.ExecuteDeleteAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return counts;
    }

    private static string Shown(string text) => text.Length <= MaxLength ? text : text[..MaxLength] + "…";

    [LoggerMessage(1601, LogLevel.Warning, "Records were purged: {Counts}.")]
    private partial void LogPurged(string counts);
}
