using System.Text.Json.Serialization;

namespace ModelHost.Cluster;

/// <summary>Asks to become a member.</summary>
internal sealed record JoinRequest
{
    /// <summary>The secret part of the token.</summary>
    public required string Secret { get; init; }

    /// <summary>The id that the node has in its own data folder.</summary>
    public required string NodeId { get; init; }

    /// <summary>What the node calls itself.</summary>
    public required string Name { get; init; }

    /// <summary>PKCS#10, PEM.</summary>
    public required string SigningRequest { get; init; }
}

/// <summary>Asks for a further certificate, over a connection with the old one.</summary>
internal sealed record RenewRequest
{
    /// <summary>PKCS#10, PEM.</summary>
    public required string SigningRequest { get; init; }
}

/// <summary>A certificate of the cluster.</summary>
/// <param name="ClusterId">The cluster.</param>
/// <param name="Certificate">PEM.</param>
internal sealed record MemberAnswer(string ClusterId, string Certificate);

/// <summary>Says that a node is there.</summary>
internal sealed record HeartbeatRequest
{
    public required string Hostname { get; init; }

    /// <summary>Port on which the agent listens, at the address that the request comes from.</summary>
    public required int Port { get; init; }

    public required string AgentVersion { get; init; }
}

/// <summary>Answers a sign of life.</summary>
/// <param name="NodeId">The node's id in the API.</param>
/// <param name="NextSeconds">When the next one is due.</param>
internal sealed record HeartbeatAnswer(int NodeId, double NextSeconds);

/// <summary>Why something was refused.</summary>
/// <param name="Code">Stable.</param>
/// <param name="Detail">For a person.</param>
internal sealed record ClusterRefusal(string Code, string Detail);

/// <summary>How they are written.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, RespectNullableAnnotations = true)]
[JsonSerializable(typeof(JoinRequest))]
[JsonSerializable(typeof(RenewRequest))]
[JsonSerializable(typeof(MemberAnswer))]
[JsonSerializable(typeof(HeartbeatRequest))]
[JsonSerializable(typeof(HeartbeatAnswer))]
[JsonSerializable(typeof(ClusterRefusal))]
internal sealed partial class ClusterJson : JsonSerializerContext;
