using ModelHost.Core;
using ModelHost.Core.Engines;
using ModelHost.Features.Deployments;
using ModelHost.Features.Galleries;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Backends;

/// <summary>Deletes backends from nodes: their folders and images, and what is known of them; or one version of those that are images.</summary>
internal sealed class BackendRemoval(
    BackendInventory inventory, BackendBook book, BackendUpgrades upgrades, NodeRegistry nodes, DeploymentReads deployments, TimeProvider time)
{
    private static readonly TimeSpan Poll = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(10);

    /// <summary>Deletes one; nothing is deleted before all of it can be. An image that something else wants stays, and does not keep its backend from going.</summary>
    /// <param name="asked">What, and from which nodes.</param>
    /// <param name="cancellationToken">Ends the wait.</param>
    /// <returns>What stays, for people; empty: nothing.</returns>
    public async Task<Result<string>> RemoveAsync(BackendDeletion asked, CancellationToken cancellationToken)
    {
        var plans = new List<Removal>();
        var names = await inventory.NamesAsync(cancellationToken);
        foreach (var node in nodes.All.Where(node => asked.Nodes.Length == 0 || asked.Nodes.Contains(node.Id)).OrderBy(node => node.Id))
        {
            var (has, isCurrent, imageError) = await inventory.ReadAsync(node, cancellationToken);
            var (name, found) = (names.GetValueOrDefault(node.Id) ?? $"{node.Id}", has.FirstOrDefault(here => here.Name == asked.Name));
            // of what every node knows, a version may be there of which nothing is on record
            if (found is null && (asked.Version.Length == 0 || !asked.Nodes.Contains(node.Id)))
                continue;
            if (!isCurrent)
                return new Failure(FailureKind.Unavailable, "node.unreachable", $"node {name} does not answer, and nothing was deleted");
            var gone = asked.Version.Length > 0 || found is null ? [] : Together(found, has);
            if (imageError.Length > 0 && (asked.Version.Length > 0 || gone.Any(here => here.Form == BackendForm.Image)))
                return new Failure(FailureKind.Unavailable, "node.images_unknown", $"the images of node {name} are not known, and nothing was deleted: {imageError}");
            if (found is null)
                continue;
            var recorded = await deployments.OfNodeAsync(node.Id, cancellationToken);
            if (!(asked.Version.Length > 0 ? PlanVersion(found, has, asked.Version, recorded) : await PlanAsync(found, gone, has, recorded, cancellationToken)).TryGet(out var images, out var failure))
                return failure;
            if (gone.Count > 0 || images.Length > 0)
                plans.Add(new Removal(node, name, gone, images));
        }
        if (plans.Count == 0)
            return new Failure(FailureKind.NotFound, "backend.not_installed",
                $"{(asked.Version.Length > 0 ? $"version {asked.Version} of " : "")}backend {asked.Name} is not installed on {(asked.Nodes.Length == 0 ? "any node" : "it")}");
        var kept = new List<string>();
        foreach (var plan in plans)
        {
            if (await DoAsync(plan, kept, cancellationToken) is { } failure)
                return failure;
        }
        upgrades.Poke();
        return string.Join("; ", kept);
    }

    /// <summary>A backend, the build it stands for if nothing else does, and what stands for it.</summary>
    private static IReadOnlyList<BackendHere> Together(BackendHere found, IReadOnlyList<BackendHere> has)
    {
        var build = found.IsMeta && !has.Any(other => other.MetaBackendFor == found.MetaBackendFor && other.Name != found.Name)
            ? has.FirstOrDefault(here => here.Name == found.MetaBackendFor && !here.IsSystem) : null;
        return [found, .. build is null ? [] : (BackendHere[])[build], .. has.Where(here => here.IsMeta && here.MetaBackendFor == found.Name)];
    }

    /// <summary>The images that go with a backend.</summary>
    private async Task<Result<PlannedImage[]>> PlanAsync(
        BackendHere found, IReadOnlyList<BackendHere> gone, IReadOnlyList<BackendHere> has, IReadOnlyList<RecordedDeployment> recorded, CancellationToken cancellationToken)
    {
        if (found.IsSystem)
            return new Failure(FailureKind.Conflict, "backend.is_system", found.Images is null ? $"{found.Name} is part of node {found.Node.Name}, and is not deleted"
                : $"{found.Name} is part of node {found.Node.Name}, and is not deleted; its versions are, one by one");
        if (await BackendUse.FaultAsync(deployments, found.Node.Id, [.. gone.Select(here => here.Name), .. gone.Select(here => here.Alias)], cancellationToken) is { } used)
            return used;
        var left = has.Except(gone).ToArray();
        // those that upgrades left too, unless the repository is another's as well
        return gone.Where(here => here is { Form: BackendForm.Image, Images: not null })
            .SelectMany(here => BackendPlan.IsReleased(ImageName.Repository(here.Uri)) || Array.Exists(left, other => other.Images is not null && ImageName.Repository(other.Uri) == ImageName.Repository(here.Uri))
                ? [here.Uri] : here.Images!.Select(image => image.Name))
            .Distinct().Select(image => new PlannedImage(image, ImageUse.Reason(image, recorded, left))).ToArray();
    }

    /// <summary>The image of one version; none, if the node does not have it.</summary>
    private static Result<PlannedImage[]> PlanVersion(BackendHere found, IReadOnlyList<BackendHere> has, string version, IReadOnlyList<RecordedDeployment> recorded)
    {
        var build = found.IsMeta ? has.FirstOrDefault(here => here.Name == found.MetaBackendFor) : found;
        if (build?.Images is not { } images)
            return Failure.Invalid("version", $"{found.Name} is no image on node {found.Node.Name}, and has no versions there");
        if (images.FirstOrDefault(image => image.Version == version) is not { } image && (image = images.FirstOrDefault(image => EngineImage.VersionOf(image.Version) == version)) is null)
            return Array.Empty<PlannedImage>();
        return ImageUse.Reason(image.Name, recorded, has) is { } reason
            ? new Failure(FailureKind.Conflict, "backend.in_use", $"{Stays(image.Name, found.Node.Name, reason)}") : new PlannedImage[] { new(image.Name, null) };
    }

    private async Task<Failure?> DoAsync(Removal plan, List<string> kept, CancellationToken cancellationToken)
    {
        foreach (var folder in plan.Gone.Where(here => here.Form == BackendForm.Folder))
        {
            if (await DeleteAsync(plan, ArtifactKind.Backend, folder.Name, cancellationToken) is { } failure)
                return failure;
        }
        foreach (var (image, reason) in plan.Images)
        {
            if (reason is not null)
                kept.Add(Stays(image, plan.Name, reason));
            else if (await DeleteAsync(plan, ArtifactKind.Image, image, cancellationToken) is not { } failure)
                continue;
            else if (failure.Kind == FailureKind.Conflict && plan.Gone.Count > 0)
                kept.Add(failure.Detail);
            else
                return failure;
        }
        if (plan.Gone.Count > 0)
            await book.RemoveAsync(plan.Node.Id, [.. plan.Gone.Select(here => here.Name)], CancellationToken.None);
        return null;
    }

    /// <summary>Has a node delete something, and waits until it is gone. A conflict says that it stays, anything else that it is not known what became of it.</summary>
    private async Task<Failure?> DeleteAsync(Removal plan, ArtifactKind kind, string name, CancellationToken cancellationToken)
    {
        try
        {
            for (var until = time.GetUtcNow() + Patience; (await plan.Node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = kind, Name = name }, cancellationToken)).UnderWay;)
            {
                if (time.GetUtcNow() > until)
                    return new Failure(FailureKind.Unavailable, "node.unreachable", $"node {plan.Name} is still deleting {name} after {Patience.TotalMinutes:0} minutes");
                await Task.Delay(Poll, time, cancellationToken);
            }
            return null;
        }
        catch (InvalidOperationException e)
        {
            return kind == ArtifactKind.Image ? new Failure(FailureKind.Conflict, "backend.image_kept", Stays(name, plan.Name, e.Message)) : new Failure(FailureKind.Conflict, "backend.in_use", e.Message);
        }
        catch (ArgumentException) when (kind == ArtifactKind.Image)
        {
            return new Failure(FailureKind.Conflict, "backend.image_kept", Stays(name, plan.Name, "the agent there is of an older version, which deletes no images; update it"));
        }
