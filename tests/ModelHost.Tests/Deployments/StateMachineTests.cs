using ModelHost.Core.Deployments;

namespace ModelHost.Tests.Deployments;

public sealed class StateMachineTests
{
    private static readonly DateTimeOffset Now = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly TimeSpan Lease = TimeSpan.FromHours(1);
    private static readonly RunObservation[] Observations = Enum.GetValues<RunObservation>();

    [Theory]
    [InlineData(WantedState.Running, RunObservation.Unknown, DeploymentStatus.Running, WantedState.Running, NodeAction.None)]
    [InlineData(WantedState.Running, RunObservation.NodeUnreachable, DeploymentStatus.Unreachable, WantedState.Running, NodeAction.None)]
    [InlineData(WantedState.Running, RunObservation.Absent, DeploymentStatus.Error, WantedState.Failed, NodeAction.None)]
    [InlineData(WantedState.Running, RunObservation.Preparing, DeploymentStatus.Starting, WantedState.Running, NodeAction.None)]
    [InlineData(WantedState.Running, RunObservation.Loading, DeploymentStatus.Running, WantedState.Running, NodeAction.None)]
    [InlineData(WantedState.Running, RunObservation.Ready, DeploymentStatus.Running, WantedState.Running, NodeAction.None)]
    [InlineData(WantedState.Running, RunObservation.Stopping, DeploymentStatus.Stopping, WantedState.Running, NodeAction.None)]
    [InlineData(WantedState.Running, RunObservation.Failed, DeploymentStatus.Error, WantedState.Failed, NodeAction.Stop)]
    [InlineData(WantedState.Stopped, RunObservation.Unknown, DeploymentStatus.Stopping, WantedState.Stopped, NodeAction.None)]
    [InlineData(WantedState.Stopped, RunObservation.NodeUnreachable, DeploymentStatus.Unreachable, WantedState.Stopped, NodeAction.None)]
    [InlineData(WantedState.Stopped, RunObservation.Absent, DeploymentStatus.Stopped, WantedState.Stopped, NodeAction.None)]
    [InlineData(WantedState.Stopped, RunObservation.Preparing, DeploymentStatus.Stopping, WantedState.Stopped, NodeAction.Stop)]
    [InlineData(WantedState.Stopped, RunObservation.Loading, DeploymentStatus.Stopping, WantedState.Stopped, NodeAction.Stop)]
    [InlineData(WantedState.Stopped, RunObservation.Ready, DeploymentStatus.Stopping, WantedState.Stopped, NodeAction.Stop)]
    [InlineData(WantedState.Stopped, RunObservation.Stopping, DeploymentStatus.Stopping, WantedState.Stopped, NodeAction.Stop)]
    [InlineData(WantedState.Stopped, RunObservation.Failed, DeploymentStatus.Stopping, WantedState.Stopped, NodeAction.Stop)]
    [InlineData(WantedState.Expired, RunObservation.Unknown, DeploymentStatus.Stopping, WantedState.Expired, NodeAction.None)]
    [InlineData(WantedState.Expired, RunObservation.NodeUnreachable, DeploymentStatus.Unreachable, WantedState.Expired, NodeAction.None)]
    [InlineData(WantedState.Expired, RunObservation.Absent, DeploymentStatus.Expired, WantedState.Expired, NodeAction.None)]
    [InlineData(WantedState.Expired, RunObservation.Preparing, DeploymentStatus.Stopping, WantedState.Expired, NodeAction.Stop)]
    [InlineData(WantedState.Expired, RunObservation.Loading, DeploymentStatus.Stopping, WantedState.Expired, NodeAction.Stop)]
    [InlineData(WantedState.Expired, RunObservation.Ready, DeploymentStatus.Stopping, WantedState.Expired, NodeAction.Stop)]
    [InlineData(WantedState.Expired, RunObservation.Stopping, DeploymentStatus.Stopping, WantedState.Expired, NodeAction.Stop)]
    [InlineData(WantedState.Expired, RunObservation.Failed, DeploymentStatus.Stopping, WantedState.Expired, NodeAction.Stop)]
    [InlineData(WantedState.Failed, RunObservation.Unknown, DeploymentStatus.Error, WantedState.Failed, NodeAction.None)]
    [InlineData(WantedState.Failed, RunObservation.NodeUnreachable, DeploymentStatus.Error, WantedState.Failed, NodeAction.None)]
    [InlineData(WantedState.Failed, RunObservation.Absent, DeploymentStatus.Error, WantedState.Failed, NodeAction.None)]
    [InlineData(WantedState.Failed, RunObservation.Preparing, DeploymentStatus.Error, WantedState.Failed, NodeAction.Stop)]
    [InlineData(WantedState.Failed, RunObservation.Loading, DeploymentStatus.Error, WantedState.Failed, NodeAction.Stop)]
    [InlineData(WantedState.Failed, RunObservation.Ready, DeploymentStatus.Error, WantedState.Failed, NodeAction.Stop)]
    [InlineData(WantedState.Failed, RunObservation.Stopping, DeploymentStatus.Error, WantedState.Failed, NodeAction.Stop)]
    [InlineData(WantedState.Failed, RunObservation.Failed, DeploymentStatus.Error, WantedState.Failed, NodeAction.Stop)]
    public void Every_pair_of_wish_and_observation_has_one_answer(
        WantedState wanted, RunObservation observed, DeploymentStatus status, WantedState wantedNext, NodeAction action)
    {
        var before = wanted switch
        {
            WantedState.Running => DeploymentStatus.Running,
            WantedState.Stopped or WantedState.Expired => DeploymentStatus.Stopping,
            WantedState.Failed => DeploymentStatus.Error,
        };

        var step = DeploymentStateMachine.Next(new(wanted, before, RunSeen: true, null, null), observed, Now);

        (step.State.Status, step.State.Wanted, step.Action).ShouldBe((status, wantedNext, action));
    }

