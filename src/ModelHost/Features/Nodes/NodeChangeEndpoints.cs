using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Common;

namespace ModelHost.Features.Nodes;

/// <summary>Routes that change what is stored of nodes.</summary>
internal static class NodeChangeEndpoints
{
    /// <summary>Maps them.</summary>
    public static void MapNodeChanges(this RouteGroupBuilder group)
    {
        group.MapPost("/", RegisterAsync).WithName("CreateNode").WithSummary("Register a node by hand; nodes that join register themselves.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status409Conflict);
        var node = group.MapGroup("/{id:int}").ProducesProblem(StatusCodes.Status404NotFound);
        node.MapPatch("/", UpdateAsync).WithName("UpdateNode").WithSummary("Change name and address of a node that was registered by hand.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status409Conflict);
        node.MapPost("/runtime", SetRuntimeAsync).WithName("SetNodeRuntime").WithSummary("Prefer a container runtime on a node, for deployments that follow.")
            .ProducesValidationProblem();
        node.MapPost("/warm-cache", SetWarmCacheAsync).WithName("SetNodeWarmCache").WithSummary("Switch a node's warm cache, and bound the RAM that it takes.")
            .ProducesValidationProblem();
        node.MapPost("/maintenance", SetMaintenanceAsync).WithName("SetNodeMaintenance")
            .WithSummary("Take a node or GPUs of it out of use for new deployments, or back; drain stops what runs there.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status409Conflict);
    }

    private static async Task<Results<Ok<NodeRead>, ProblemHttpResult>> RegisterAsync(NodeCreate request, NodeChanges nodes, CancellationToken cancellationToken) =>
        (await nodes.RegisterAsync(request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<NodeRead>, ProblemHttpResult>> UpdateAsync(int id, NodeUpdate request, NodeChanges nodes, CancellationToken cancellationToken) =>
        (await nodes.UpdateAsync(id, request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<NodeRead>, ProblemHttpResult>> SetRuntimeAsync(
        int id, NodeRuntime request, NodeChanges nodes, CancellationToken cancellationToken) =>
        (await nodes.SetRuntimeAsync(id, request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<NodeRead>, ProblemHttpResult>> SetWarmCacheAsync(
        int id, NodeWarmCache request, NodeChanges nodes, CancellationToken cancellationToken) =>
        (await nodes.SetWarmCacheAsync(id, request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<NodeRead>, ProblemHttpResult>> SetMaintenanceAsync(
        int id, NodeMaintenance request, NodeChanges nodes, CancellationToken cancellationToken) =>
        (await nodes.SetMaintenanceAsync(id, request, cancellationToken)).ToAnswer();
}
