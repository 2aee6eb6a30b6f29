using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;

namespace ModelHost.Features.Deployments;

/// <summary>The refusals of this feature.</summary>
internal static class DeploymentFailures
{
    public static Failure NotFound(int id) => new(FailureKind.NotFound, "deployment.not_found", $"There is no deployment {id}.");

    public static Failure NodeNotFound(int id) => new(FailureKind.NotFound, "node.not_found", $"There is no node {id}.", "node_id");

    public static Failure NodeSilent(string hostname) => new(FailureKind.Conflict, "node.unreachable", $"Node {hostname} does not answer.", "node_id");

    public static Failure NoRuntime(string hostname, string backend, IEnumerable<string> needed, IEnumerable<string> available) => new(
        FailureKind.Conflict, "node.no_runtime",
        $"Node {hostname} has no runtime for backend '{backend}': needed {string.Join(" or ", needed)}, available {List(available)}. {Remedy(needed)}", "node_id");

    public static Failure GpusUnknown(string hostname, string why) =>
        new(FailureKind.Conflict, "node.gpus_unknown", $"The GPUs of node {hostname} are unknown: {why}", "node_id");

    public static Failure NodeCordoned(string hostname) => new(
        FailureKind.Conflict, "node.maintenance", $"Node {hostname} is under maintenance and takes no deployments.", "node_id");

    public static Failure GpusCordoned(string hostname, IReadOnlyCollection<int> cordoned, IEnumerable<int> left) => new(
        FailureKind.Conflict, "node.gpus_cordoned",
        $"{(cordoned.Count == 1 ? "GPU" : "GPUs")} {string.Join(", ", cordoned)} of node {hostname} {(cordoned.Count == 1 ? "is" : "are")} under maintenance; it still has {string.Join(", ", left)}.",
        "gpu_ids");

    public static Failure PortTaken(int port, string hostname, int holder, string model) => new(
        FailureKind.Conflict, "deployment.port_taken", $"Port {port} on {hostname} is held by deployment {holder} ({model}).", "port");

    public static Failure NameTaken(string name, int holder, string model) => new(
        FailureKind.Conflict, "deployment.name_taken",
        $"The name '{name}' is held by deployment {holder} ({model}). Give another one as engine_args.served_model_name.", "engine_args");

    public static Failure JustTaken() => new(
        FailureKind.Conflict, "deployment.just_taken", "The port or a name was taken by another request at the same moment.");

    public static Failure RunNotFound(int id, string run) => new(
        FailureKind.NotFound, "run.not_found", $"Deployment {id} has no run '{(run.Length <= 64 ? run : run[..64] + "…")}', or it is no longer kept.");

    public static Failure Changed(int id) => new(FailureKind.Conflict, "deployment.changed", $"Deployment {id} kept changing; try again.");

    public static Failure WrongStatus(int id, DeploymentStatus status, string done, params DeploymentStatus[] allowed) => new(
        FailureKind.Conflict, WrongStatusCode,
        $"Deployment {id} is {status.ToWire()}; it can be {done} only while {Either([.. allowed.Select(DeploymentStatuses.ToWire)])}.");

    /// <summary>What <see cref="WrongStatus"/> is called.</summary>
    public const string WrongStatusCode = "deployment.wrong_status";

    public static Failure NotOnDemand(int id) => new(FailureKind.Conflict, "deployment.not_on_demand", $"Deployment {id} is started by hand only.");

    public static Failure NoExpiry(int id) => new(FailureKind.Conflict, "deployment.no_expiry", $"Deployment {id} has no deadline to extend.");

    public static Failure Unreadable(int id) => new(
        FailureKind.Conflict, "deployment.newer", $"Deployment {id} was written by a newer version of ModelHost, or for a backend that is not there.");

    public static Failure VariablesUnreadable(int id) => new(
        FailureKind.Conflict, "deployment.variables_unreadable", $"Deployment {id}: {VariablesGone}");

    /// <summary>Why a run cannot have its variables.</summary>
    public const string VariablesGone = "The values of its variables cannot be decrypted: the keys for them are no longer in the data folder's keys. "
        + "Put those back and start ModelHost again, or start the model as a new deployment and give the values.";

    public static Failure NoLog(int id) => new(FailureKind.NotFound, "deployment.no_log", $"The latest run of deployment {id} has no log.");

    public static Failure LogUnreachable(string hostname) => new(
        FailureKind.Unavailable, "node.unreachable", $"Node {hostname} did not hand out the log.");

    public static Failure KeyReused() => new(
        FailureKind.Conflict, "idempotency.key_reused", "This Idempotency-Key was used for a request with another body.", Idempotency.Header);

    public static Failure KeySpent() => new(
        FailureKind.Conflict, "idempotency.key_spent", "The deployment that was made with this Idempotency-Key has been deleted.", Idempotency.Header);

    public static Failure TooManyKeys(int most) => new(
        FailureKind.Unavailable, "idempotency.too_many_keys", $"More than {most} requests with an Idempotency-Key succeeded within 24 hours.", Idempotency.Header);

    private static string Either(string[] words) => $"{string.Join(", ", words[..^1])} or {words[^1]}";

    private static string Remedy(IEnumerable<string> needed) => ContainerRuntimes.AreIn(needed)
        ? "Is Docker or Podman running on it, and does Node:DockerHost or Node:PodmanHost name its socket?"
        : "Node:ProcessRuntime=true allows it.";

    private static string List(IEnumerable<string> names) => names.Any() ? string.Join(", ", names) : "none";
}
