using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Common;

namespace ModelHost.Features.Deployments;

/// <summary>Routes that change deployments that are there.</summary>
internal static class DeploymentChangeEndpoints
{
    /// <summary>Maps them.</summary>
    public static void MapDeploymentChanges(this RouteGroupBuilder group)
    {
        group.MapPost("/stop/{id:int}", StopAsync).WithName("StopDeployment").WithSummary("Stop a deployment and remove its container.")
            .ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapPost("/{id:int}/extend", ExtendAsync).WithName("ExtendDeployment").WithSummary("Move a deployment's deadline on, or drop it, without a restart.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapPost("/{id:int}/pin", PinAsync).WithName("PinDeployment").WithSummary("Protect a deployment from warm-cache eviction, or no longer.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapPost("/{id:int}/start-on-demand", SetOnDemandAsync).WithName("SetDeploymentOnDemand")
            .WithSummary("Have the first request for a deployment's model start it while it is stopped or failed, or no longer.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapDelete("/{id:int}", DeleteAsync).WithName("DeleteDeployment")
            .WithSummary("Delete a deployment's record. A running container is not stopped: call stop first.")
            .ProducesProblem(StatusCodes.Status404NotFound);
    }

    private static async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> StopAsync(
        int id, DeploymentService deployments, CancellationToken cancellationToken) =>
        (await deployments.StopAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> ExtendAsync(
        int id, DeploymentExtend request, DeploymentService deployments, CancellationToken cancellationToken) =>
        (await deployments.ExtendAsync(id, request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> PinAsync(
        int id, DeploymentPin request, DeploymentService deployments, CancellationToken cancellationToken) =>
        (await deployments.PinAsync(id, request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> SetOnDemandAsync(
        int id, DeploymentOnDemand request, DeploymentService deployments, CancellationToken cancellationToken) =>
        (await deployments.SetOnDemandAsync(id, request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<Deleted>, ProblemHttpResult>> DeleteAsync(
        int id, DeploymentService deployments, CancellationToken cancellationToken) =>
        (await deployments.DeleteAsync(id, cancellationToken)).ToAnswer();
}
