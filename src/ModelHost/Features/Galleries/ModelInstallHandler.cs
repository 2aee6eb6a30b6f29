using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Core.Galleries;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Galleries;

/// <summary>Installs models: finds out what they are, has their nodes download them, and records their deployments.</summary>
internal sealed class ModelInstallHandler(
    EntryFinder finder, FileScan scan, ModelBackends backends, NodePulls pulls, ModelBook models, ModelDeployments deployments, NodeRegistry nodes, NodeService nodeList, EnvironmentVault vault,
    IOptions<GalleryOptions> options, TimeProvider time) : IJobHandler
{
    /// <summary>The kind of its jobs.</summary>
    public const string JobKind = "model.install";

    private const double BackendDownloaded = 30, Downloaded = 90;
    private static readonly TimeSpan NodePatience = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(200);

    public string Kind => JobKind;

    public async Task<Failure?> RunAsync(JobContext job, CancellationToken cancellationToken)
    {
        var install = GalleryJson.Read<ModelInstall>(job.Request);
        job.Phase(JobPhases.Resolving, $"processing model: {job.Element}");
        if (vault.Open(install.Variables) is not { } variables)
            return new Failure(FailureKind.Conflict, "variables.lost", "the keys that the variables were encrypted with are gone");
        if (!(await finder.ComposeAsync(install.Request, cancellationToken)).TryGet(out var composed, out var failure))
            return Say(failure);
        var model = composed.Model;
        if (await NodesAsync(install.Nodes, cancellationToken) is { } silent)
            return silent;
        // all that can be refused is refused before anything is downloaded
        var version = install.Request.Deploy?.VllmVersion ?? "";
        if (!(await backends.FindAsync(model, version, install.Nodes, cancellationToken)).TryGet(out var engines, out failure))
            return Say(failure);
        foreach (var engine in engines)
        {
            if (!(await deployments.DescribeAsync(model, install.Request.Deploy, variables, engine.NodeId, engine.Recipe, cancellationToken)).TryGet(out _, out failure))
                return Say(failure);
        }
        job.Phase(JobPhases.Verifying, $"processing model: {job.Element}");
        if (await scan.CheckAsync(model, cancellationToken) is { } isUnsafe)
            return isUnsafe;
        var isNew = engines.Any(engine => engine.IsMissing);
        if (!(await backends.InstallAsync(job, model, version, engines, BackendDownloaded, cancellationToken)).TryGet(out engines, out failure))
            return Say(failure);
        if (model.Files.Count > 0 && await PullAsync(job, model, install.Nodes, isNew ? BackendDownloaded : 0, cancellationToken) is { } unpulled)
            return unpulled;
        cancellationToken.ThrowIfCancellationRequested();
        if (!job.TryCommit())
            throw new OperationCanceledException(cancellationToken);
        job.Phase(JobPhases.Persisting, $"processing model: {job.Element}");
        return await StoreAsync(job, composed, install, variables, engines, cancellationToken);
    }

    private async Task<Failure?> StoreAsync(
        JobContext job, (ComposedModel Model, FoundEntry? Entry, GalleryEntry? Fetched) composed, ModelInstall install, Dictionary<string, string> variables, ModelBackend[] engines,
        CancellationToken cancellationToken)
    {
        var (model, entry, _) = composed;
        var before = await models.FindAsync(model.Name, cancellationToken) is { } known ? GalleryJson.Read<InstalledNode[]>(known.Nodes) : [];
        var made = new List<(InstalledNode Node, ModelWish Wish)>();
        foreach (var (node, recipe, _) in engines.OrderBy(engine => Array.IndexOf(install.Nodes, engine.NodeId)))
        {
            if (!(await deployments.DescribeAsync(model, install.Request.Deploy, variables, node, recipe, cancellationToken)).TryGet(out var wish, out var failure))
                return Say(failure);
            if (!(await deployments.MakeAsync(wish, Array.Find(before, one => one.NodeId == node)?.DeploymentId, job.Uid, cancellationToken)).TryGet(out var id, out failure))
                return Say(failure);
            made.Add((new InstalledNode(node, model.Files.Count > 0 ? GalleryNames.ToFolder(model.Name) : "", id), wish));
        }
        job.Note(Unused(made, await nodeList.NamesAsync(cancellationToken)));
        await models.StoreAsync(new InstalledModel
        {
            Name = model.Name,
            NameKey = ModelBook.Key(model.Name),
            Gallery = entry?.Gallery.Name ?? "",
            EntryName = entry?.Entry.Name ?? "",
            Backend = model.Backend,
            Config = model.Config.ToJsonString(),
            Metadata = GalleryJson.Write(Metadata(composed, install.Request)),
            Files = GalleryJson.Write(model.Files),
            // what it has on nodes that were not asked for this time stays there
            Nodes = GalleryJson.Write(before.Where(one => !install.Nodes.Contains(one.NodeId)).Concat(made.Select(one => one.Node)).ToArray()),
            Request = GalleryJson.Write(install.Request),
            InstalledAt = time.GetUtcNow(),
        }, cancellationToken);
        foreach (var (node, wish) in install.Request.Deploy?.Start == true ? made : [])
        {
            if (await deployments.StartAsync(node.DeploymentId, wish.Create, cancellationToken) is { } refused)
                return refused with { Detail = $"{model.Name} is installed, and could not be started: {refused.Detail}" };
        }
        return null;
    }

    /// <summary>What is said of fields that are not used: once, where all nodes have the same build, or the same to say.</summary>
    private static string? Unused(List<(InstalledNode Node, ModelWish Wish)> made, IReadOnlyDictionary<int, string> names) =>
        made.Select(one => one.Wish.Unused).Distinct().ToArray() is [var only] ? only
        : string.Join("; ", made.Where(one => one.Wish.Unused is not null).Select(one => $"on {names.GetValueOrDefault(one.Node.NodeId, $"{one.Node.NodeId}")} {one.Wish.Unused}"));

    private static object Metadata((ComposedModel Model, FoundEntry? Entry, GalleryEntry? Fetched) composed, ModelApply request)
    {
        var (entry, fetched) = (composed.Entry?.Entry ?? new GalleryEntry(), composed.Fetched ?? new GalleryEntry());
        return new
        {
            Description = request.Description ?? (entry.Description.Length > 0 ? entry.Description : fetched.Description),
            License = request.License ?? (entry.License.Length > 0 ? entry.License : fetched.License),
            Icon = request.Icon ?? (entry.Icon.Length > 0 ? entry.Icon : fetched.Icon),
            Urls = request.Urls ?? (entry.Urls.Count > 0 ? entry.Urls : fetched.Urls),
            Tags = request.Tags ?? (entry.Tags.Count > 0 ? entry.Tags : fetched.Tags),
            Templates = composed.Model.Templates,
        };
    }

    private async Task<Failure?> PullAsync(JobContext job, ComposedModel model, int[] targets, double from, CancellationToken cancellationToken)
    {
        var (shares, hosts) = (new double[targets.Length], await nodeList.NamesAsync(cancellationToken));
        var outcomes = await Task.WhenAll(targets.Select((node, index) => PullAsync(job, model, node, hosts.GetValueOrDefault(node, $"{node}"), share =>
        {
            shares[index] = share;
            return from + (shares.Average() * (Downloaded - from));
        }, cancellationToken)));
        return Array.Find(outcomes, failure => failure is not null);
    }

    private async Task<Failure?> PullAsync(JobContext job, ComposedModel model, int nodeId, string name, Func<double, double> share, CancellationToken cancellationToken)
    {
        var shown = new JobNode { NodeId = $"{nodeId}", NodeName = name, Status = "queued" };
        job.Node(shown);
        var request = new PullRequest
        {
            // the same after a restart: the node goes on with it
            PullId = new Guid(SHA256.HashData(Encoding.UTF8.GetBytes($"{job.Uid}:{nodeId}")).AsSpan(0, 16)).ToString(),
            Kind = ArtifactKind.Model,
            Name = GalleryNames.ToFolder(model.Name),
            AllowPickle = options.Value.AllowPickle,
            Metadata = "",
        };
        request.Files.AddRange(model.Files.Select(file => new PullFile { Uri = file.Uri, Sha256 = file.Sha256, Path = file.Filename }));
        var outcome = await pulls.PullAsync(nodeId, request, pull => job.Node(shown = Show(job, shown, pull, share)), () => job.IsCancelled, cancellationToken);
        job.Node(outcome.Failure is { } failure ? shown with { Status = "error", Error = failure.Detail, Phase = null } : shown with { Status = "success", Percentage = 100, Phase = null });
        return outcome.Failure is { } why ? why with { Detail = nodes.All.Count() > 1 ? $"{name}: {why.Detail}" : why.Detail } : null;
    }

    private static JobNode Show(JobContext job, JobNode node, Pull? pull, Func<double, double> share)
    {
        if (pull is null)
            return node with { Status = "queued", Error = "the node is not reached; it is waited for" };
        var total = pull.HasTotalBytes ? pull.TotalBytes : 0;
        var part = total > 0 ? Math.Min((double)pull.DoneBytes / total, 1) : 0;
        var phase = pull.Phase switch
        {
            PullPhase.Resolving => JobPhases.Resolving,
            PullPhase.Downloading => JobPhases.Downloading,
            PullPhase.Unpacking or PullPhase.Installing => JobPhases.Committing,
            _ => JobPhases.Queued,
        };
        if (phase == JobPhases.Downloading)
            job.File(pull.Detail, pull.DoneBytes, total, share(part));
        else if (phase != JobPhases.Queued)
            job.Phase(phase, $"processing model: {job.Element}");
        return node with
        {
            Status = phase == JobPhases.Queued ? "queued" : "downloading",
            FileName = pull.Detail.Length > 0 ? pull.Detail : null,
            Current = JobStatus.Size(pull.DoneBytes),
            Total = total > 0 ? JobStatus.Size(total) : null,
            Percentage = Math.Round(part * 100, 2),
            Phase = phase,
            Error = null,
        };
    }

    /// <summary>Waits until the nodes have told something, which after a start takes a moment.</summary>
    private async Task<Failure?> NodesAsync(int[] targets, CancellationToken cancellationToken)
    {
        var until = time.GetUtcNow() + NodePatience;
        while (Array.FindIndex(targets, node => nodes.Find(node)?.LastReport is null) is >= 0 and var index)
        {
            if (time.GetUtcNow() > until)
                return DeploymentFailures.NodeSilent($"{targets[index]}");
            await Task.Delay(Poll, time, cancellationToken);
        }
        return null;
    }

    private static Failure Say(Failure failure) => failure is { Kind: FailureKind.Invalid, Field.Length: > 0 } ? failure with { Detail = $"{failure.Field}: {failure.Detail}" } : failure;
}
