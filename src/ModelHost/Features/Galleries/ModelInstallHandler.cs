using ModelHost.Core;
using ModelHost.Core.Galleries;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;

namespace ModelHost.Features.Galleries;

/// <summary>Installs models: finds out what they are, has their nodes download them, and records their deployments.</summary>
internal sealed class ModelInstallHandler(
    EntryFinder finder, FileScan scan, ModelBackends backends, ModelFiles files, ModelBook models, ModelDeployments deployments, NodeRegistry nodes, NodeService nodeList, EnvironmentVault vault,
    TimeProvider time) : IJobHandler
{
    /// <summary>The kind of its jobs.</summary>
    public const string JobKind = "model.install";

    private const double BackendDownloaded = 30;
    private static readonly TimeSpan NodePatience = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(200);

    public string Kind => JobKind;

    public async Task<Failure?> RunAsync(JobContext job, CancellationToken cancellationToken)
    {
        var install = GalleryJson.Read<ModelInstall>(job.Request);
        // past its point of no return it is not asked again what the model is: that may have changed meanwhile
        if (install.Decided is { } decided)
            return await FinishAsync(job, install, decided, cancellationToken);
        job.Phase(JobPhases.Resolving, $"processing model: {job.Element}");
        if (vault.Open(install.Variables) is not { } variables)
            return VariablesLost;
        if (!(await finder.ComposeAsync(install.Request, cancellationToken)).TryGet(out var composed, out var failure))
            return Say(failure);
        var model = composed.Model;
        if (await models.FindAsync(model.Name, cancellationToken) is { } other && other.Name != model.Name)
            return new Failure(FailureKind.Conflict, "model.name_taken", $"a model {other.Name} is installed, and names that differ in letter case alone are one");
        if (await NodesAsync(install.Nodes, cancellationToken) is { } silent)
            return silent;
        // all that can be refused is refused before anything is downloaded
        if (!(await backends.FindAsync(model, Version(install), install.Nodes, cancellationToken)).TryGet(out var engines, out failure))
            return Say(failure);
        if (await RefusedAsync(install, model, variables, engines, cancellationToken) is { } refused)
            return refused;
        job.Phase(JobPhases.Verifying, $"processing model: {job.Element}");
        if (await scan.CheckAsync(model, cancellationToken) is { } isUnsafe)
            return isUnsafe;
        var isNew = engines.Any(engine => engine.IsMissing);
        if (!(await backends.InstallAsync(job, model, Version(install), engines, BackendDownloaded, cancellationToken)).TryGet(out engines, out failure))
            return Say(failure);
        decided = new DecidedModel(model, composed.Entry?.Gallery.Name ?? "", composed.Entry?.Entry.Name ?? "", GalleryJson.Write(Metadata(composed, install.Request)));
        var hasFiles = model.Files.Count > 0;
        try
        {
            if (hasFiles && await files.StageAsync(job, model, install.Nodes, isNew ? BackendDownloaded : 0, cancellationToken) is { } unstaged)
                return unstaged;
            // that took long: what would be refused now must not find the new files in their place
            if (hasFiles && await RefusedAsync(install, model, variables, engines, cancellationToken) is { } late)
            {
                await files.GiveUpAsync(job, model, install.Nodes, keepPartial: true);
                return late;
            }
            if (!await job.TryCommitAsync(GalleryJson.Write(install with { Decided = decided }), cancellationToken))
                throw new OperationCanceledException(cancellationToken);
        }
        catch (Exception e) when (hasFiles && (job.IsCancelled || e is not OperationCanceledException))
        {
            await files.GiveUpAsync(job, model, install.Nodes, keepPartial: !job.IsCancelled);
            throw;
        }
        return await FinishAsync(job, install, decided, cancellationToken);
    }

    /// <summary>Does what is done whole: the files take their place, on all nodes, and it is recorded where they have.</summary>
    private async Task<Failure?> FinishAsync(JobContext job, ModelInstall install, DecidedModel decided, CancellationToken cancellationToken)
    {
        var model = decided.Model;
        var (placed, missing) = model.Files.Count > 0 ? await files.CommitAsync(job, model, install.Nodes, cancellationToken) : (install.Nodes, null);
        if (placed.Length == 0)
            return missing;
        job.Phase(JobPhases.Persisting, $"processing model: {job.Element}");
        var unstored = await NodesAsync(placed, cancellationToken)
            ?? (vault.Open(install.Variables) is { } variables ? await StoreAsync(job, decided, install with { Nodes = placed }, variables, cancellationToken) : VariablesLost);
        return missing is null ? unstored : unstored is null ? missing : unstored with { Detail = $"{missing.Detail}; {unstored.Detail}" };
    }

    private static Failure VariablesLost => new(FailureKind.Conflict, "variables.lost", "the keys that the variables were encrypted with are gone");

    private static string Version(ModelInstall install) => install.Request.Deploy?.VllmVersion ?? "";

    private async Task<Failure?> RefusedAsync(ModelInstall install, ComposedModel model, Dictionary<string, string> variables, ModelBackend[] engines, CancellationToken cancellationToken)
    {
        foreach (var engine in engines)
        {
            if (!(await deployments.DescribeAsync(model, install.Request.Deploy, variables, engine.NodeId, engine.Recipe, cancellationToken)).TryGet(out _, out var failure))
                return Say(failure);
        }
        return null;
    }

    private async Task<Failure?> StoreAsync(JobContext job, DecidedModel decided, ModelInstall install, Dictionary<string, string> variables, CancellationToken cancellationToken)
    {
        var model = decided.Model;
        Failure Unrecorded(Failure why) => model.Files.Count == 0 ? Say(why) : Say(why) with { Detail = $"the files of {model.Name} are in their place, and its deployment could not be recorded: {Say(why).Detail}" };
        if (!(await backends.FindAsync(model, Version(install), install.Nodes, cancellationToken)).TryGet(out var engines, out var failure))
            return Unrecorded(failure);
        var before = await models.FindAsync(model.Name, cancellationToken) is { } known ? GalleryJson.Read<InstalledNode[]>(known.Nodes) : [];
        var names = await nodeList.NamesAsync(cancellationToken);
        var made = new List<(InstalledNode Node, ModelWish Wish)>();
        Failure? unmade = null;
        foreach (var (node, recipe, _) in engines)
        {
            if ((await deployments.DescribeAsync(model, install.Request.Deploy, variables, node, recipe, cancellationToken)).TryGet(out var wish, out failure)
                && (await deployments.MakeAsync(wish, install.Request.Deploy?.Port, Array.Find(before, one => one.NodeId == node)?.DeploymentId, job.Uid, cancellationToken)).TryGet(out var id, out failure))
                made.Add((new InstalledNode(node, model.Files.Count > 0 ? GalleryNames.ToFolder(model.Name) : "", id), wish));
            else
                unmade ??= engines.Length == 1 ? failure : Say(failure) with { Field = null, Detail = $"{names.GetValueOrDefault(node, $"{node}")}: {Say(failure).Detail}" };
        }
        if (made.Count == 0)
            return unmade is null ? null : Unrecorded(unmade);
        job.Note(Joined(Unused(made, names), NotRunning(engines, names)));
        await models.StoreAsync(new InstalledModel
        {
            Name = model.Name,
            NameKey = ModelBook.Key(model.Name),
            Gallery = decided.Gallery,
            EntryName = decided.EntryName,
            Backend = model.Backend,
            Config = model.Config.ToJsonString(),
            Metadata = decided.Metadata,
            Files = GalleryJson.Write(model.Files),
            // what it has on nodes that were not asked for this time, or could not have a new one, stays there
            Nodes = GalleryJson.Write(before.Where(one => made.TrueForAll(other => other.Node.NodeId != one.NodeId)).Concat(made.Select(one => one.Node)).ToArray()),
            Request = GalleryJson.Write(install.Request),
            InstalledAt = time.GetUtcNow(),
        }, cancellationToken);
        if (unmade is not null)
            return Unrecorded(unmade);
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

    // an engine that ModelHost brings itself is not installed, and what runs it may be down for the moment: so that is no failure
    private string? NotRunning(ModelBackend[] engines, IReadOnlyDictionary<int, string> names) => Joined([.. engines
        .Where(engine => nodes.Find(engine.NodeId)?.LastReport is { } report && !engine.Recipe.Recipe.Runtimes.Any(report.Runtimes.Contains))
        .Select(engine => $"{names.GetValueOrDefault(engine.NodeId, $"{engine.NodeId}")} cannot start it now: it has no {string.Join(" or ", engine.Recipe.Recipe.Runtimes)}")]);

    private static string? Joined(params string?[] notes) => notes.Where(note => !string.IsNullOrEmpty(note)).ToArray() is { Length: > 0 } said ? string.Join("; ", said) : null;

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
