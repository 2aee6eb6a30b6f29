using System.Collections.Concurrent;
using ModelHost.Access;
using ModelHost.Agent;
using ModelHost.Cluster;
using ModelHost.Data;
using ModelHost.Features.ApiKeys;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Features.Usage;
using ModelHost.Gateway;
using ModelHost.Hosting;

namespace ModelHost.Reconcile;

/// <summary>Opens the database, links the nodes, and runs an actor for each.</summary>
internal sealed class ReconcileService(
    Database database, NodeService nodeService, NodeRegistry registry, DataFolder folder, EnvironmentVault vault, LifecyclePolicySource policies,
    RouteSource routes, ChangeFeed feed, LiveSettings settings, ApiKeyService keys, NodeAccess access, NodeUsage usage, TimeProvider time, ILoggerFactory loggers, LocalNode? localNode = null) : BackgroundService
{
    private readonly ConcurrentDictionary<NodeHandle, (Task Task, CancellationTokenSource Ended)> _actors = new();
    private readonly CancellationTokenSource _stopping = new();

    public override async Task StartAsync(CancellationToken cancellationToken)
    {
        await database.MigrateAsync(cancellationToken);
        await settings.LoadAsync(cancellationToken);
        await keys.LoadAsync(cancellationToken);
        if (localNode is not null)
        {
            await localNode.OpenAsync(cancellationToken);
            await LinkAsync(new NodeHandle(await nodeService.EnsureLocalAsync(folder.NodeId, cancellationToken), localNode, settings, folder.NodeId), cancellationToken);
        }
        await base.StartAsync(cancellationToken);
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        await _stopping.CancelAsync();
        await Task.WhenAll(_actors.Values.Select(actor => actor.Task));
    }

    /// <summary>Registers a node and looks after it from now on. Its models are known when this ends: who asks for one at once is not told that there is none.</summary>
    public async Task LinkAsync(NodeHandle node, CancellationToken cancellationToken)
    {
        var actor = new NodeActor(node, database, vault, policies, routes, feed, settings, access, usage, time, Random.Shared, loggers.CreateLogger<NodeActor>());
        await actor.AnnounceAsync(cancellationToken);
        registry.Add(node);
        var ended = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token);
        _actors[node] = (Task.Run(() => actor.RunAsync(ended.Token), CancellationToken.None), ended);
    }

    /// <summary>Looks after a node no more; what runs on it runs on.</summary>
    public async Task UnlinkAsync(NodeHandle node)
    {
        registry.Remove(node);
        if (!_actors.TryRemove(node, out var actor))
            return;
        await actor.Ended.CancelAsync();
        await actor.Task;
        actor.Ended.Dispose();
        (node.Link as IDisposable)?.Dispose();
    }

    public override void Dispose()
    {
        foreach (var (node, actor) in _actors)
        {
            actor.Ended.Dispose();
            if (node.Link is RemoteNode remote)
                remote.Dispose();
        }
        _stopping.Dispose();
        base.Dispose();
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken) => Task.CompletedTask;
}
