namespace ModelHost.Core.Deployments;

/// <summary>What is known of the run on its node.</summary>
public enum RunObservation
{
    /// <summary>The node has not said anything yet, or its answer does not cover this run's runtime.</summary>
    Unknown,
    /// <summary>The node has been silent beyond the threshold.</summary>
    NodeUnreachable,
    /// <summary>The node's complete answer does not name the run.</summary>
    Absent,
    /// <summary>Nothing of the run exists yet but the node works on it.</summary>
    Preparing,
    /// <summary>Its engine runs and does not answer yet.</summary>
    Loading,
    /// <summary>Its engine answers.</summary>
    Ready,
    /// <summary>Its engine is being ended.</summary>
    Stopping,
    /// <summary>Its engine ended by itself or could not be started.</summary>
    Failed,
}

/// <summary>What the node is to be asked.</summary>
public enum NodeAction
{
    /// <summary>Nothing.</summary>
    None,
    /// <summary>To begin the run; asking again is harmless.</summary>
    Start,
    /// <summary>To end the run and remove what is left of it; asking again is harmless.</summary>
    Stop,
}

/// <summary>What is stored of a deployment and matters for the next step.</summary>
/// <param name="Wanted">What is asked of it.</param>
/// <param name="Status">Where it stood.</param>
/// <param name="RunSeen">Whether its engine has been seen to exist in this run.</param>
/// <param name="ExpiresAt">End of its lease; null: not counted yet, or none.</param>
/// <param name="Duration">Length of its lease from the first ready moment; null: none.</param>
public sealed record DeploymentState(WantedState Wanted, DeploymentStatus Status, bool RunSeen, DateTimeOffset? ExpiresAt, TimeSpan? Duration);

/// <summary>The next step.</summary>
/// <param name="State">What to store.</param>
/// <param name="Action">What to ask of the node once that is stored.</param>
/// <param name="Vanished">Whether the status is an error because an engine that was there is gone.</param>
public sealed record DeploymentStep(DeploymentState State, NodeAction Action, bool Vanished = false);

/// <summary>
/// Decides a deployment's status and what to ask of its node, from what is wanted, what is observed and the time. Pure: asked
/// again with what it answered, it answers the same.
/// <code>
/// starting -> loading -> running -> stopping -> stopped | expired
///     \___________\_________\____ -> error (the run failed or vanished; a stop makes it stopped)
/// any active status -> unreachable (the node is silent) -> as observed when it is back
/// </code>
/// </summary>
/// <remarks>Silence never stops anything: <see cref="RunObservation.Unknown"/> and <see cref="RunObservation.NodeUnreachable"/> ask for no action.</remarks>
public static class DeploymentStateMachine
{
    /// <summary>The next step of a deployment.</summary>
    public static DeploymentStep Next(DeploymentState state, RunObservation observed, DateTimeOffset now)
    {
        state = Expire(state, now);
        return observed switch
        {
            RunObservation.Unknown => new(state, NodeAction.None),
            RunObservation.NodeUnreachable =>
                new(state.Status.IsActive() ? state with { Status = DeploymentStatus.Unreachable } : state, NodeAction.None),
            RunObservation.Absent => Absent(state),
            RunObservation.Preparing or RunObservation.Loading or RunObservation.Ready or RunObservation.Stopping or RunObservation.Failed =>
                Present(state with { RunSeen = state.RunSeen || observed is not RunObservation.Preparing }, observed, now),
        };
    }

    private static DeploymentState Expire(DeploymentState state, DateTimeOffset now) =>
        state.Wanted == WantedState.Running && state.ExpiresAt <= now ? state with { Wanted = WantedState.Expired } : state;

    private static DeploymentStep Absent(DeploymentState state) => state.Wanted switch
    {
        WantedState.Running when !state.RunSeen => new(state with { Status = DeploymentStatus.Starting }, NodeAction.Start),
        WantedState.Running =>
            new(state with { Wanted = WantedState.Failed, Status = DeploymentStatus.Error }, NodeAction.None, Vanished: true),
        WantedState.Stopped => new(state with { Status = DeploymentStatus.Stopped }, NodeAction.None),
        WantedState.Expired => new(state with { Status = DeploymentStatus.Expired }, NodeAction.None),
        WantedState.Failed => new(state with { Status = DeploymentStatus.Error }, NodeAction.None),
    };

    private static DeploymentStep Present(DeploymentState state, RunObservation observed, DateTimeOffset now) => state.Wanted switch
    {
        WantedState.Running => observed switch
        {
            RunObservation.Preparing => new(state with { Status = DeploymentStatus.Starting }, NodeAction.None),
            // an engine that served does not load again in the same run: it is being asked anew, after a restart of the control plane
            RunObservation.Loading => new(
                state.Status == DeploymentStatus.Running ? state : state with { Status = DeploymentStatus.Loading }, NodeAction.None),
            RunObservation.Ready => new(
                state with { Status = DeploymentStatus.Running, ExpiresAt = state.ExpiresAt ?? now + state.Duration }, NodeAction.None),
            RunObservation.Stopping => new(state with { Status = DeploymentStatus.Stopping }, NodeAction.None),
            // the cause is stored before the node is asked to forget the run
            RunObservation.Failed => new(state with { Wanted = WantedState.Failed, Status = DeploymentStatus.Error }, NodeAction.Stop),
            RunObservation.Unknown or RunObservation.NodeUnreachable or RunObservation.Absent => throw NotPresent(observed),
        },
        WantedState.Stopped or WantedState.Expired => new(state with { Status = DeploymentStatus.Stopping }, NodeAction.Stop),
        WantedState.Failed => new(state with { Status = DeploymentStatus.Error }, NodeAction.Stop),
    };

    private static InvalidOperationException NotPresent(RunObservation observed) => new($"{observed} is not a present run");
}
