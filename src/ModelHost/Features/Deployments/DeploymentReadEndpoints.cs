using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using ModelHost.Common;

namespace ModelHost.Features.Deployments;

/// <summary>Routes that change nothing.</summary>
internal static class DeploymentReadEndpoints
{
    /// <summary>Maps them.</summary>
    public static void MapDeploymentReads(this RouteGroupBuilder group)
    {
        group.MapGet("/", ListAsync).WithName("ListDeployments").WithSummary("List deployments, newest first, with live metrics and pull progress.")
            .WithDescription("All of them, unless the query says which. With `limit` the header `Link` names the next page (`rel=\"next\"`) as long as there is one.")
            .ProducesValidationProblem();
        group.MapGet("/{id:int}", FindAsync).WithName("GetDeployment").WithSummary("Read one deployment.")
            .ProducesProblem(StatusCodes.Status404NotFound);
        group.MapGet("/served-name/check", CheckNameAsync).WithName("CheckServedName")
            .WithSummary("Check whether a served model name is free, with a free one like it.")
            .WithDescription("Served names, model names without one, and adapter names of active deployments share one namespace. A start checks again.")
            .ProducesValidationProblem();
        group.MapPost("/plan", PlanAsync).WithName("PlanDeployment").WithSummary("Say whether a deployment would fit, and for every GPU why not.")
            .WithDescription("Takes what a start takes, and changes nothing.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound);
        group.MapGet("/{id:int}/manifest", ExportAsync).WithName("GetDeploymentManifest").WithSummary("Export what makes a deployment reproducible.")
            .WithDescription("Values of environment variables are not in it, only their names.")
            .ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapGet("/{id:int}/runs", RunsAsync).WithName("ListDeploymentRuns").WithSummary("List the last launches of a deployment, newest first, with how they ended.")
            .ProducesProblem(StatusCodes.Status404NotFound);
        group.MapGet("/{id:int}/logs", LogsAsync).WithName("GetDeploymentLogs").WithSummary("Read the last lines of a run's log, by default the latest run's.")
            .ProducesProblem(StatusCodes.Status404NotFound);
        group.MapGet("/{id:int}/logs/download", DownloadAsync).WithName("DownloadDeploymentLog").WithSummary("Download the latest run's log as a file.")
            .Produces<string>(StatusCodes.Status200OK, "text/plain")
            .ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict).ProducesProblem(StatusCodes.Status503ServiceUnavailable);
    }

    private static async Task<Results<Ok<IReadOnlyList<DeploymentRead>>, ProblemHttpResult>> ListAsync(
        DeploymentReads deployments, HttpContext context, CancellationToken cancellationToken,
        [FromQuery, Description("Only those in this status; may be given several times.")] string[]? status = null,
        [FromQuery(Name = "node_id"), Description("Only those of this node.")] int? nodeId = null,
        [Description("Only those of this owner.")] string? owner = null,
        [Range(1, 1000), Description("At most so many, 1 to 1000. Without it all come at once.")] int? limit = null,
        [FromQuery(Name = "before_id"), Description("Only those whose id is below this one: the page after one that ended with it.")] int? beforeId = null)
    {
        var answer = await deployments.ListAsync(new DeploymentQuery(status, nodeId, owner, limit, beforeId), cancellationToken);
        context.Response.Headers.Link = answer.Match(page => page.NextLink(context.Request), _ => null);
        return answer.Match<Results<Ok<IReadOnlyList<DeploymentRead>>, ProblemHttpResult>>(page => TypedResults.Ok(page.Deployments), failure => failure.ToProblem());
    }

    private static async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> FindAsync(
        int id, DeploymentReads deployments, CancellationToken cancellationToken) =>
        (await deployments.FindAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<NameCheck>, ProblemHttpResult>> CheckNameAsync(
        DeploymentReads deployments, CancellationToken cancellationToken,
        [Description("The name; blanks around it do not count.")] string? name = null,
        [FromQuery(Name = "exclude_id"), Description("A deployment whose names do not count.")] int? excludeId = null) =>
        (await deployments.CheckNameAsync(name, excludeId, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentPlan>, ProblemHttpResult>> PlanAsync(
        DeploymentPlanRequest request, DeploymentPlans plans, CancellationToken cancellationToken) =>
        (await plans.PlanAsync(request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentManifest>, ProblemHttpResult>> ExportAsync(
        int id, DeploymentManifests manifests, CancellationToken cancellationToken) =>
        (await manifests.ExportAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentLogs>, ProblemHttpResult>> LogsAsync(
        int id, DeploymentReads deployments, CancellationToken cancellationToken,
        [Description("Number of lines, 1 to 2000.")] int tail = 200, [Description("Id of a run; omit for the latest.")] string? run = null) =>
        (await deployments.LogsAsync(id, tail, run, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<IReadOnlyList<RunRead>>, ProblemHttpResult>> RunsAsync(
        int id, DeploymentRuns runs, CancellationToken cancellationToken) =>
        (await runs.ListAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<PushStreamHttpResult, ProblemHttpResult>> DownloadAsync(
        int id, DeploymentLogFiles logs, HttpContext context, CancellationToken cancellationToken)
    {
        var opened = await logs.OpenAsync(id, cancellationToken);
        if (!opened.TryGet(out var file, out var failure))
            return failure.ToProblem();
        context.Response.RegisterForDisposeAsync(file);
        return TypedResults.Stream(stream => file.CopyToAsync(stream, cancellationToken), "text/plain; charset=utf-8", file.Name);
    }
}
