namespace ModelHost.Core.Deployments;

/// <summary>
/// Decides a deployment's status and what to ask of its node, from what is wanted, what is observed and the time. Pure: asked
/// again with what it answered, it answers the same.
/// <code>
/// starting -> loading -> running -> stopping -> stopped | expired
///     ^\__________\_________\______-> starting: a run that ended by itself is followed by another, after a pause
///      \___________\_______________-> error: it cannot succeed, was not ready in time, or failed too often in a row
/// any active status -> unreachable (the node is silent) -> as observed when it is back
/// </code>
/// </summary>
/// <remarks>Silence never stops anything: <see cref="RunObservation.Unknown"/> and <see cref="RunObservation.NodeUnreachable"/> ask for no action.</remarks>
public static class DeploymentStateMachine
{
    /// <summary>The next step of a deployment.</summary>
    public static DeploymentStep Next(DeploymentState state, Observed observed, LifecyclePolicy policy)
    {
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(policy);
        state = Expire(Count(state, observed), observed.Now);
        var step = observed.Run switch
        {
            RunObservation.Unknown => new(state, NodeAction.None),
            RunObservation.NodeUnreachable =>
                new(state.Status.IsActive() ? state with { Status = DeploymentStatus.Unreachable } : state, NodeAction.None),
            _ when state.Wanted != WantedState.Running => Unwanted(state, observed.Run),
            _ => Wanted(state with { BeginsAt = state.BeginsAt ?? observed.Now }, observed, policy),
        };
        return Warn(step, observed.Now, policy);
    }

    /// <summary>A lease begins at the first ready moment, and goes on over the runs that follow.</summary>
    private static DeploymentState Count(DeploymentState state, Observed observed) =>
        state is { Wanted: WantedState.Running, ExpiresAt: null, Duration: { } length } && observed.Run == RunObservation.Ready
            ? state with { ExpiresAt = ReadyAt(state, observed) + length } : state;

    // a node whose clock is ahead has nothing ready in the future
    private static DateTimeOffset ReadyAt(DeploymentState state, Observed observed) =>
        state.ReadyAt ?? (observed.ReadyAt < observed.Now ? observed.ReadyAt.Value : observed.Now);

    private static DeploymentState Expire(DeploymentState state, DateTimeOffset now) =>
        state.Wanted == WantedState.Running && state.ExpiresAt <= now ? state with { Wanted = WantedState.Expired } : state;

    private static DeploymentStep Warn(DeploymentStep step, DateTimeOffset now, LifecyclePolicy policy) =>
        step.State is { Wanted: WantedState.Running, ExpiresAt: { } end } && end != step.State.WarnedOf && end - now <= policy.ExpiryWarning
            ? step with { State = step.State with { WarnedOf = end }, Warn = true } : step;

    /// <summary>What is not to run ends, and what is known of its runs is of the past.</summary>
    private static DeploymentStep Unwanted(DeploymentState state, RunObservation observed)
    {
        var (end, atRest) = state.Wanted switch
        {
            WantedState.Stopped => (RunEnd.Stopped, DeploymentStatus.Stopped),
            WantedState.Expired => (RunEnd.Expired, DeploymentStatus.Expired),
            WantedState.Failed or WantedState.Running => (RunEnd.None, DeploymentStatus.Error),
        };
        var present = observed is not RunObservation.Absent;
        var status = present && end != RunEnd.None ? DeploymentStatus.Stopping : atRest;
        // an earlier run is ended as such
        var action = present && observed != RunObservation.Clearing ? NodeAction.Stop : NodeAction.None;
        var over = state with { Status = status, BeginsAt = null, ReadyAt = null, FailedStarts = 0 };
        return new(over, action, present || state.Status == status ? RunEnd.None : end);
    }

