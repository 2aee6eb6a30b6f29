namespace ModelHost.Core.Deployments;

/// <summary>What is known of the run on its node.</summary>
public enum RunObservation
{
    /// <summary>The node has not said anything yet, or its answer does not cover this run's runtime.</summary>
    Unknown,
    /// <summary>The node has been silent beyond the threshold.</summary>
    NodeUnreachable,
    /// <summary>The node's complete answer names no run of the deployment.</summary>
    Absent,
    /// <summary>The node does not name the run, but an earlier one of the deployment that has yet to be removed.</summary>
    Clearing,
    /// <summary>Nothing of the run exists yet but the node works on it.</summary>
    Preparing,
    /// <summary>Its engine runs and does not answer yet.</summary>
    Loading,
    /// <summary>Its engine answers.</summary>
    Ready,
    /// <summary>Its engine is being ended.</summary>
    Stopping,
    /// <summary>Its engine ended by itself; another run may fare better.</summary>
    Failed,
    /// <summary>It failed, and would fail again: the image is not there, an argument is refused.</summary>
    Refused,
    /// <summary>The node ended it because its lease, as far as the node was told, ran out.</summary>
    Expired,
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

/// <summary>How a run came to its end.</summary>
public enum RunEnd
{
    /// <summary>It did not.</summary>
    None,
    /// <summary>Its engine ended by itself, or could not be started; the node knows the cause.</summary>
    Failed,
    /// <summary>Its engine is gone without a trace.</summary>
    Vanished,
    /// <summary>It was not ready in time.</summary>
    TimedOut,
    /// <summary>A person ended it.</summary>
    Stopped,
    /// <summary>Its lease ended it.</summary>
    Expired,
}

/// <summary>What is stored of a deployment and matters for the next step.</summary>
/// <param name="Wanted">What is asked of it.</param>
/// <param name="Status">Where it stood.</param>
/// <param name="RunSeen">Whether its engine has been seen to exist in this run.</param>
/// <param name="ExpiresAt">End of its lease; null: not counted yet, or none.</param>
/// <param name="Duration">Length of its lease from the first ready moment; null: none.</param>
public sealed record DeploymentState(WantedState Wanted, DeploymentStatus Status, bool RunSeen, DateTimeOffset? ExpiresAt, TimeSpan? Duration)
{
    /// <summary>When the run may begin or began; null: it has not been looked at.</summary>
    public DateTimeOffset? BeginsAt { get; init; }

    /// <summary>When the run was first ready; null: not yet.</summary>
    public DateTimeOffset? ReadyAt { get; init; }

    /// <summary>Runs in a row that ended without having been ready for <see cref="LifecyclePolicy.StableAfter"/>.</summary>
    public int FailedStarts { get; init; }

    /// <summary>The end of the lease that was warned of last; null: of none.</summary>
    public DateTimeOffset? WarnedOf { get; init; }
}

/// <summary>What is seen of a deployment at one moment.</summary>
/// <param name="Run">What the node says of the run.</param>
/// <param name="Now">The time.</param>
/// <param name="ReadyAt">When the engine was first ready, by the node's word; null: the node does not say.</param>
/// <param name="Jitter">0 to 1: where in its range the next pause falls, so that what failed together does not start together.</param>
public readonly record struct Observed(RunObservation Run, DateTimeOffset Now, DateTimeOffset? ReadyAt = null, double Jitter = 0);

/// <summary>The next step.</summary>
/// <param name="State">What to store.</param>
/// <param name="Action">What to ask of the node about the run that was observed, once that is stored.</param>
/// <param name="End">How the run that was observed ended with this step.</param>
public sealed record DeploymentStep(DeploymentState State, NodeAction Action, RunEnd End = RunEnd.None)
{
    /// <summary>Whether what is stored is about another run, which needs an id of its own.</summary>
    public bool NewRun { get; init; }

    /// <summary>Failed starts after which no further one is tried; 0: it goes on, or it ended for another reason.</summary>
    public int GaveUpAfter { get; init; }

    /// <summary>Whether the end of the lease is near and is to be warned of now, and only now.</summary>
    public bool Warn { get; init; }
}