#pragma warning disable CA1031 // whatever the link throws means the same: it may not be deleted, and stays known
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            return new Failure(FailureKind.Unavailable, "node.unreachable", $"node {plan.Name} could not be asked to delete {name}: {e.Message}");
        }
    }

    private static string Stays(string image, string node, string reason) => $"image {image} stays on node {node}: {reason}";

    /// <summary>What is done on a node.</summary>
    /// <param name="Node">The node.</param>
    /// <param name="Name">Its host name.</param>
    /// <param name="Gone">The backends that go; none, if one version goes.</param>
    /// <param name="Images">The images that go with them, or are that version.</param>
    private sealed record Removal(NodeHandle Node, string Name, IReadOnlyList<BackendHere> Gone, IReadOnlyList<PlannedImage> Images);

    /// <summary>An image that is to go.</summary>
    /// <param name="Name">Its name.</param>
    /// <param name="Kept">Why it stays all the same; null: the node is asked.</param>
    private sealed record PlannedImage(string Name, string? Kept);
}

/// <summary>Does the jobs that delete backends.</summary>
internal sealed class BackendDeleteHandler(BackendRemoval removal) : IJobHandler
{
    /// <summary>The kind of its jobs.</summary>
    public const string JobKind = "backend.delete";

    public string Kind => JobKind;

    public async Task<Failure?> RunAsync(JobContext job, CancellationToken cancellationToken)
    {
        if ((await removal.RemoveAsync(GalleryJson.Read<BackendDeletion>(job.Request), cancellationToken)).TryGet(out var kept, out var failure))
        {
            job.Note(kept.Length > 0 ? kept : null);
            return null;
        }
        // what was deleted before the process ended is not there any more
        return failure is { Kind: FailureKind.NotFound } && job.IsResumed ? null : failure;
    }
}
