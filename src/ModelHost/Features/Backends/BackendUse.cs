using ModelHost.Core;
using ModelHost.Features.Deployments;

namespace ModelHost.Features.Backends;

/// <summary>Tells whether deployments run on a backend whose program is about to be replaced or removed.</summary>
internal static class BackendUse
{
    /// <summary>Why it is not touched; null: nothing runs on it.</summary>
    public static async Task<Failure?> FaultAsync(DeploymentReads deployments, int nodeId, IReadOnlyCollection<string> names, CancellationToken cancellationToken)
    {
        var users = (await deployments.ServingAsync(cancellationToken)).Where(one => one.NodeId == nodeId && names.Contains(one.Spec.Backend)).Select(one => one.Id).ToArray();
        return users.Length == 0 ? null : new Failure(FailureKind.Conflict, "backend.in_use",
            $"{(users.Length == 1 ? "deployment" : "deployments")} {string.Join(", ", users)} {(users.Length == 1 ? "runs" : "run")} on {names.First()} on node {nodeId}; stop {(users.Length == 1 ? "it" : "them")} first");
    }
}
