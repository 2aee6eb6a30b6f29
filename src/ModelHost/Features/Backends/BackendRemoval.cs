using ModelHost.Core;
using ModelHost.Features.Deployments;
using ModelHost.Features.Galleries;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Backends;

/// <summary>Deletes backends from nodes: their folders, and what is known of them. Images stay with the node's engine of containers.</summary>
internal sealed class BackendRemoval(BackendInventory inventory, BackendBook book, BackendUpgrades upgrades, NodeRegistry nodes, DeploymentReads deployments)
{
    /// <summary>Deletes one; nothing is deleted before all of it can be.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="only">Ids of the nodes; empty: all that have it.</param>
    /// <param name="cancellationToken">Ends the wait.</param>
    public async Task<Failure?> RemoveAsync(string name, IReadOnlyCollection<int> only, CancellationToken cancellationToken)
    {
        var plans = new List<Removal>();
        foreach (var node in nodes.All.Where(node => only.Count == 0 || only.Contains(node.Id)).OrderBy(node => node.Id))
        {
            var (has, isCurrent) = await inventory.ReadAsync(node, cancellationToken);
            if (has.FirstOrDefault(here => here.Name == name) is not { } found)
                continue;
            if (!isCurrent)
                return new Failure(FailureKind.Unavailable, "node.unreachable", $"node {found.Node.Name} does not answer, and nothing was deleted");
            if (found.IsSystem)
                return new Failure(FailureKind.Conflict, "backend.is_system", $"{name} is part of node {found.Node.Name}, and is not deleted");
            var plan = new Removal(node, Together(found, has));
            if (await BackendUse.FaultAsync(deployments, node.Id, [.. plan.Gone.Select(here => here.Name), .. plan.Gone.Select(here => here.Alias)], cancellationToken) is { } used)
                return used;
            plans.Add(plan);
        }
        if (plans.Count == 0)
            return new Failure(FailureKind.NotFound, "backend.not_installed", $"backend {name} is not installed on {(only.Count == 0 ? "any node" : "it")}");
        foreach (var (node, gone) in plans)
        {
            foreach (var folder in gone.Where(here => here.Form == BackendForm.Folder))
            {
                if (await DeleteAsync(node, folder.Name, cancellationToken) is { } failure)
                    return failure;
            }
            await book.RemoveAsync(node.Id, [.. gone.Select(here => here.Name)], CancellationToken.None);
        }
        upgrades.Poke();
        return null;
    }

    /// <summary>A backend, the build it stands for if nothing else does, and what stands for it.</summary>
    private static IReadOnlyList<BackendHere> Together(BackendHere found, IReadOnlyList<BackendHere> has)
    {
        var build = found.IsMeta && !has.Any(other => other.MetaBackendFor == found.MetaBackendFor && other.Name != found.Name)
            ? has.FirstOrDefault(here => here.Name == found.MetaBackendFor && !here.IsSystem) : null;
        return [found, .. build is null ? [] : (BackendHere[])[build], .. has.Where(here => here.IsMeta && here.MetaBackendFor == found.Name)];
    }

    private static async Task<Failure?> DeleteAsync(NodeHandle node, string name, CancellationToken cancellationToken)
    {
        try
        {
            await node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Backend, Name = name }, cancellationToken);
            return null;
        }
        catch (InvalidOperationException e)
        {
            return new Failure(FailureKind.Conflict, "backend.in_use", e.Message);
        }
#pragma warning disable CA1031 // whatever the link throws means the same: it may not be deleted, and stays known
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            return new Failure(FailureKind.Unavailable, "node.unreachable", $"node {node.LastReport?.Hostname ?? $"{node.Id}"} could not be asked to delete it: {e.Message}");
        }
    }

    private sealed record Removal(NodeHandle Node, IReadOnlyList<BackendHere> Gone);
}

/// <summary>Does the jobs that delete backends.</summary>
internal sealed class BackendDeleteHandler(BackendRemoval removal) : IJobHandler
{
    /// <summary>The kind of its jobs.</summary>
    public const string JobKind = "backend.delete";

    public string Kind => JobKind;

    public async Task<Failure?> RunAsync(JobContext job, CancellationToken cancellationToken)
    {
        var asked = GalleryJson.Read<BackendDeletion>(job.Request);
        var failure = await removal.RemoveAsync(asked.Name, asked.Nodes, cancellationToken);
        // what was deleted before the process ended is not there any more
        return failure is { Kind: FailureKind.NotFound } && job.IsResumed ? null : failure;
    }
}
