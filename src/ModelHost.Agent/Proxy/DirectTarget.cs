using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;

namespace ModelHost.Agent.Proxy;

/// <summary>Where a deployment stands, as far as its public port is concerned; of two that have the same port the first counts.</summary>
internal enum DirectState
{
    /// <summary>Requests are forwarded.</summary>
    Ready,
    /// <summary>They will be.</summary>
    Coming,
    /// <summary>Those under way are finished, and new ones refused.</summary>
    Ending,
    /// <summary>There is no engine to forward to.</summary>
    Down,
}

/// <summary>A run that has a public port. Immutable: what has changed is another one.</summary>
/// <param name="Port">The port.</param>
/// <param name="RunId">The run.</param>
/// <param name="Route">Its deployment, with where its engine is.</param>
/// <param name="State">Where it stands.</param>
internal sealed record DirectTarget(int Port, string RunId, ModelRoute Route, DirectState State)
{
    /// <summary>Makes one; null: the run has no port, or its spec is of an unknown version.</summary>
    public static DirectTarget? Of(string deploymentUid, string runId, string specJson, string engineUrl, string engineKey, DirectState state) =>
        LaunchSpec.FromJson(specJson) is not { Port: > 0 } spec ? null : new(spec.Port, runId,
            new ModelRoute(spec.DeploymentId, DeploymentStatus.Running, spec.ServedModelName, spec.ModelName, [.. spec.LoraModules.Select(lora => lora.Name)],
                spec.Owner, default, engineUrl.Length > 0 ? new Uri(engineUrl) : null, engineKey) { DeploymentUid = deploymentUid },
            state);
}
