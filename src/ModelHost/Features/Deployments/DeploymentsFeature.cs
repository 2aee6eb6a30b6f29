using System.ComponentModel;
using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Access;
using ModelHost.Common;

namespace ModelHost.Features.Deployments;

/// <summary>Models that are served, and the wish for them.</summary>
internal static class DeploymentsFeature
{
    /// <summary>Adds the service.</summary>
    public static IServiceCollection AddDeployments(this IServiceCollection services) =>
        services.AddSingleton<EnvironmentVault>().AddSingleton<DeploymentReads>().AddSingleton<DeploymentStarts>().AddSingleton<DeploymentService>();

    /// <summary>Maps <c>/api/deployments</c>.</summary>
    public static void MapDeployments(this IEndpointRouteBuilder api)
    {
        var group = api.MapGroup("/deployments").WithTags("Deployments").AdminOnly();
        group.MapGet("/", ListAsync).WithName("ListDeployments").WithSummary("List all deployments, newest first, with live metrics and pull progress.");
        group.MapGet("/{id:int}", FindAsync).WithName("GetDeployment").WithSummary("Read one deployment.")
            .ProducesProblem(StatusCodes.Status404NotFound);
        group.MapPost("/start", StartAsync).WithName("StartDeployment")
            .WithSummary("Start serving a model.")
            .WithDescription("Answers at once with status `starting`; the image pull and the load go on in the background.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapPost("/stop/{id:int}", StopAsync).WithName("StopDeployment").WithSummary("Stop a deployment and remove its container.")
            .ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapDelete("/{id:int}", DeleteAsync).WithName("DeleteDeployment")
            .WithSummary("Delete a deployment's record. A running container is not stopped: call stop first.")
            .ProducesProblem(StatusCodes.Status404NotFound);
        group.MapGet("/{id:int}/logs", LogsAsync).WithName("GetDeploymentLogs").WithSummary("Read the last lines of the latest run's log.")
            .ProducesProblem(StatusCodes.Status404NotFound);
    }

    private static async Task<Ok<IReadOnlyList<DeploymentRead>>> ListAsync(DeploymentReads deployments, CancellationToken cancellationToken) =>
        TypedResults.Ok(await deployments.ListAsync(cancellationToken));

    private static async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> FindAsync(
        int id, DeploymentReads deployments, CancellationToken cancellationToken) =>
        (await deployments.FindAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> StartAsync(
        DeploymentStart request, DeploymentStarts deployments, CancellationToken cancellationToken) =>
        (await deployments.StartAsync(request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> StopAsync(
        int id, DeploymentService deployments, CancellationToken cancellationToken) =>
        (await deployments.StopAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<Deleted>, ProblemHttpResult>> DeleteAsync(
        int id, DeploymentService deployments, CancellationToken cancellationToken) =>
        (await deployments.DeleteAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentLogs>, ProblemHttpResult>> LogsAsync(
        int id, DeploymentReads deployments, CancellationToken cancellationToken,
        [Description("Number of lines, 1 to 2000.")] int tail = 200) =>
        (await deployments.LogsAsync(id, tail, cancellationToken)).ToAnswer();
}