    private static DeploymentStep Wanted(DeploymentState state, Observed observed, LifecyclePolicy policy) => observed.Run switch
    {
        RunObservation.Absent when state.RunSeen => Over(state, observed, policy, RunEnd.Vanished),
        RunObservation.Failed => Over(state with { RunSeen = true }, observed, policy, RunEnd.Failed),
        RunObservation.Refused => new(Fail(state) with { RunSeen = true }, NodeAction.Stop, RunEnd.Failed),
        // its lease was extended while the node could not be told
        RunObservation.Expired => Again(state, observed.Now, RunEnd.Expired),
        RunObservation.Ready => new(Ready(state, observed, policy), NodeAction.None),
        RunObservation.Stopping => new(state with { Status = DeploymentStatus.Stopping, RunSeen = true }, NodeAction.None),
        RunObservation.Absent or RunObservation.Clearing or RunObservation.Preparing or RunObservation.Loading => NotReady(state, observed, policy),
        RunObservation.Unknown or RunObservation.NodeUnreachable => throw new InvalidOperationException($"{observed.Run} is silence"),
    };

    private static DeploymentStep NotReady(DeploymentState state, Observed observed, LifecyclePolicy policy)
    {
        if (state.ReadyAt is null && observed.Now - state.BeginsAt >= policy.StartTimeout)
            return new(Fail(state), observed.Run is RunObservation.Absent or RunObservation.Clearing ? NodeAction.None : NodeAction.Stop, RunEnd.TimedOut);
        return observed.Run switch
        {
            RunObservation.Absent when observed.Now < state.BeginsAt => new(state with { Status = DeploymentStatus.Starting }, NodeAction.None),
            RunObservation.Absent => new(state with { Status = DeploymentStatus.Starting }, NodeAction.Start),
            // an engine that served does not load again in the same run: it is being asked anew, after a restart of the control plane
            RunObservation.Loading => new(
                state with { Status = state.Status == DeploymentStatus.Running ? DeploymentStatus.Running : DeploymentStatus.Loading, RunSeen = true }, NodeAction.None),
            _ => new(state with { Status = DeploymentStatus.Starting }, NodeAction.None),
        };
    }

    private static DeploymentState Ready(DeploymentState state, Observed observed, LifecyclePolicy policy)
    {
        var readyAt = ReadyAt(state, observed);
        return state with
        {
            Status = DeploymentStatus.Running,
            RunSeen = true,
            ReadyAt = readyAt,
            FailedStarts = IsStable(readyAt, observed.Now, policy) ? 0 : state.FailedStarts,
        };
    }

    /// <summary>A run ended by itself: another follows, until too many in a row have failed.</summary>
    private static DeploymentStep Over(DeploymentState state, Observed observed, LifecyclePolicy policy, RunEnd end)
    {
        var failed = IsStable(state.ReadyAt, observed.Now, policy) ? 0 : state.FailedStarts + 1;
        var step = Again(state with { FailedStarts = failed }, observed.Now + policy.Pause(failed, observed.Jitter), end);
        return failed < policy.MaxFailedStarts ? step : step with { State = Fail(state), NewRun = false, GaveUpAfter = failed };
    }

    private static DeploymentStep Again(DeploymentState state, DateTimeOffset beginsAt, RunEnd end)
    {
        var next = state with { Status = DeploymentStatus.Starting, RunSeen = false, ReadyAt = null, BeginsAt = beginsAt };
        // the cause is stored before the node is asked to forget the run
        return new DeploymentStep(next, end == RunEnd.Vanished ? NodeAction.None : NodeAction.Stop, end) with { NewRun = true };
    }

    private static DeploymentState Fail(DeploymentState state) =>
        state with { Wanted = WantedState.Failed, Status = DeploymentStatus.Error, BeginsAt = null, ReadyAt = null, FailedStarts = 0 };

    private static bool IsStable(DateTimeOffset? readyAt, DateTimeOffset now, LifecyclePolicy policy) => readyAt is { } since && now - since >= policy.StableAfter;
}
