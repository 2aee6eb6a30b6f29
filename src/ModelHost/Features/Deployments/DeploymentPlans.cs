using ModelHost.Core;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Backends;

namespace ModelHost.Features.Deployments;

/// <summary>Says beforehand what a start would find. Changes nothing.</summary>
internal sealed class DeploymentPlans(Database database, LaunchChecks checks, BackendRecipes recipes)
{
    private const double Mib = 1024 * 1024;

    /// <summary>Whether a deployment would find its port, its names and room on GPUs, and for every GPU why not.</summary>
    public async Task<Result<DeploymentPlan>> PlanAsync(DeploymentPlanRequest request, CancellationToken cancellationToken)
    {
        if (!(await recipes.CheckAsync(request, cancellationToken)).TryGet(out var found, out var fault))
            return fault;
        var recipe = found.Recipe;
        var spec = LaunchSpecs.From(request, found, recipe.Runtimes[0]);
        await using var db = await database.OpenAsync(cancellationToken);
        if (!(await checks.SiteAsync(db, request.NodeId!.Value, spec, recipe, preferred: null, cancellationToken)).TryGet(out var site, out var refusal))
            return refusal.Kind == FailureKind.Conflict ? new DeploymentPlan { Fits = false, BlockedReason = refusal.Detail } : refusal;
        var active = await LaunchChecks.ActiveAsync(db, site.Node.Id, except: null, cancellationToken);
        if (LaunchChecks.Unsupported(spec, recipe, latest: "") is { } unsupported)
            return unsupported;
        var wish = new PlacementRequest(spec.GpuMemoryFraction, request.GpuIds, request.TensorParallelSize, request.SkipResourceCheck);
        var placed = LaunchChecks.Place(site, wish, active);
        var blocks = new[]
        {
            LaunchChecks.PortHeld(spec.Port, site.Node, active),
            await LaunchChecks.NameHeldAsync(db, spec, except: null, cancellationToken),
            placed.Failure,
        }.OfType<Failure>().ToArray();
        if (blocks.FirstOrDefault(block => block.Kind != FailureKind.Conflict) is { } wrong)
            return wrong;
        return new DeploymentPlan
        {
            Fits = blocks.Length == 0,
            BlockedReason = blocks.Length == 0 ? null : string.Join(" ", blocks.Select(block => block.Detail.TrimEnd('.') + ".")),
            GpuIds = blocks.Length == 0 ? placed.Match(gpus => gpus, _ => []) : null,
            Gpus = [.. LaunchChecks.Capacities(site, active).Zip(site.Report.Gpus, (capacity, gpu) => Describe(capacity, gpu.Name, wish))],
        };
    }

    private static PlannedGpu Describe(GpuCapacity gpu, string name, PlacementRequest wish) => new(
        gpu.Index, name,
        gpu.TotalBytes is { } total ? Math.Round(total / Mib) : null,
        gpu is { TotalBytes: { } all, UsedBytes: { } used } ? Math.Round((all - used) / Mib) : null,
        gpu.DeclaredFraction,
        Placement.Refusal(gpu, wish));
}
