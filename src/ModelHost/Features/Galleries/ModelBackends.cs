using ModelHost.Core;
using ModelHost.Core.Galleries;
using ModelHost.Features.Backends;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Features.Releases;

namespace ModelHost.Features.Galleries;

/// <summary>The backend of a model on a node.</summary>
/// <param name="NodeId">The node.</param>
/// <param name="Recipe">How the engine is started there; of one that is missing, as the gallery has it.</param>
/// <param name="IsMissing">Whether it is to be installed first.</param>
internal sealed record ModelBackend(int NodeId, LaunchRecipe Recipe, bool IsMissing);

/// <summary>Finds the backends of models on their nodes: what is installed there, else what the first gallery that has one offers, in the build for the node.</summary>
internal sealed class ModelBackends(
    BackendRecipes recipes, BackendShelves shelves, BackendPlanner planner, BackendInstallHandler installs, ReleaseService releases, NodeRegistry nodes, NodeService nodeList, TimeProvider time)
{
    private static readonly TimeSpan ReportPatience = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(200);

    /// <summary>Finds the backend of a model on each of some nodes. Installs nothing.</summary>
    /// <param name="model">The model.</param>
    /// <param name="version">Tag of an image that was asked for; empty: none.</param>
    /// <param name="targets">The nodes.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async Task<Result<ModelBackend[]>> FindAsync(ComposedModel model, string version, int[] targets, CancellationToken cancellationToken)
    {
        // the version comes into the name of an image
        if (DeploymentRules.Version(version) is { } wrong)
            return wrong;
        var (names, found) = (await nodeList.NamesAsync(cancellationToken), new List<ModelBackend>());
        BackendShelf? shelf = null;
        foreach (var node in targets)
        {
            if (!(await HereAsync(model, version, node, cancellationToken)).TryGet(out var here, out var failure))
                return failure;
            if (here.Missing is not null)
            {
                shelf ??= await shelves.ReadAsync(null, cancellationToken);
                var newest = version.Length > 0 ? "" : await releases.LatestAsync(cancellationToken);
                var name = names.GetValueOrDefault(node, $"{node}");
                if (!Offered(model.Backend, version, newest, shelf, node, name).TryGet(out var offered, out failure))
                    return Refused(model, nodes.All.Skip(1).Any() ? failure with { Detail = $"{name}: {failure.Detail}" } : failure);
                here = here with { Recipe = offered };
            }
            found.Add(new ModelBackend(node, here.Recipe, here.Missing is not null));
        }
        return found.ToArray();
    }

    /// <summary>Installs a model's backend where it is missing, as the first part of the model's job.</summary>
    /// <returns>The backends as they are installed.</returns>
    public async Task<Result<ModelBackend[]>> InstallAsync(
        JobContext job, ComposedModel model, string version, ModelBackend[] found, double percent, CancellationToken cancellationToken)
    {
        if (found.Where(one => one.IsMissing).Select(one => one.NodeId).ToArray() is not { Length: > 0 } lacking)
            return found;
        if (await installs.InstallForModelAsync(job, model.Backend, version, lacking, percent, cancellationToken) is { } failure)
            return Refused(model, failure);
        var installed = found.Where(one => !one.IsMissing).ToList();
        foreach (var node in lacking)
        {
            // of one that is a folder the node's next report tells
            for (var until = time.GetUtcNow() + ReportPatience; ; await Task.Delay(Poll, time, cancellationToken))
            {
                if (!(await HereAsync(model, version, node, cancellationToken)).TryGet(out var here, out failure))
                    return failure;
                if (here.Missing is null)
                {
                    installed.Add(new ModelBackend(node, here.Recipe, IsMissing: false));
                    break;
                }
                if (time.GetUtcNow() > until)
                    return here.Missing;
                nodes.Find(node)?.Wake();
            }
        }
        return installed.ToArray();
    }

    /// <summary>What a node has by a model's backend, and that it has nothing.</summary>
    private async Task<Result<(LaunchRecipe Recipe, Failure? Missing)>> HereAsync(ComposedModel model, string version, int node, CancellationToken cancellationToken) =>
        !(await recipes.FindAsync(node, model.Backend, version, cancellationToken)).TryGet(out var has, out var failure) ? failure
        : nodes.Find(node)?.LastReport is not { } report ? DeploymentFailures.NodeSilent($"{node}")
        : (has, LaunchChecks.Installed(has.Recipe, node, report.Hostname, report));

    /// <summary>How the engine would be started that is offered for a node.</summary>
    private Result<LaunchRecipe> Offered(string backend, string version, string newest, BackendShelf shelf, int node, string name)
    {
        if (nodes.Find(node)?.LastReport is not { } report)
            return DeploymentFailures.NodeSilent(name);
        if (!shelf.Find(backend).TryGet(out var entry, out var failure)
            || !planner.Plan(shelf, entry, name, report, version, newest).TryGet(out var planned, out failure)
            || !BackendRecipes.Choose(planned.Plan.Rows, backend, version).TryGet(out var recipe, out failure))
            return failure;
        if (!planned.Plan.Rows.Any(row => row.Name == backend || row.Alias == backend))
            return new Failure(FailureKind.Conflict, "backend.name", $"the gallery {entry.Gallery.Name} calls it {GalleryNames.ToInstalled(entry.Entry.Name)}, and so must the model");
        // a folder's program says itself what it runs on
        return recipe.Carried is not null && !recipe.Recipe.Runtimes.Any(report.Runtimes.Contains)
            ? DeploymentFailures.NoRuntime(name, backend, recipe.Recipe.Runtimes, report.Runtimes) : recipe;
    }

    private static Failure Refused(ComposedModel model, Failure failure) =>
        failure with { Field = null, Detail = $"backend {model.Backend}, which {model.Name} needs, could not be installed: {failure.Detail}" };
}
