using System.Collections.Concurrent;
using ModelHost.Core;
using ModelHost.Core.Galleries;
using ModelHost.Features.Deployments;
using ModelHost.Features.Galleries;
using ModelHost.Features.Nodes;
using ModelHost.Features.Releases;
using ModelHost.Protocol;

namespace ModelHost.Features.Backends;

/// <summary>Installs and upgrades backends: finds out what they are, chooses a build for each node, and has the nodes get it.</summary>
internal sealed class BackendInstallHandler(
    BackendShelves shelves, BackendPlanner planner, BackendInventory inventory, BackendBook book, BackendUpgrades upgrades, NodePulls pulls, NodeRegistry nodes,
    DeploymentReads deployments, ReleaseService releases, TimeProvider time) : IJobHandler
{
    /// <summary>The kind of its jobs.</summary>
    public const string JobKind = "backend.install";

    private const double Downloaded = 95;
    private static readonly TimeSpan FirstReport = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(200), Retry = TimeSpan.FromSeconds(2);

    public string Kind => JobKind;

    public Task<Failure?> RunAsync(JobContext job, CancellationToken cancellationToken) =>
        InstallAsync(job, GalleryJson.Read<BackendInstall>(job.Request), new JobPart(job.Element, Downloaded, job.Uid), cancellationToken);

    /// <summary>Installs the backend that a model needs, as the first part of the model's own job.</summary>
    /// <param name="job">The job.</param>
    /// <param name="backend">The backend's name, as galleries have it.</param>
    /// <param name="version">Release or tag that was asked for; empty: that of the gallery.</param>
    /// <param name="targets">The nodes.</param>
    /// <param name="percent">How far the job is when it has been downloaded.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public Task<Failure?> InstallForModelAsync(JobContext job, string backend, string version, int[] targets, double percent, CancellationToken cancellationToken) =>
        InstallAsync(job, new BackendInstall { Id = backend, Version = version, Nodes = targets }, new JobPart(backend, percent, $"{job.Uid}:backend"), cancellationToken);

    private async Task<Failure?> InstallAsync(JobContext job, BackendInstall install, JobPart part, CancellationToken cancellationToken)
    {
        job.Phase(JobPhases.Resolving, $"processing backend: {part.Element}");
        var shelf = await shelves.ReadAsync(install.Galleries, cancellationToken);
        if (!Find(install, shelf).TryGet(out var found, out var failure)
            && (!install.IsUpgrade || !(await AddressAsync(install.Id, failure, cancellationToken)).TryGet(out found, out failure)))
            return failure;
        var newest = install.Version.Length > 0 ? "" : await releases.LatestAsync(cancellationToken);
        var targets = install.Nodes.Length > 0 || !install.IsUpgrade ? install.Nodes : await HoldersAsync(found, cancellationToken);
        if (targets.Length == 0)
            return new Failure(FailureKind.Conflict, "backend.not_installed", install.IsUpgrade ? $"{found.Entry.Name} is not installed on any node" : "there is no node");
        var asked = new Asked(job, part, install, shelf, found, newest, await inventory.NamesAsync(cancellationToken), new ConcurrentDictionary<int, double>());
        foreach (var id in targets)
            job.Node(new JobNode { NodeId = $"{id}", NodeName = asked.NameOf(id), Status = "queued" });
        var outcomes = await Task.WhenAll(targets.Select(async id => (Id: id, Failure: await InstallAsync(asked, id, targets.Length, cancellationToken))));
        upgrades.Poke();
        var failed = outcomes.Where(outcome => outcome.Failure is not null).ToArray();
        return failed.Length == 0 ? null : failed[0].Failure! with
        {
            Detail = string.Join("; ", failed.Select(outcome => targets.Length > 1 || nodes.All.Skip(1).Any() ? $"{asked.NameOf(outcome.Id)}: {outcome.Failure!.Detail}" : outcome.Failure!.Detail)),
        };
    }

    // of a backend of ModelHost itself, an upgrade means its images, whatever a gallery would install by its name
    private static Result<FoundEntry> Find(BackendInstall install, BackendShelf shelf) =>
        install.Uri.Length > 0 ? new FoundEntry(new GalleryRead { Name = "", Url = "" }, new GalleryEntry { Name = install.Name, Uri = install.Uri, Alias = install.Alias })
        : install.IsUpgrade && BackendShelf.Own(install.Id) is { } own ? own : shelf.Find(install.Id);

    /// <summary>What came from an address is upgraded from there.</summary>
    private async Task<Result<FoundEntry>> AddressAsync(string name, Failure unknown, CancellationToken cancellationToken) =>
        (await inventory.ListAsync(cancellationToken)).FirstOrDefault(here => here is { Gallery.Length: 0, Uri.Length: > 0, IsSystem: false } && here.Name == name) is { } here
            ? new FoundEntry(new GalleryRead { Name = "", Url = "" }, new GalleryEntry { Name = name, Uri = here.Uri, Alias = here.Alias }) : unknown;

    private async Task<int[]> HoldersAsync(FoundEntry found, CancellationToken cancellationToken)
    {
        var name = GalleryNames.ToInstalled(found.Entry.Name);
        return [.. (await inventory.ListAsync(cancellationToken)).Where(here => here.Name == name).Select(here => here.Node.Id).Distinct().Order()];
    }

    private async Task<Failure?> InstallAsync(Asked asked, int id, int targets, CancellationToken cancellationToken)
    {
        var shown = new JobNode { NodeId = $"{id}", NodeName = asked.NameOf(id), Status = "queued" };
        void Show(JobNode next) => asked.Job.Node(shown = next);
        var failure = await TryInstallAsync(asked, id, pull =>
        {
            Show(NodePulls.Show(shown, pull));
            if (pull is not null)
                Tell(asked, id, targets, pull);
        }, cancellationToken);
        Show(failure is null ? shown with { Status = "success", Percentage = 100, Phase = null, Error = null }
            : shown with { Status = "error", Error = failure.Detail, Phase = null });
        return failure;
    }

    private async Task<Failure?> TryInstallAsync(Asked asked, int id, Action<Pull?> progress, CancellationToken cancellationToken)
    {
        if (await HeardAsync(id, cancellationToken) is not var (node, has))
            return new Failure(FailureKind.Unavailable, "node.unreachable", $"node {asked.NameOf(id)} does not answer");
        if (!planner.Plan(asked.Shelf, asked.Found, asked.NameOf(id), node.LastReport!, asked.Install.Version, asked.Newest).TryGet(out var planned, out var failure))
            return failure;
        var (build, plan) = planned;
        var name = GalleryNames.ToInstalled(build.Entry.Name);
        var before = has.FirstOrDefault(here => here.Name == name && here.Form == plan.Form);
        // an image is what its tag says; a folder is left alone unless it is to be another one
        var isThere = before is not null && !asked.Install.Force && (plan.Form is not (BackendForm.Image or BackendForm.BuiltIn) || before.Versions?.Contains(ImageName.Tag(plan.Pull!.Name)) == true);
        if (before is { IsSystem: true, Form: BackendForm.Folder } && !isThere)
            return new Failure(FailureKind.Conflict, "backend.is_system", $"{name} was laid on the node by hand, and stays as it is");
        if (before is { Form: BackendForm.Folder } && !isThere && await BackendUse.FaultAsync(deployments, id, [name, .. plan.Rows.Select(row => row.Name), before.Alias], cancellationToken) is { } used)
            return used;
        Pull? pulled = null;
        if (plan.Pull is { } pull && !isThere)
        {
            if (!(await pulls.PullAsync(id, NodePulls.WithId(asked.Part.Id, id, pull), progress, () => asked.Job.IsCancelled, cancellationToken)).TryGet(out pulled, out failure))
                return failure;
        }
        foreach (var row in plan.Rows)
        {
            row.InstalledAt = isThere ? before!.InstalledAt ?? time.GetUtcNow() : time.GetUtcNow();
            if (row.MetaBackendFor.Length == 0)
                (row.Digest, row.Version) = isThere ? (before!.Digest, before.Version) : (pulled?.Digest ?? "", row.Version);
        }
        // the node has it: that is said even if nobody wants to know any more
        await book.StoreAsync(id, plan.Rows, CancellationToken.None);
        return null;
    }

    /// <summary>A node that has told what it is and has, which after a start of either side takes a moment; null: it does not answer.</summary>
    private async Task<(NodeHandle Node, IReadOnlyList<BackendHere> Has)?> HeardAsync(int id, CancellationToken cancellationToken)
    {
        for (var until = time.GetUtcNow() + FirstReport; ;)
        {
            var node = nodes.Find(id);
            var isAsked = node?.Report is not null;
            if (isAsked && await inventory.ReadAsync(node!, cancellationToken) is (var has, true, _))
                return (node!, has);
            // one that was never heard may be about to be
            if (node is { IsUnreachable: true, LastReport: not null } || time.GetUtcNow() > until)
                return null;
            await Task.Delay(isAsked ? Retry : Poll, time, cancellationToken);
        }
    }

    private static void Tell(Asked asked, int id, int targets, Pull pull)
    {
        asked.Shares[id] = NodePulls.Share(pull);
        if (pull.Phase == PullPhase.Downloading)
            asked.Job.File(pull.Detail, pull.DoneBytes, pull.HasTotalBytes ? pull.TotalBytes : 0, asked.Shares.Values.Sum() / targets * asked.Part.Percent);
        else if (pull.Phase is PullPhase.Unpacking or PullPhase.Installing)
            asked.Job.Phase(JobPhases.Committing, $"processing backend: {asked.Part.Element}");
    }

    /// <summary>The share that an installation has in its job.</summary>
    /// <param name="Element">What is installed, for people.</param>
    /// <param name="Percent">How far the job is when everything has been downloaded.</param>
    /// <param name="Id">What the ids of its pulls are made of, the same after a restart.</param>
    private sealed record JobPart(string Element, double Percent, string Id);

    private sealed record Asked(JobContext Job, JobPart Part, BackendInstall Install, BackendShelf Shelf, FoundEntry Found, string Newest, IReadOnlyDictionary<int, string> Names, ConcurrentDictionary<int, double> Shares)
    {
        public string NameOf(int id) => Names.GetValueOrDefault(id) ?? $"{id}";
    }
}