    [Theory]
    [InlineData(DeploymentStatus.Starting)]
    [InlineData(DeploymentStatus.Loading)]
    [InlineData(DeploymentStatus.Unreachable)]
    public void An_engine_that_loads_shows_as_loading_unless_it_served_before(DeploymentStatus before) =>
        DeploymentStateMachine.Next(new(WantedState.Running, before, RunSeen: true, null, null), RunObservation.Loading, Now)
            .State.Status.ShouldBe(DeploymentStatus.Loading);

    [Fact]
    public void A_run_that_never_existed_is_started_and_not_called_vanished()
    {
        var step = DeploymentStateMachine.Next(Fresh, RunObservation.Absent, Now);

        step.ShouldBe(new DeploymentStep(Fresh, NodeAction.Start));
    }

    [Fact]
    public void A_run_that_was_only_prepared_is_started_again()
    {
        var prepared = DeploymentStateMachine.Next(Fresh, RunObservation.Preparing, Now).State;

        DeploymentStateMachine.Next(prepared, RunObservation.Absent, Now).Action.ShouldBe(NodeAction.Start);
    }

    [Fact]
    public void An_engine_that_is_gone_has_vanished_and_one_that_was_ended_has_not()
    {
        var loading = DeploymentStateMachine.Next(Fresh, RunObservation.Loading, Now).State;

        DeploymentStateMachine.Next(loading, RunObservation.Absent, Now).Vanished.ShouldBeTrue();
        DeploymentStateMachine.Next(Stop(loading), RunObservation.Absent, Now).Vanished.ShouldBeFalse();
    }

    [Fact]
    public void A_lease_counts_from_the_first_ready_moment()
    {
        var loading = DeploymentStateMachine.Next(Fresh, RunObservation.Loading, Now + (10 * Lease)).State;
        var ready = DeploymentStateMachine.Next(loading, RunObservation.Ready, Now + (20 * Lease)).State;
        var later = DeploymentStateMachine.Next(ready, RunObservation.Ready, Now + (20.5 * Lease)).State;

        loading.ExpiresAt.ShouldBeNull();
        ready.ExpiresAt.ShouldBe(Now + (21 * Lease));
        later.ExpiresAt.ShouldBe(Now + (21 * Lease));
    }

