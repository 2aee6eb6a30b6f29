using System.ComponentModel;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using ModelHost.Common;
using ModelHost.Core;

namespace ModelHost.Features.Deployments;

/// <summary>Routes that make deployments or start them again.</summary>
internal static class LaunchEndpoints
{
    private const string KeyText =
        "Sent again with the same key and body within 24 hours, the request answers with the deployment of the first one. 1 to 255 printable ASCII characters.";
    private const string WaitText = "True: answer when the model runs, or failed. Leaving cancels nothing.";

    /// <summary>Maps them.</summary>
    public static void MapLaunches(this RouteGroupBuilder group)
    {
        group.MapPost("/", RecordAsync).WithName("CreateDeployment").WithSummary("Store the record of a deployment and start nothing.")
            .WithDescription("It can be started with `/{id}/restart`. Until then it holds neither port nor name.").ProducesRefusals();
        group.MapPost("/start", StartAsync).WithName("StartDeployment").WithSummary("Start serving a model.")
            .WithDescription("Answers at once with status `starting`; the image pull and the load go on in the background.").ProducesRefusals();
        group.MapPost("/from-manifest", ImportAsync).WithName("StartDeploymentFromManifest").WithSummary("Start serving a model as an exported manifest says.")
            .WithDescription("The manifest says what is served, the request where. Variables whose values are not given are left out.").ProducesRefusals();
        group.MapPost("/{id:int}/restart", RestartAsync).WithName("RestartDeployment").WithSummary("Start a stopped, expired or failed deployment again on its node.")
            .WithDescription("As it was, with its environment variables and the engine version that it ran with. Owner and duration are new.").ProducesRefusals();
    }

    private static void ProducesRefusals(this RouteHandlerBuilder route) => route
        .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict)
        .ProducesProblem(StatusCodes.Status503ServiceUnavailable);

    private static Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> RecordAsync(
        DeploymentCreate request, [FromHeader(Name = Idempotency.Header), Description(KeyText)] string? key, HttpRequest http,
        DeploymentStarts starts, LaunchCalls calls, CancellationToken cancellationToken) =>
        calls.RunAsync(http, key, request, wait: false, claim => starts.RecordAsync(request, claim, cancellationToken), cancellationToken);

    private static Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> StartAsync(
        DeploymentStart request, [FromHeader(Name = Idempotency.Header), Description(KeyText)] string? key, HttpRequest http,
        [Description(WaitText)] bool? wait, DeploymentStarts starts, LaunchCalls calls, CancellationToken cancellationToken) =>
        calls.RunAsync(http, key, request, wait, claim => starts.StartAsync(request, claim, cancellationToken), cancellationToken);

    private static Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> ImportAsync(
        DeploymentFromManifest request, [FromHeader(Name = Idempotency.Header), Description(KeyText)] string? key, HttpRequest http,
        [Description(WaitText)] bool? wait, DeploymentManifests manifests, LaunchCalls calls, CancellationToken cancellationToken) =>
        calls.RunAsync(http, key, request, wait, claim => manifests.ImportAsync(request, claim, cancellationToken), cancellationToken);

    private static Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> RestartAsync(
        int id, DeploymentRestart request, [FromHeader(Name = Idempotency.Header), Description(KeyText)] string? key, HttpRequest http,
        [Description(WaitText)] bool? wait, DeploymentStarts starts, LaunchCalls calls, CancellationToken cancellationToken) =>
        calls.RunAsync(http, key, request, wait, claim => starts.RestartAsync(id, request, claim, cancellationToken), cancellationToken);
}

/// <summary>What all launches have in common: the key of the request, and waiting.</summary>
internal sealed class LaunchCalls(Idempotency idempotency, DeploymentWaits waits)
{
    /// <summary>Claims the key, launches, and waits if that is wanted.</summary>
    public async Task<Results<Ok<DeploymentRead>, ProblemHttpResult>> RunAsync(
        HttpRequest request, string? key, StrictRequest body, bool? wait, Func<IdempotencyClaim, Task<Result<DeploymentRead>>> launchAsync,
        CancellationToken cancellationToken)
    {
        if (!idempotency.Claim(request, key, body).TryGet(out var claim, out var fault))
            return fault.ToProblem();
        var answer = await launchAsync(claim);
        if (wait == true && answer.TryGet(out var launched, out _))
            answer = await waits.SettledAsync(launched.Id, cancellationToken);
        return answer.ToAnswer();
    }
}
