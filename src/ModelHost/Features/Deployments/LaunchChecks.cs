using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>Where a launch goes.</summary>
/// <param name="Node">The node.</param>
/// <param name="Report">What it said last.</param>
/// <param name="Runtime">The runtime on it that starts the backend.</param>
/// <param name="Recipe">The backend.</param>
internal sealed record LaunchSite(Node Node, NodeReport Report, string Runtime, BackendRecipe Recipe);

/// <summary>An active deployment of a node: it holds its port, its names and its share of its GPUs.</summary>
internal readonly record struct ActiveDeployment(int Id, LaunchSpec Spec);

/// <summary>What every launch has to pass, and a plan asks about. Inside a transaction what it finds holds until the commit.</summary>
internal sealed class LaunchChecks(NodeRegistry nodes, LiveSettings settings)
{
    /// <summary>Finds the node, sees that it allows the paths, and finds a runtime on it for the backend.</summary>
    /// <param name="db">The database.</param>
    /// <param name="nodeId">The node.</param>
    /// <param name="spec">What is launched; its runtime does not count.</param>
    /// <param name="recipe">The backend.</param>
    /// <param name="preferred">The runtime to take if it is there; else, or where it is null, the node's, that of the settings, the backend's best.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async Task<Result<LaunchSite>> SiteAsync(
        ModelHostDbContext db, int nodeId, LaunchSpec spec, BackendRecipe recipe, string? preferred, CancellationToken cancellationToken)
    {
        var node = await db.Nodes.AsNoTracking().FirstOrDefaultAsync(n => n.Id == nodeId, cancellationToken);
        if (node is null)
            return DeploymentFailures.NodeNotFound(nodeId);
        if (nodes.Find(node.Id)?.Report is not { } report)
            return DeploymentFailures.NodeSilent(node.Hostname);
        if (Installed(recipe, node.Id, node.Hostname, report) is { } absent)
            return absent;
        if (DeploymentRules.CheckPaths(spec, node.Hostname, report.ModelFolders, report.ModelsFolder) is { } outside)
            return outside;
        if (RuntimeChoice.Choose(Runtimes(recipe, report), report.Runtimes, preferred, node.ContainerRuntime, settings.Current.PreferredContainerRuntime) is not { } runtime)
            return DeploymentFailures.NoRuntime(node.Hostname, recipe.Name, recipe.Runtimes, report.Runtimes);
        return new LaunchSite(node, report, runtime, recipe);
    }

    /// <summary>Looks whether a node has a backend that not every node has.</summary>
    public static Failure? Installed(BackendRecipe recipe, int nodeId, string nodeName, NodeReport report) =>
        recipe.Protocol != BackendCatalogue.Grpc || report.Backends.Any(backend => IsCalled(backend, recipe.Name)) ? null
        : Failure.Invalid("backend", $"'{recipe.Name}' is not installed on node {nodeName}, which has {string.Join(", ",
            BackendCatalogue.BuiltIn.Keys.Concat(report.Backends.Select(backend => backend.Name)).Distinct().Order(StringComparer.Ordinal).Take(20))}; "
            + $"POST /api/nodes/{nodeId}/backends/install installs one of GET /backends/available");

    private static string[] Runtimes(BackendRecipe recipe, NodeReport report) => recipe.Protocol != BackendCatalogue.Grpc ? recipe.Runtimes
        : [.. report.Backends.Where(backend => IsCalled(backend, recipe.Name)).OrderByDescending(backend => backend.Name == recipe.Name).Take(1)
            // one that is an image runs on whatever starts containers there
            .SelectMany(backend => ContainerRuntimes.All.Contains(backend.Runtime) ? ContainerRuntimes.All : [backend.Runtime])];

    private static bool IsCalled(ReportedBackend backend, string name) => backend.Name == name || backend.Alias == name;

    /// <summary>Checks the options against the release that will run.</summary>
    /// <param name="spec">What is launched.</param>
    /// <param name="recipe">Knows the options.</param>
    /// <param name="latest">The release that runs if none is asked for; empty: not known, and the node checks it at the start.</param>
    public static Failure? Unsupported(LaunchSpec spec, BackendRecipe recipe, string latest) =>
        EngineReleaseRules.Check(recipe, spec.EngineVersion ?? latest, spec.EngineArgs, spec.ExtraArgs);

    /// <summary>The active deployments of a node.</summary>
    /// <param name="db">The database.</param>
    /// <param name="nodeId">The node.</param>
    /// <param name="except">One that does not count.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async Task<IReadOnlyList<ActiveDeployment>> ActiveAsync(ModelHostDbContext db, int nodeId, int? except, CancellationToken cancellationToken)
    {
        var rows = await db.Deployments.AsNoTracking().Where(d => d.ReservedPort != null && d.NodeId == nodeId && d.Id != except).ToListAsync(cancellationToken);
        return [.. rows.Select(d => new ActiveDeployment(d.Id, d.ReadSpec()))];
    }

    /// <summary>Looks for who holds the port.</summary>
    public static Failure? PortHeld(int port, Node node, IReadOnlyList<ActiveDeployment> active) =>
        active.FirstOrDefault(d => d.Spec.Port == port) is { Spec: not null } holder
            ? DeploymentFailures.PortTaken(port, node.Hostname, holder.Id, holder.Spec.ModelName) : null;

    /// <summary>Looks for who holds one of the public names of a deployment.</summary>
    public static async Task<Failure?> NameHeldAsync(ModelHostDbContext db, LaunchSpec spec, int? except, CancellationToken cancellationToken)
    {
        var names = Names(spec);
        if (names.Distinct().Count() != names.Length)
            return Failure.Invalid("lora_modules", "an adapter has the public name of the model");
        var taken = await db.PublicNames.Where(n => names.Contains(n.Name) && n.DeploymentId != except).OrderBy(n => n.Name).FirstOrDefaultAsync(cancellationToken);
        if (taken is null)
            return null;
        var owner = await db.Deployments.AsNoTracking().FirstAsync(d => d.Id == taken.DeploymentId, cancellationToken);
        return DeploymentFailures.NameTaken(taken.Name, owner.Id, owner.ReadSpec().ModelName);
    }

    /// <summary>The names under which a deployment is public.</summary>
    public static string[] Names(LaunchSpec spec) => [.. spec.LoraModules.Select(module => module.Name).Append(spec.PublicName)];

    /// <summary>Chooses the GPUs.</summary>
    public static Result<IReadOnlyList<int>> Place(LaunchSite site, PlacementRequest request, IEnumerable<ActiveDeployment> active) =>
        Cordoned(site, request) is { } cordoned ? cordoned
        // those that are counted are NVIDIA's
        : site.Recipe.Device != "nvidia" ? NoGpus(site.Recipe, request)
        // of a list that is not whole, GPUs whose figures are current may be used
        : site.Report.GpuError.Length > 0 && site.Report.Gpus.All(gpu => gpu.Stale.Length > 0)
            ? DeploymentFailures.GpusUnknown(site.Node.Hostname, site.Report.GpuError)
            : Placement.Choose(Capacities(site, active), request);

    private static Result<IReadOnlyList<int>> NoGpus(BackendRecipe recipe, PlacementRequest request) =>
        request.GpuIds is { Count: > 0 } ? Failure.Invalid("gpu_ids", $"backend '{recipe.Name}' uses none of them: its device is {recipe.Device}") : Array.Empty<int>();

    /// <summary>Refuses what is asked of a node or of GPUs under maintenance; what is left to choose avoids those.</summary>
    private static Failure? Cordoned(LaunchSite site, PlacementRequest request)
    {
        var (cordon, known) = (site.Node.ReadCordon(), site.Report.Gpus.Select(gpu => gpu.Index).ToArray());
        if (cordon.CoversAll(known))
            return DeploymentFailures.NodeCordoned(site.Node.Hostname);
        var cordoned = (request.GpuIds ?? []).Intersect(known).Where(cordon.Covers).Order().ToArray();
        return cordoned.Length == 0 ? null
            : DeploymentFailures.GpusCordoned(site.Node.Hostname, cordoned, known.Where(gpu => !cordon.Covers(gpu)).Order());
    }

    /// <summary>The GPUs of a node as placement sees them.</summary>
    public static IReadOnlyList<GpuCapacity> Capacities(LaunchSite site, IEnumerable<ActiveDeployment> active)
    {
        var (report, cordon) = (site.Report, site.Node.ReadCordon());
        var declared = active.SelectMany(d => d.Spec.GpuIds.Select(id => (id, d.Spec.GpuMemoryFraction)))
            .GroupBy(use => use.id).ToDictionary(group => group.Key, group => group.Sum(use => use.GpuMemoryFraction));
        return [.. report.Gpus.Select(gpu => new GpuCapacity(
            gpu.Index, gpu.HasMemoryTotalBytes ? gpu.MemoryTotalBytes : null, gpu.HasMemoryUsedBytes ? gpu.MemoryUsedBytes : null,
            declared.GetValueOrDefault(gpu.Index), cordon.Covers(gpu.Index))
        {
            Stale = gpu.Stale.Length > 0 ? gpu.Stale : null,
            Split = gpu.MigEnabled,
            Unified = gpu.Source == "unified",
        })];
    }
}