    [Fact]
    public void A_lease_that_is_over_ends_the_engine()
    {
        var running = DeploymentStateMachine.Next(Fresh, RunObservation.Ready, Now).State;

        var last = DeploymentStateMachine.Next(running, RunObservation.Ready, Now + Lease - TimeSpan.FromTicks(1));
        var over = DeploymentStateMachine.Next(running, RunObservation.Ready, Now + Lease);

        last.Action.ShouldBe(NodeAction.None);
        (over.State.Wanted, over.State.Status, over.Action).ShouldBe((WantedState.Expired, DeploymentStatus.Stopping, NodeAction.Stop));
    }

    [Fact]
    public void A_lease_that_ends_while_the_node_is_silent_stops_nothing_until_it_is_back()
    {
        var running = DeploymentStateMachine.Next(Fresh, RunObservation.Ready, Now).State;

        var silent = DeploymentStateMachine.Next(running, RunObservation.NodeUnreachable, Now + (2 * Lease));
        var back = DeploymentStateMachine.Next(silent.State, RunObservation.Ready, Now + (2 * Lease));

        (silent.State.Wanted, silent.State.Status, silent.Action).ShouldBe((WantedState.Expired, DeploymentStatus.Unreachable, NodeAction.None));
        back.Action.ShouldBe(NodeAction.Stop);
    }

    [Fact]
    public void Without_a_duration_there_is_no_lease() =>
        DeploymentStateMachine.Next(Fresh with { Duration = null }, RunObservation.Ready, Now).State.ExpiresAt.ShouldBeNull();

    [Fact]
    public void Every_status_and_every_wish_is_reachable()
    {
        var statuses = Reachable().Select(state => state.Status).Distinct();

        // nothing sleeps until there is a warm cache
        statuses.ShouldBe(Enum.GetValues<DeploymentStatus>().Except([DeploymentStatus.PausedRam]), ignoreOrder: true);
        Reachable().Select(state => state.Wanted).Distinct().ShouldBe(Enum.GetValues<WantedState>(), ignoreOrder: true);
    }

    [Fact]
    public void Asked_again_with_its_own_answer_it_answers_the_same()
    {
        foreach (var (state, observed, now) in Walk())
        {
            var first = DeploymentStateMachine.Next(state, observed, now);
            var second = DeploymentStateMachine.Next(first.State, observed, now);

            second.State.ShouldBe(first.State, $"{state} seen {observed}");
            second.Action.ShouldBe(first.Action, $"{state} seen {observed}");
        }
    }

    [Fact]
    public void Silence_never_asks_for_anything()
    {
        foreach (var (state, observed, now) in Walk().Where(w => w.Observed is RunObservation.Unknown or RunObservation.NodeUnreachable))
        {
            var step = DeploymentStateMachine.Next(state, observed, now);

            step.Action.ShouldBe(NodeAction.None, $"{state} seen {observed}");
            step.Vanished.ShouldBeFalse($"{state} seen {observed}");
        }
    }

    [Fact]
    public void Unreachable_is_entered_from_active_statuses_only_and_by_silence_only()
    {
        foreach (var (state, observed, now) in Walk())
        {
            var after = DeploymentStateMachine.Next(state, observed, now).State.Status;
            if (state.Status != DeploymentStatus.Unreachable && after == DeploymentStatus.Unreachable)
                (state.Status.IsActive(), observed).ShouldBe((true, RunObservation.NodeUnreachable), $"{state}");
            if (observed == RunObservation.NodeUnreachable)
                after.ShouldBe(state.Status.IsActive() ? DeploymentStatus.Unreachable : state.Status, $"{state}");
        }
    }

