using ModelHost.Core;

namespace ModelHost.Features.Nodes;

/// <summary>The refusals of this feature.</summary>
internal static class NodeFailures
{
    public static Failure NotFound(int id) => new(FailureKind.NotFound, "node.not_found", $"There is no node {id}.");

    public static Failure Unreachable(int id) => new(FailureKind.Unavailable, "node.unreachable", $"Node {id} does not answer.");

    public static Failure HostnameTaken(string hostname, int holder) => new(
        FailureKind.Conflict, "node.hostname_taken", $"Node {holder} is called {hostname} already.", "hostname");

    public static Failure AddressTaken(string address, int port, int holder, string hostname) => new(
        FailureKind.Conflict, "node.address_taken", $"Node {holder} ({hostname}) has {address}, port {port} already.", "ip_address");

    public static Failure NotByHand(int id) => new(
        FailureKind.Conflict, "node.not_by_hand", $"Node {id} registered itself and tells its name and address; only those of a node registered by hand can be changed.");

    public static Failure GpusUnknown(string hostname) => new(
        FailureKind.Conflict, "node.gpus_unknown", $"Node {hostname} has not told its GPUs yet; without gpu_ids the whole node is meant.", "gpu_ids");

    public static Failure UnknownGpus(string hostname, IEnumerable<int> unknown, IReadOnlyCollection<int> known) => Failure.Invalid(
        "gpu_ids", $"node {hostname} has no GPU {string.Join(", ", unknown.Order())}; it has {(known.Count == 0 ? "none" : string.Join(", ", known.Order()))}");

    public static Failure NotAMember(string uid) => new(
        FailureKind.NotFound, "node.not_discovered", $"No node of the id {(uid.Length <= 64 ? uid : uid[..64])} has ever joined this cluster.");

    public static Failure NotRevoked(string name) => new(FailureKind.Conflict, "node.not_revoked", $"The certificates of {name} are not revoked.");

    public static Failure CannotReturn(string name) => new(
        FailureKind.Conflict, "node.certificate_over", $"The last certificate of {name} ran out too long ago to be renewed. Make a join token for that name to let it join anew.");

    public static Failure Full(int most) => new(FailureKind.Conflict, "node.too_many", $"There are {most} nodes registered by hand, and no more are taken.");
}
