using System.ComponentModel;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using ModelHost.Access;
using ModelHost.Common;
using ModelHost.Core;
using ModelHost.Features.Galleries;

namespace ModelHost.Features.Backends;

/// <summary>The routes of backends, as LocalAI has them.</summary>
internal static class BackendEndpoints
{
    private const string NodesText = "IDs or host names of nodes, once for each. Default: those that have it.";
    private const string WaitText = "True: answer when the job has ended, with its status as `job`. Leaving cancels nothing.";

    /// <summary>Maps <c>/backends</c>.</summary>
    public static void MapBackends(this RouteGroupBuilder group)
    {
        group.MapGet("", ListAsync).WithName("ListBackends").WithSummary("List the backends that nodes have.")
            .WithDescription("Of a node that does not answer, what it had last. Backends of ModelHost itself, such as vllm, are there where a node has one of their images.")
            .Produces<BackendRead[]>().ProducesLocalAiErrors();
        group.MapGet("/available", AvailableAsync).WithName("ListAvailableBackends").WithSummary("List what the galleries offer for the nodes there are.")
            .Produces<AvailableBackend[]>().ProducesLocalAiErrors();
        group.MapGet("/known", KnownAsync).WithName("ListKnownBackends").WithSummary("List the backends that can be asked for by name, installed or not.")
            .Produces<KnownBackendRead[]>().ProducesLocalAiErrors();
        group.MapPost("/apply", ApplyAsync).WithName("ApplyBackend").WithSummary("Install a backend.").DisableValidation()
            .WithDescription("Answers with a job at once. What has builds for several kinds of machines gets the right one on every node; one build is installed on several nodes only if they are named.")
            .Produces<BackendJob>().Produces<TargetRequired>(StatusCodes.Status409Conflict).ProducesLocalAiErrors();
        group.MapPost("/delete/{name}", DeleteAsync).WithName("DeleteBackend").WithSummary("Delete a backend from the nodes that have it.")
            .WithDescription("Of one that is an image, the image goes too, unless something else on the node wants it; the job says why it stays. With `version`, that version alone goes.")
            .Produces<BackendJob>().ProducesLocalAiErrors();
        group.MapGet("/upgrades", Upgrades).WithName("ListBackendUpgrades").WithSummary("Read what was found by the last look for newer versions.")
            .Produces<IReadOnlyDictionary<string, UpgradeRead>>().ProducesLocalAiErrors();
        group.MapPost("/upgrades/check", CheckAsync).WithName("CheckBackendUpgrades").WithSummary("Look for newer versions, and answer with what is known until then.")
            .Produces<IReadOnlyDictionary<string, UpgradeRead>>().ProducesLocalAiErrors();
        group.MapPost("/upgrade/{name}", UpgradeAsync).WithName("UpgradeBackend").WithSummary("Upgrade a backend on the nodes that have it, or on those named.")
            .WithDescription("Of vllm the image of a release is pulled; what runs goes on with the image that it has.").Produces<BackendJob>().ProducesLocalAiErrors();
    }

