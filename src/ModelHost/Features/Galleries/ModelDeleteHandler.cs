using ModelHost.Core;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Galleries;

/// <summary>Deletes models: their deployments, their files, and what is known of them, in this order.</summary>
internal sealed class ModelDeleteHandler(ModelBook models, ModelDeployments deployments, NodeRegistry nodes, NodeService nodeList) : IJobHandler
{
    /// <summary>The kind of its jobs.</summary>
    public const string JobKind = "model.delete";

    public string Kind => JobKind;

    public async Task<Failure?> RunAsync(JobContext job, CancellationToken cancellationToken)
    {
        if (await models.FindAsync(job.Request, cancellationToken) is not { } model)
            return new Failure(FailureKind.NotFound, "model.not_found", $"model {job.Request} is not installed");
        var hosts = await nodeList.NamesAsync(cancellationToken);
        var places = GalleryJson.Read<InstalledNode[]>(model.Nodes);
        // nothing is deleted before all of it can be; a node that is not known any more has nothing to delete
        var linked = places.Where(place => nodes.Find(place.NodeId) is not null).ToArray();
        foreach (var place in linked)
        {
            if (nodes.Find(place.NodeId) is { Report: null } silent)
                return DeploymentFailures.NodeSilent(hosts.GetValueOrDefault(silent.Id, $"{silent.Id}"));
        }
        foreach (var place in places)
        {
            if (await deployments.RemoveAsync(place.DeploymentId, cancellationToken) is { } failure)
                return failure;
        }
        foreach (var place in linked.Where(place => place.Folder.Length > 0))
        {
            if (await DeleteAsync(place, hosts, cancellationToken) is { } failure)
                return failure;
        }
        await models.RemoveAsync(model.Id, cancellationToken);
        return null;
    }

    private async Task<Failure?> DeleteAsync(InstalledNode place, IReadOnlyDictionary<int, string> hosts, CancellationToken cancellationToken)
    {
        if (nodes.Find(place.NodeId) is not { } node)
            return null;
        try
        {
            await node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Model, Name = place.Folder }, cancellationToken);
            return null;
        }
        catch (InvalidOperationException e)
        {
            return new Failure(FailureKind.Conflict, "model.in_use", e.Message);
        }
#pragma warning disable CA1031 // whatever the link throws means the same: it may not be deleted, and the model stays known
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            return new Failure(FailureKind.Unavailable, "node.unreachable", $"node {hosts.GetValueOrDefault(node.Id, $"{node.Id}")} could not be asked to delete its files: {e.Message}");
        }
    }
}
