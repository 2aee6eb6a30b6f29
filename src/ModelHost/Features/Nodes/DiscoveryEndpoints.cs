using System.ComponentModel;
using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Cluster.Discovery;
using ModelHost.Common;

namespace ModelHost.Features.Nodes;

/// <summary>Machines that are not registered.</summary>
/// <param name="Nodes">They.</param>
/// <param name="ConsulError">Why Consul could not be read; null when it could, or is not configured.</param>
internal sealed record DiscoveredNodes(
    IReadOnlyList<DiscoveredNode> Nodes,
    [property: Description("Why Consul could not be read when it was last asked; null when it could, or is not configured.")] string? ConsulError);

/// <summary>A machine that is not registered.</summary>
internal sealed record DiscoveredNode
{
    [Description("The name under which it joined, else Consul's for the machine.")]
    public required string Node { get; init; }

    [Description("Where it is, as far as that is known.")]
    public string? Address { get; init; }
    public int? Port { get; init; }

    [Description("Consul's id of the service; null for one that is not in Consul.")]
    public string? ServiceId { get; init; }

    [Description("found (in Consul), joined (it has a certificate and has not reported since) or revoked.")]
    public required string Status { get; init; }

    [Description("Why it is not registered.")]
    public required string StatusDetail { get; init; }

    [Description("The node that its certificate names; null when it has none of this cluster, or was not asked yet.")]
    public string? NodeUid { get; init; }
    public DateTimeOffset? RevokedAt { get; init; }

    [Description("When a heartbeat of it was last refused.")]
    public DateTimeOffset? LastHeartbeatAt { get; init; }
}

/// <summary><c>/api/nodes/discovered</c>.</summary>
internal static class DiscoveryEndpoints
{
    /// <summary>Maps the routes into the group of the nodes.</summary>
    public static void MapDiscovery(this IEndpointRouteBuilder nodes)
    {
        nodes.MapGet("/discovered", List).WithName("ListDiscoveredNodes").WithSummary("List machines that are not registered: found in Consul, joined and not heard of, or revoked.");
        nodes.MapPost("/discovered/{uid}/admit", AdmitAsync).WithName("AdmitNode").WithSummary("Let the certificates of a revoked node count again; it registers with its next heartbeat.")
            .ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict).ProducesProblem(StatusCodes.Status503ServiceUnavailable);
    }

    private static Ok<DiscoveredNodes> List(NodeDiscovery discovery) => TypedResults.Ok(discovery.List());

    private static async Task<Results<Ok<DiscoveredNode>, ProblemHttpResult>> AdmitAsync(string uid, NodeDiscovery discovery, CancellationToken cancellationToken) =>
        (await discovery.AdmitAsync(uid, cancellationToken)).ToAnswer();
}
