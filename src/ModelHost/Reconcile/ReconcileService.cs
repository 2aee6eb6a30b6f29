using ModelHost.Agent;
using ModelHost.Data;
using ModelHost.Features.ApiKeys;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Gateway;
using ModelHost.Hosting;

namespace ModelHost.Reconcile;

/// <summary>Opens the database, links the nodes, and runs an actor for each.</summary>
internal sealed class ReconcileService(
    Database database, NodeService nodeService, NodeRegistry registry, DataFolder folder, EnvironmentVault vault, LifecyclePolicySource policies,
    RouteSource routes, ChangeFeed feed, LiveSettings settings, ApiKeyService keys, TimeProvider time, ILoggerFactory loggers, LocalNode? localNode = null) : BackgroundService
{
    private readonly List<NodeActor> _actors = [];

    public override async Task StartAsync(CancellationToken cancellationToken)
    {
        await database.MigrateAsync(cancellationToken);
        await settings.LoadAsync(cancellationToken);
        await keys.LoadAsync(cancellationToken);
        if (localNode is not null)
        {
            await localNode.OpenAsync(cancellationToken);
            var node = new NodeHandle(await nodeService.EnsureLocalAsync(folder.NodeId, cancellationToken), localNode, settings);
            registry.Add(node);
            _actors.Add(new NodeActor(node, database, vault, policies, routes, feed, settings, time, Random.Shared, loggers.CreateLogger<NodeActor>()));
        }
        await base.StartAsync(cancellationToken);
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken) => Task.WhenAll(_actors.Select(actor => actor.RunAsync(stoppingToken)));
}