    [Fact]
    public void An_answer_of_the_node_ends_unreachable()
    {
        foreach (var (state, observed, now) in Walk().Where(w => w.Observed is not (RunObservation.Unknown or RunObservation.NodeUnreachable)))
            DeploymentStateMachine.Next(state, observed, now).State.Status.ShouldNotBe(DeploymentStatus.Unreachable, $"{state} seen {observed}");
    }

    [Fact]
    public void From_every_reachable_state_a_stop_leads_to_the_end()
    {
        foreach (var state in Reachable())
        {
            var asked = Stop(state);
            foreach (var observed in Observations.Where(o => o is not (RunObservation.Unknown or RunObservation.NodeUnreachable or RunObservation.Absent)))
            {
                var step = DeploymentStateMachine.Next(asked, observed, Now);
                var gone = DeploymentStateMachine.Next(step.State, RunObservation.Absent, Now);

                step.Action.ShouldBe(NodeAction.Stop, $"{state} seen {observed}");
                gone.State.Status.ShouldBe(asked.Wanted == WantedState.Expired ? DeploymentStatus.Expired : DeploymentStatus.Stopped, $"{state} seen {observed}");
                gone.State.Status.IsActive().ShouldBeFalse();
            }
        }
    }

    [Fact]
    public void Whatever_is_wanted_and_ready_runs()
    {
        var wanted = Reachable().Where(state => state.Wanted == WantedState.Running && state.ExpiresAt is null).ToArray();

        wanted.ShouldNotBeEmpty();
        foreach (var state in wanted)
            DeploymentStateMachine.Next(state, RunObservation.Ready, Now).State.Status.ShouldBe(DeploymentStatus.Running, $"{state}");
    }

    [Fact]
    public void What_is_not_wanted_is_never_started()
    {
        foreach (var (state, observed, now) in Walk().Where(w => w.State.Wanted != WantedState.Running))
            DeploymentStateMachine.Next(state, observed, now).Action.ShouldNotBe(NodeAction.Start, $"{state} seen {observed}");
    }

    [Fact]
    public void A_wish_changes_only_to_failed_or_expired()
    {
        foreach (var (state, observed, now) in Walk())
        {
            var after = DeploymentStateMachine.Next(state, observed, now).State.Wanted;
            if (after != state.Wanted)
                (state.Wanted == WantedState.Running && after is WantedState.Failed or WantedState.Expired).ShouldBeTrue($"{state} seen {observed}");
        }
    }

    private static DeploymentState Fresh => new(WantedState.Running, DeploymentStatus.Starting, RunSeen: false, null, Lease);

    /// <summary>What a person's stop writes.</summary>
    private static DeploymentState Stop(DeploymentState state) => state with
    {
        Wanted = state.Wanted == WantedState.Expired ? WantedState.Expired : WantedState.Stopped,
        Status = state.Status.IsActive() && state.Status != DeploymentStatus.Unreachable ? DeploymentStatus.Stopping : state.Status,
    };

    /// <summary>Every reachable state with every observation, before and after the end of its lease.</summary>
    private static IEnumerable<(DeploymentState State, RunObservation Observed, DateTimeOffset Now)> Walk() =>
        from state in Reachable()
        from observed in Observations
        from now in (DateTimeOffset[])[Now, Now + (2 * Lease)]
        select (state, observed, now);

    private static HashSet<DeploymentState> Reachable()
    {
        var reached = new HashSet<DeploymentState> { Fresh, Fresh with { Duration = null } };
        var open = new Queue<DeploymentState>(reached);
        while (open.TryDequeue(out var state))
        {
            var next = Observations.SelectMany(observed => (DeploymentState[])
                [DeploymentStateMachine.Next(state, observed, Now).State, DeploymentStateMachine.Next(state, observed, Now + (2 * Lease)).State]);
            foreach (var found in next.Append(Stop(state)).Where(found => found.ExpiresAt is null || found.ExpiresAt == Now + Lease).Where(reached.Add))
                open.Enqueue(found);
        }
        return reached;
    }
}
