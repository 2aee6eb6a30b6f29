using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Access;
using ModelHost.Common;

namespace ModelHost.Features.Nodes;

/// <summary>The nodes under the names that LocalAI's releases have had for its peers. ModelHost's nodes are no such peers: the list is for tools that show it.</summary>
internal sealed record PeerList(IReadOnlyList<Peer> Nodes)
{
    public IReadOnlyList<Peer> LlamaCppNodes => Nodes;

    public IReadOnlyList<Peer> FederatedNodes { get; } = [];

    public IReadOnlyList<Peer> MlxNodes { get; } = [];
}

/// <summary>A node as LocalAI shows a peer.</summary>
internal sealed record Peer(
    [property: JsonPropertyName("Name")] string Name, [property: JsonPropertyName("ID")] string Id, [property: JsonPropertyName("TunnelAddress")] string TunnelAddress,
    [property: JsonPropertyName("ServiceID")] string ServiceId, [property: JsonPropertyName("LastSeen")] DateTimeOffset LastSeen);

/// <summary>Maps <c>/api/p2p</c> and <c>/api/p2p/token</c>.</summary>
internal static class PeerRoutes
{
    /// <summary>Maps them.</summary>
    public static void MapPeers(this IEndpointRouteBuilder api)
    {
        api.MapGet("/p2p", ListAsync).WithMetadata(LocalAiRoute.Instance).AdminOnly().WithTags("Nodes").WithName("ListPeers")
            .WithSummary("The nodes that answer, as LocalAI lists its peers.").Produces<JsonElement>();
        api.MapGet("/p2p/token", async (PeerTokens tokens, CancellationToken cancellationToken) => TypedResults.Text(await tokens.ReadAsync(cancellationToken)))
            .WithMetadata(LocalAiRoute.Instance).AdminOnly().WithTags("Nodes").WithName("GetPeerToken")
            .WithSummary("A join token that one node can use; nothing while no nodes are taken.").Produces<string>(StatusCodes.Status200OK, "text/plain");
    }

    private static async Task<IResult> ListAsync(NodeService nodes, CancellationToken cancellationToken) =>
        TypedResults.Ok(new PeerList([.. (await nodes.ListAsync(cancellationToken)).Where(node => node is { LastHeartbeatAt: not null, Status: not "critical" })
            .OrderBy(node => node.Id)
            .Select(node => new Peer(node.Hostname, node.Id.ToString(CultureInfo.InvariantCulture), node.IpAddress, "worker", node.LastHeartbeatAt!.Value))]));
}