    /// <summary>Maps <c>/api/nodes/{id}/backends</c>.</summary>
    public static void MapNodeBackends(this RouteGroupBuilder nodes)
    {
        var group = nodes.MapGroup("/{id:int}/backends").WithTags("Backends").ProducesProblem(StatusCodes.Status404NotFound);
        group.MapGet("/", ListOnAsync).WithName("ListNodeBackends").WithSummary("List the backends of one node.").ProducesProblem(StatusCodes.Status503ServiceUnavailable);
        group.MapPost("/install", InstallOnAsync).WithName("InstallNodeBackend").WithSummary("Install a backend on one node, by its name in a gallery or from an address.").DisableValidation()
            .ProducesValidationProblem();
        group.MapPost("/upgrade", UpgradeOnAsync).WithName("UpgradeNodeBackend").WithSummary("Upgrade a backend on one node.").DisableValidation().ProducesValidationProblem();
        group.MapPost("/delete", DeleteFromAsync).WithName("DeleteNodeBackend").WithSummary("Delete a backend, or one version of it, from one node.").DisableValidation()
            .WithDescription("Of one that is an image, the image goes too, unless something else on the node wants it; `message` says why it stays. With `version`, that version alone goes: 409 if something wants it.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status409Conflict).ProducesProblem(StatusCodes.Status503ServiceUnavailable);
    }

    /// <summary>Maps <c>/api/backends/job</c>.</summary>
    public static void MapBackendJobs(this IEndpointRouteBuilder api) =>
        api.MapGet("/backends/job/{uuid}", Job).WithName("GetNodeBackendJob").WithTags("Backends").AdminOnly().WithSummary("Read how far a job of a node's backends is.")
            .ProducesProblem(StatusCodes.Status404NotFound);

    private static async Task<IResult> ListAsync(BackendReads backends, CancellationToken cancellationToken) => TypedResults.Ok(await backends.ListAsync(cancellationToken));

    private static async Task<IResult> AvailableAsync(BackendService backends, CancellationToken cancellationToken) => TypedResults.Ok(await backends.AvailableAsync(cancellationToken));

    private static async Task<IResult> KnownAsync(BackendReads backends, CancellationToken cancellationToken) => TypedResults.Ok(await backends.KnownAsync(cancellationToken));

    private static async Task<IResult> ApplyAsync(
        BackendApply request, HttpRequest http, [Description(WaitText)] bool? wait, BackendService backends, Waits waits, CancellationToken cancellationToken) =>
        await backends.GuardAsync(request, cancellationToken) is { } guard ? TypedResults.Json(guard, statusCode: StatusCodes.Status409Conflict)
            : await AnswerAsync(await backends.ApplyAsync(request, cancellationToken), http, wait, waits, cancellationToken);

    private static async Task<IResult> DeleteAsync(
        string name, HttpRequest http, BackendService backends, Waits waits, CancellationToken cancellationToken, [FromQuery, Description(NodesText)] string[]? nodes = null,
        [Description("Of an image: the release or tag that goes, and nothing else. Default: the backend goes.")] string? version = null, [Description(WaitText)] bool? wait = null) =>
        await AnswerAsync(await backends.DeleteAsync(name, nodes, version, cancellationToken), http, wait, waits, cancellationToken);

    private static async Task<IResult> UpgradeAsync(
        string name, HttpRequest http, BackendService backends, Waits waits, CancellationToken cancellationToken, [FromQuery, Description(NodesText)] string[]? nodes = null,
        [Description("Of an image: the release or tag. Default: the newest.")] string? version = null, [Description(WaitText)] bool? wait = null) =>
        await AnswerAsync(await backends.UpgradeAsync(name, nodes, version, cancellationToken), http, wait, waits, cancellationToken);

    private static Ok<IReadOnlyDictionary<string, UpgradeRead>> Upgrades(BackendUpgrades upgrades) => TypedResults.Ok(upgrades.Found);

    private static async Task<IResult> CheckAsync([Description("True: answer when the look has ended.")] bool? wait, BackendUpgrades upgrades, CancellationToken cancellationToken)
    {
        if (wait == true)
            await upgrades.CheckAsync(cancellationToken);
        else
            upgrades.Poke();
        return TypedResults.Ok(upgrades.Found);
    }

    private static async Task<IResult> AnswerAsync(Result<JobEntry> asked, HttpRequest http, bool? wait, Waits waits, CancellationToken cancellationToken) =>
        asked.TryGet(out var job, out var failure)
            ? TypedResults.Ok(new BackendJob(job.Uid, http.StatusUrl("backends", job), await waits.ForAsync(job, wait, cancellationToken))) : failure.ToLocalAi();

    private static async Task<Results<Ok<IReadOnlyList<NodeBackendRead>>, ProblemHttpResult>> ListOnAsync(int id, BackendService backends, CancellationToken cancellationToken) =>
        (await backends.ListOnAsync(id, cancellationToken)).ToAnswer();

    private static async Task<Results<Accepted<NodeBackendJob>, ProblemHttpResult>> InstallOnAsync(
        int id, NodeBackendInstall request, HttpRequest http, [Description(WaitText)] bool? wait, BackendService backends, Waits waits, CancellationToken cancellationToken) =>
        await AcceptAsync(await backends.InstallOnAsync(id, request, cancellationToken), "backend installation started", http, wait, waits, cancellationToken);

    private static async Task<Results<Accepted<NodeBackendJob>, ProblemHttpResult>> UpgradeOnAsync(
        int id, NodeBackendName request, HttpRequest http, [Description(WaitText)] bool? wait, BackendService backends, Waits waits, CancellationToken cancellationToken) =>
        await AcceptAsync(await backends.UpgradeOnAsync(id, request, cancellationToken), "backend upgrade started", http, wait, waits, cancellationToken);

    private static async Task<Results<Ok<BackendMessage>, ProblemHttpResult>> DeleteFromAsync(int id, NodeBackendName request, BackendService backends, CancellationToken cancellationToken) =>
        (await backends.DeleteFromAsync(id, request, cancellationToken)).TryGet(out var kept, out var failure)
            ? TypedResults.Ok(new BackendMessage($"{(request.Version is { Length: > 0 } ? "version" : "backend")} deleted{(kept.Length > 0 ? $"; {kept}" : "")}")) : failure.ToProblem();

    private static async Task<Results<Accepted<NodeBackendJob>, ProblemHttpResult>> AcceptAsync(
        Result<JobEntry> asked, string message, HttpRequest http, bool? wait, Waits waits, CancellationToken cancellationToken)
    {
        if (!asked.TryGet(out var job, out var failure))
            return failure.ToProblem();
        var url = $"{http.PathBase}/api/backends/job/{job.Uid}";
        return TypedResults.Accepted(url, new NodeBackendJob(job.Uid, url, message, await waits.ForAsync(job, wait, cancellationToken)));
    }

    private static Results<Ok<BackendJobRead>, ProblemHttpResult> Job(string uuid, JobBook jobs)
    {
        if (jobs.Find(uuid) is not { } job)
            return JobBook.NotFound.ToProblem();
        var (state, status) = job.Snapshot;
        return TypedResults.Ok(new BackendJobRead
        {
            Progress = status.Progress,
            Message = status.Message,
            GalleryElementName = status.GalleryElementName,
            Processed = status.Processed,
            Deletion = status.Deletion,
            Queued = state == JobState.Queued,
            Error = status.Error,
            Completed = state == JobState.Done,
        });
    }

    /// <summary>Waits for the ends of jobs, as long as this host does not end.</summary>
    internal sealed class Waits(IHostApplicationLifetime lifetime, TimeProvider time)
    {
        /// <summary>How a job ended; null: that is not wanted.</summary>
        public async Task<JobStatus?> ForAsync(JobEntry job, bool? wait, CancellationToken cancellationToken)
        {
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(lifetime.ApplicationStopping, cancellationToken);
            return await job.EndedAsync(wait, time, waiting.Token);
        }
    }
}
