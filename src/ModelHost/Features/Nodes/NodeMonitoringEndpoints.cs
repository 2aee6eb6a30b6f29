using System.ComponentModel.DataAnnotations;
using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Common;

namespace ModelHost.Features.Nodes;

/// <summary>Routes that tell of a node's figures and ports.</summary>
internal static class NodeMonitoringEndpoints
{
    /// <summary>Maps them.</summary>
    public static void MapNodeMonitoring(this RouteGroupBuilder group)
    {
        group.MapGet("/{id:int}/metrics/history", HistoryAsync).WithName("GetNodeMetricsHistory")
            .WithSummary("Read a node's figures of the last minutes, every step-th of them.")
            .WithDescription("Samples of about ten seconds; what is older than two days are means of half hours. Times in which the node did not answer have no points.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound);
        group.MapGet("/{id:int}/ports/check", CheckPortAsync).WithName("CheckNodePort").WithSummary("Check whether a port is free on a node.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status503ServiceUnavailable);
    }

    private static async Task<Results<Ok<NodeHistoryRead>, ProblemHttpResult>> HistoryAsync(
        int id, NodeHistory history, CancellationToken cancellationToken, [Range(1, NodeHistory.MostMinutes)] int minutes = 60, [Range(1, NodeHistory.MostMinutes)] int step = 1) =>
        (await history.ReadAsync(id, minutes, step, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<PortCheck>, ProblemHttpResult>> CheckPortAsync(
        int id, [Range(1, 65535)] int? port, NodePorts ports, CancellationToken cancellationToken) =>
        (await ports.CheckAsync(id, port, cancellationToken)).ToAnswer();
}
