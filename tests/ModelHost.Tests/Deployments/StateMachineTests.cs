using ModelHost.Core.Deployments;
using static ModelHost.Core.Deployments.DeploymentStatus;
using static ModelHost.Core.Deployments.RunObservation;

namespace ModelHost.Tests.Deployments;

public sealed class StateMachineTests
{
    private const RunObservation Loading = RunObservation.Loading; // the status of that name is written out
    private static readonly DateTimeOffset Now = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly TimeSpan Lease = TimeSpan.FromHours(1);
    private static readonly LifecyclePolicy Policy = new() { MaxFailedStarts = 3 };
    private static readonly RunObservation[] Observations = Enum.GetValues<RunObservation>();
    private static readonly RunObservation[] Silence = [RunObservation.Unknown, NodeUnreachable];

    private static DeploymentState Fresh => new(WantedState.Running, Starting, RunSeen: false, null, Lease) { BeginsAt = Now };

    // The published transitions, with the corrections of this system: silence makes a deployment unreachable and nothing else, a failed launch
    // stays an error, and an engine that ended by itself or is gone is followed by a new run (the last column).
    [Theory]
    // a start that has not been seen to exist yet, and one that has
    [InlineData(Starting, false, RunObservation.Unknown, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, false, NodeUnreachable, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, false, Absent, Starting, NodeAction.Start, RunEnd.None, false)]
    [InlineData(Starting, false, Clearing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, false, Preparing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, false, Loading, DeploymentStatus.Loading, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, false, Ready, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, false, RunObservation.Stopping, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, false, Failed, Starting, NodeAction.Stop, RunEnd.Failed, true)]
    [InlineData(Starting, false, Refused, Error, NodeAction.Stop, RunEnd.Failed, false)]
    [InlineData(Starting, false, RunObservation.Expired, Starting, NodeAction.Stop, RunEnd.Expired, true)]
    [InlineData(Starting, true, RunObservation.Unknown, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, true, NodeUnreachable, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, true, Absent, Starting, NodeAction.None, RunEnd.Vanished, true)]
    [InlineData(Starting, true, Clearing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, true, Preparing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, true, Loading, DeploymentStatus.Loading, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, true, Ready, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, true, RunObservation.Stopping, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(Starting, true, Failed, Starting, NodeAction.Stop, RunEnd.Failed, true)]
    [InlineData(Starting, true, Refused, Error, NodeAction.Stop, RunEnd.Failed, false)]
    [InlineData(Starting, true, RunObservation.Expired, Starting, NodeAction.Stop, RunEnd.Expired, true)]
    // a load
    [InlineData(DeploymentStatus.Loading, true, RunObservation.Unknown, DeploymentStatus.Loading, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Loading, true, NodeUnreachable, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Loading, true, Absent, Starting, NodeAction.None, RunEnd.Vanished, true)]
    [InlineData(DeploymentStatus.Loading, true, Clearing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Loading, true, Preparing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Loading, true, Loading, DeploymentStatus.Loading, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Loading, true, Ready, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Loading, true, RunObservation.Stopping, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Loading, true, Failed, Starting, NodeAction.Stop, RunEnd.Failed, true)]
    [InlineData(DeploymentStatus.Loading, true, Refused, Error, NodeAction.Stop, RunEnd.Failed, false)]
    [InlineData(DeploymentStatus.Loading, true, RunObservation.Expired, Starting, NodeAction.Stop, RunEnd.Expired, true)]
    // a model that serves
    [InlineData(Running, true, RunObservation.Unknown, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(Running, true, NodeUnreachable, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(Running, true, Absent, Starting, NodeAction.None, RunEnd.Vanished, true)]
    [InlineData(Running, true, Clearing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Running, true, Preparing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Running, true, Loading, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(Running, true, Ready, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(Running, true, RunObservation.Stopping, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(Running, true, Failed, Starting, NodeAction.Stop, RunEnd.Failed, true)]
    [InlineData(Running, true, Refused, Error, NodeAction.Stop, RunEnd.Failed, false)]
    [InlineData(Running, true, RunObservation.Expired, Starting, NodeAction.Stop, RunEnd.Expired, true)]
    // a model that sleeps; what wakes it and how is the warm cache's matter
    [InlineData(PausedRam, true, RunObservation.Unknown, PausedRam, NodeAction.None, RunEnd.None, false)]
    [InlineData(PausedRam, true, NodeUnreachable, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(PausedRam, true, Absent, Starting, NodeAction.None, RunEnd.Vanished, true)]
    [InlineData(PausedRam, true, Clearing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(PausedRam, true, Preparing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(PausedRam, true, Loading, DeploymentStatus.Loading, NodeAction.None, RunEnd.None, false)]
    [InlineData(PausedRam, true, Ready, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(PausedRam, true, RunObservation.Stopping, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(PausedRam, true, Failed, Starting, NodeAction.Stop, RunEnd.Failed, true)]
    [InlineData(PausedRam, true, Refused, Error, NodeAction.Stop, RunEnd.Failed, false)]
    [InlineData(PausedRam, true, RunObservation.Expired, Starting, NodeAction.Stop, RunEnd.Expired, true)]
    // an engine that somebody else ends
    [InlineData(DeploymentStatus.Stopping, true, RunObservation.Unknown, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Stopping, true, NodeUnreachable, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Stopping, true, Absent, Starting, NodeAction.None, RunEnd.Vanished, true)]
    [InlineData(DeploymentStatus.Stopping, true, Clearing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Stopping, true, Preparing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Stopping, true, Loading, DeploymentStatus.Loading, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Stopping, true, Ready, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Stopping, true, RunObservation.Stopping, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(DeploymentStatus.Stopping, true, Failed, Starting, NodeAction.Stop, RunEnd.Failed, true)]
    [InlineData(DeploymentStatus.Stopping, true, Refused, Error, NodeAction.Stop, RunEnd.Failed, false)]
    [InlineData(DeploymentStatus.Stopping, true, RunObservation.Expired, Starting, NodeAction.Stop, RunEnd.Expired, true)]
    // a node that was silent
    [InlineData(Unreachable, false, RunObservation.Unknown, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, false, NodeUnreachable, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, false, Absent, Starting, NodeAction.Start, RunEnd.None, false)]
    [InlineData(Unreachable, false, Clearing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, false, Preparing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, false, Loading, DeploymentStatus.Loading, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, false, Ready, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, false, RunObservation.Stopping, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, false, Failed, Starting, NodeAction.Stop, RunEnd.Failed, true)]
    [InlineData(Unreachable, false, Refused, Error, NodeAction.Stop, RunEnd.Failed, false)]
    [InlineData(Unreachable, false, RunObservation.Expired, Starting, NodeAction.Stop, RunEnd.Expired, true)]
    [InlineData(Unreachable, true, RunObservation.Unknown, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, true, NodeUnreachable, Unreachable, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, true, Absent, Starting, NodeAction.None, RunEnd.Vanished, true)]
    [InlineData(Unreachable, true, Clearing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, true, Preparing, Starting, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, true, Loading, DeploymentStatus.Loading, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, true, Ready, Running, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, true, RunObservation.Stopping, DeploymentStatus.Stopping, NodeAction.None, RunEnd.None, false)]
    [InlineData(Unreachable, true, Failed, Starting, NodeAction.Stop, RunEnd.Failed, true)]
    [InlineData(Unreachable, true, Refused, Error, NodeAction.Stop, RunEnd.Failed, false)]
    [InlineData(Unreachable, true, RunObservation.Expired, Starting, NodeAction.Stop, RunEnd.Expired, true)]
    public void What_is_wanted_moves_on_as_its_run_does(
        DeploymentStatus before, bool seen, RunObservation observed, DeploymentStatus after, NodeAction action, RunEnd end, bool again)
    {
        var step = Next(new(WantedState.Running, before, seen, null, null) { BeginsAt = Now }, observed);

        (step.State.Status, step.Action, step.End, step.NewRun).ShouldBe((after, action, end, again));
        step.State.Wanted.ShouldBe(after == Error ? WantedState.Failed : WantedState.Running);
    }

    [Fact]
    public void The_table_has_a_row_for_every_status_and_observation()
    {
        var rows = typeof(StateMachineTests).GetMethod(nameof(What_is_wanted_moves_on_as_its_run_does))!.GetCustomAttributes(typeof(InlineDataAttribute), false)
            .Cast<InlineDataAttribute>().Select(row => ((DeploymentStatus)row.Data[0]!, (RunObservation)row.Data[2]!)).ToHashSet();
        var pairs = from status in Enum.GetValues<DeploymentStatus>() where status.IsActive() from observed in Observations select (status, observed);

        pairs.Except(rows).ShouldBeEmpty();
    }

    // a person's stop, the lease's end, and a failure that stays
    [Theory]
    [InlineData(WantedState.Stopped, DeploymentStatus.Stopping, DeploymentStatus.Stopping, Stopped)]
    [InlineData(WantedState.Expired, Running, DeploymentStatus.Stopping, DeploymentStatus.Expired)]
    [InlineData(WantedState.Failed, Error, Error, Error)]
    public void What_is_not_wanted_is_ended_and_rests(WantedState wanted, DeploymentStatus before, DeploymentStatus ending, DeploymentStatus atRest)
    {
        var state = new DeploymentState(wanted, before, RunSeen: true, null, null);

        foreach (var observed in Observations.Except([.. Silence, Absent, Clearing]))
        {
            var step = Next(state, observed);
            (step.State.Status, step.Action, step.End, step.NewRun).ShouldBe((ending, NodeAction.Stop, RunEnd.None, false), $"{observed}");
        }
        var gone = Next(state, Absent);
        (gone.State.Status, gone.Action).ShouldBe((atRest, NodeAction.None));
        Next(state, Clearing).ShouldBe(new(state with { Status = ending }, NodeAction.None));
        Next(state, NodeUnreachable).State.Status.ShouldBe(before.IsActive() ? Unreachable : before);
        Next(state, RunObservation.Unknown).ShouldBe(new(state, NodeAction.None));
    }

    [Theory]
    [InlineData(Stopped)]
    [InlineData(Error)]
    [InlineData(DeploymentStatus.Expired)]
    public void What_rests_does_not_become_unreachable(DeploymentStatus status)
    {
        var wanted = status switch { Stopped => WantedState.Stopped, Error => WantedState.Failed, _ => WantedState.Expired };

        Next(new(wanted, status, RunSeen: false, null, null), NodeUnreachable).State.Status.ShouldBe(status);
    }

    [Fact]
    public void Runs_that_fail_are_followed_by_others_until_there_were_too_many()
    {
        var (state, now) = (Fresh, Now);
        for (var failed = 1; failed < Policy.MaxFailedStarts; failed++)
        {
            var again = DeploymentStateMachine.Next(Loaded(state, now), new(Failed, now), Policy);
            (again.NewRun, again.State.FailedStarts, again.State.RunSeen, again.GaveUpAfter).ShouldBe((true, failed, false, 0));
            (state, now) = (again.State, again.State.BeginsAt!.Value);
        }

        var last = DeploymentStateMachine.Next(Loaded(state, now), new(Failed, now), Policy);

        (last.State.Status, last.State.Wanted, last.NewRun, last.GaveUpAfter).ShouldBe((Error, WantedState.Failed, false, 3));
    }

    [Fact]
    public void An_engine_that_vanishes_again_and_again_is_given_up_too()
    {
        var state = Fresh with { FailedStarts = 2 };

        var last = Next(Loaded(state, Now), Absent);

        (last.State.Status, last.End, last.GaveUpAfter).ShouldBe((Error, RunEnd.Vanished, 3));
    }

    [Fact]
    public void The_first_failed_start_is_the_last_where_one_is_the_limit()
    {
        var step = DeploymentStateMachine.Next(Loaded(Fresh, Now), new(Failed, Now), Policy with { MaxFailedStarts = 1 });

        (step.State.Status, step.GaveUpAfter).ShouldBe((Error, 1));
    }

    [Fact]
    public void A_run_that_served_long_enough_lets_those_before_it_be_forgotten()
    {
        var ready = Next(Fresh with { FailedStarts = 2, Duration = null }, Ready).State;

        var soon = Next(ready, Failed, Now + Policy.StableAfter - TimeSpan.FromTicks(1));
        var late = Next(ready, Failed, Now + Policy.StableAfter);
        var seen = Next(ready, Ready, Now + Policy.StableAfter);

        soon.GaveUpAfter.ShouldBe(3);
        (late.NewRun, late.State.FailedStarts).ShouldBe((true, 0));
        seen.State.FailedStarts.ShouldBe(0);
    }

    [Fact]
    public void A_healthy_engine_is_never_ended_for_failures_of_the_past()
    {
        var state = Fresh with { FailedStarts = 50, RunSeen = true, Duration = null };

        Next(state, Ready).ShouldBe(new(state with { Status = Running, ReadyAt = Now }, NodeAction.None));
        Next(state, Loading).Action.ShouldBe(NodeAction.None);
    }

    [Fact]
    public void The_next_run_waits_for_its_moment()
    {
        var again = Next(Loaded(Fresh, Now), Failed).State;

        var early = Next(again, Absent, again.BeginsAt!.Value - TimeSpan.FromTicks(1));
        var due = Next(again, Absent, again.BeginsAt.Value);

        (early.Action, early.State.Status).ShouldBe((NodeAction.None, Starting));
        due.Action.ShouldBe(NodeAction.Start);
    }

    [Fact]
    public void Pauses_double_up_to_the_longest_and_lie_in_the_upper_half_of_their_range()
    {
        var policy = new LifecyclePolicy { RelaunchDelay = TimeSpan.FromSeconds(2), MaxRelaunchDelay = TimeSpan.FromSeconds(60) };

        Enumerable.Range(1, 7).Select(failed => policy.Pause(failed, 1).TotalSeconds).ShouldBe([2, 4, 8, 16, 32, 60, 60]);
        Enumerable.Range(1, 7).Select(failed => policy.Pause(failed, 0).TotalSeconds).ShouldBe([1, 2, 4, 8, 16, 30, 30]);
        policy.Pause(int.MaxValue, 1).ShouldBe(policy.MaxRelaunchDelay);
        policy.Pause(0, 1).ShouldBe(policy.RelaunchDelay);
    }

    [Theory]
    [InlineData(Absent)]
    [InlineData(Clearing)]
    [InlineData(Preparing)]
    [InlineData(Loading)]
    public void A_run_that_is_not_ready_in_time_is_an_error_and_ended(RunObservation observed)
    {
        var state = Fresh with { RunSeen = observed == Loading };

        var last = Next(state, observed, Now + Policy.StartTimeout - TimeSpan.FromTicks(1));
        var over = Next(state, observed, Now + Policy.StartTimeout);

        last.End.ShouldBe(RunEnd.None);
        (over.State.Status, over.State.Wanted, over.End).ShouldBe((Error, WantedState.Failed, RunEnd.TimedOut));
        over.Action.ShouldBe(observed is Absent or Clearing ? NodeAction.None : NodeAction.Stop);
    }

    [Fact]
    public void An_engine_that_was_ready_is_not_timed_out()
    {
        var ready = Next(Fresh with { Duration = null }, Ready).State;

        foreach (var before in (DeploymentStatus[])[Running, Unreachable])
            Next(ready with { Status = before }, Loading, Now + (10 * Policy.StartTimeout)).End.ShouldBe(RunEnd.None);
    }

    [Fact]
    public void Silence_does_not_time_out_anything() =>
        Silence.ShouldAllBe(silence => Next(Fresh, silence, Now + (10 * Policy.StartTimeout)).End == RunEnd.None);

    [Fact]
    public void Every_run_has_the_whole_time_to_start()
    {
        var again = Next(Loaded(Fresh, Now), Failed, Now + Policy.StartTimeout - TimeSpan.FromSeconds(1)).State;

        Next(again, Loading, again.BeginsAt!.Value + Policy.StartTimeout - TimeSpan.FromTicks(1)).End.ShouldBe(RunEnd.None);
        Next(again, Loading, again.BeginsAt.Value + Policy.StartTimeout).End.ShouldBe(RunEnd.TimedOut);
    }

    [Fact]
    public void A_run_that_was_only_prepared_is_started_again()
    {
        var prepared = Next(Fresh, Preparing).State;

        Next(prepared, Absent).Action.ShouldBe(NodeAction.Start);
    }

    [Fact]
    public void A_lease_counts_from_the_first_ready_moment_whenever_that_is_heard_of()
    {
        var loading = Next(Fresh, Loading, Now + TimeSpan.FromMinutes(10)).State;
        var ready = DeploymentStateMachine.Next(loading, new(Ready, Now + TimeSpan.FromMinutes(25), Now + TimeSpan.FromMinutes(20)), Policy).State;
        var later = Next(ready, Ready, Now + TimeSpan.FromMinutes(50)).State;

        loading.ExpiresAt.ShouldBeNull();
        ready.ExpiresAt.ShouldBe(Now + TimeSpan.FromMinutes(20) + Lease);
        later.ExpiresAt.ShouldBe(ready.ExpiresAt);
    }

    [Fact]
    public void A_lease_goes_on_over_the_runs()
    {
        var ready = Next(Fresh, Ready).State;
        var again = Next(ready, Failed, Now + TimeSpan.FromMinutes(10)).State;

        Next(again, Ready, Now + TimeSpan.FromMinutes(20)).State.ExpiresAt.ShouldBe(Now + Lease);
        Next(again, Absent, Now + Lease).State.ShouldBe(again with { Wanted = WantedState.Expired, Status = DeploymentStatus.Expired, BeginsAt = null, FailedStarts = 0 });
    }

    [Fact]
    public void A_node_whose_clock_is_ahead_gives_no_longer_lease() =>
        DeploymentStateMachine.Next(Fresh, new(Ready, Now, Now + TimeSpan.FromDays(1)), Policy).State.ExpiresAt.ShouldBe(Now + Lease);

    [Fact]
    public void A_lease_that_is_over_ends_the_engine()
    {
        var running = Next(Fresh, Ready).State;

        var last = Next(running, Ready, Now + Lease - TimeSpan.FromTicks(1));
        var over = Next(running, Ready, Now + Lease);
        var gone = Next(over.State, Absent, Now + Lease);

        last.Action.ShouldBe(NodeAction.None);
        (over.State.Wanted, over.State.Status, over.Action).ShouldBe((WantedState.Expired, DeploymentStatus.Stopping, NodeAction.Stop));
        (gone.State.Status, gone.End).ShouldBe((DeploymentStatus.Expired, RunEnd.Expired));
    }

    [Fact]
    public void A_lease_that_was_over_before_the_engine_was_heard_of_ends_it_at_once()
    {
        var step = DeploymentStateMachine.Next(Fresh, new(Ready, Now + (2 * Lease), Now), Policy);

        (step.State.Wanted, step.Action).ShouldBe((WantedState.Expired, NodeAction.Stop));
    }

    [Fact]
    public void A_lease_that_ends_while_the_node_is_silent_stops_nothing_until_it_is_back()
    {
        var running = Next(Fresh, Ready).State;

        var silent = Next(running, NodeUnreachable, Now + (2 * Lease));
        var back = Next(silent.State, Ready, Now + (2 * Lease));

        (silent.State.Wanted, silent.State.Status, silent.Action).ShouldBe((WantedState.Expired, Unreachable, NodeAction.None));
        back.Action.ShouldBe(NodeAction.Stop);
    }

    [Fact]
    public void Without_a_duration_there_is_no_lease() =>
        Next(Fresh with { Duration = null }, Ready).State.ExpiresAt.ShouldBeNull();

    [Fact]
    public void The_end_of_a_lease_is_warned_of_once_and_again_when_it_has_moved()
    {
        var running = Next(Fresh, Ready).State;
        var end = Now + Lease;

        var early = Next(running, Ready, end - Policy.ExpiryWarning - TimeSpan.FromTicks(1));
        var near = Next(early.State, Ready, end - Policy.ExpiryWarning);
        var nearer = Next(near.State, Ready, end - TimeSpan.FromMinutes(1));
        var extended = nearer.State with { ExpiresAt = end + Lease };
        var moved = Next(extended, Ready, end + Lease - Policy.ExpiryWarning);

        (early.Warn, near.Warn, nearer.Warn, Next(extended, Ready, end).Warn, moved.Warn).ShouldBe((false, true, false, false, true));
        Next(running with { ExpiresAt = null, Duration = null }, Ready, end).Warn.ShouldBeFalse();
    }

    [Fact]
    public void Every_status_and_every_wish_is_reachable()
    {
        var statuses = Reachable.Select(state => state.Status).Distinct();

        // nothing sleeps until there is a warm cache
        statuses.ShouldBe(Enum.GetValues<DeploymentStatus>().Except([PausedRam]), ignoreOrder: true);
        Reachable.Select(state => state.Wanted).Distinct().ShouldBe(Enum.GetValues<WantedState>(), ignoreOrder: true);
    }

    [Fact]
    public void Asked_again_with_its_own_answer_it_answers_the_same()
    {
        foreach (var (state, observed, now) in Walk())
        {
            var first = Next(state, observed, now);
            // the next run is not the one that was observed
            var second = Next(first.State, first.NewRun ? Clearing : observed, now);

            second.State.ShouldBe(first.State, $"{state} seen {observed}");
            second.Action.ShouldBe(first.NewRun ? NodeAction.None : first.Action, $"{state} seen {observed}");
            (second.End, second.NewRun, second.Warn).ShouldBe((RunEnd.None, false, false), $"{state} seen {observed}");
        }
    }

    [Fact]
    public void Once_a_step_is_carried_out_the_next_asks_for_nothing()
    {
        foreach (var (state, observed, now) in Walk())
        {
            var first = Next(state, observed, now);
            var done = first switch
            {
                { Action: NodeAction.Start } => Preparing,
                { Action: NodeAction.Stop } or { NewRun: true } => Absent,
                _ => observed,
            };
            // a new run has a begin of its own, which is its first step and not a second one of this
            var second = Next(first.State, done, first.NewRun ? first.State.BeginsAt!.Value - TimeSpan.FromTicks(1) : now);

            second.Action.ShouldBe(NodeAction.None, $"{state} seen {observed}, then {done}");
            second.NewRun.ShouldBeFalse($"{state} seen {observed}, then {done}");
        }
    }

    [Fact]
    public void Silence_never_asks_for_anything()
    {
        foreach (var (state, observed, now) in Walk().Where(w => Silence.Contains(w.Observed)))
        {
            var step = Next(state, observed, now);

            (step.Action, step.End, step.NewRun).ShouldBe((NodeAction.None, RunEnd.None, false), $"{state} seen {observed}");
        }
    }

    [Fact]
    public void Unreachable_is_entered_from_active_statuses_only_and_by_silence_only()
    {
        foreach (var (state, observed, now) in Walk())
        {
            var after = Next(state, observed, now).State.Status;
            if (state.Status != Unreachable && after == Unreachable)
                (state.Status.IsActive(), observed).ShouldBe((true, NodeUnreachable), $"{state}");
            if (observed == NodeUnreachable)
                after.ShouldBe(state.Status.IsActive() ? Unreachable : state.Status, $"{state}");
        }
        Unreachable.IsActive().ShouldBeTrue("it holds its port and names");
    }

    [Fact]
    public void An_answer_of_the_node_ends_unreachable()
    {
        foreach (var (state, observed, now) in Walk().Where(w => !Silence.Contains(w.Observed)))
            Next(state, observed, now).State.Status.ShouldNotBe(Unreachable, $"{state} seen {observed}");
    }

    [Fact]
    public void From_every_reachable_state_a_stop_leads_to_the_end()
    {
        foreach (var state in Reachable)
        {
            var asked = Stop(state);
            foreach (var observed in Observations.Except(Silence))
            {
                var step = Next(asked, observed);
                var gone = Next(step.State, Absent);

                step.Action.ShouldBe(observed is Absent or Clearing ? NodeAction.None : NodeAction.Stop, $"{state} seen {observed}");
                gone.State.Status.ShouldBe(asked.Wanted == WantedState.Expired ? DeploymentStatus.Expired : Stopped, $"{state} seen {observed}");
                gone.State.Status.IsActive().ShouldBeFalse();
            }
        }
    }

    [Fact]
    public void No_reachable_state_is_stuck()
    {
        foreach (var state in Reachable)
        {
            // what a node that does what it is told shows next
            var (current, observed, now) = (state, Absent, Now);
            for (var i = 0; i < 20; i++)
            {
                var step = Next(current, observed, now);
                observed = step switch
                {
                    { Action: NodeAction.Start } => Loading,
                    { Action: NodeAction.Stop } or { NewRun: true } => Absent,
                    _ when observed == Loading => Ready,
                    _ => observed,
                };
                (current, now) = (step.State, step.State.BeginsAt > now ? step.State.BeginsAt.Value : now);
            }

            var atRest = state.Wanted switch
            {
                WantedState.Running => Running,
                WantedState.Stopped => Stopped,
                WantedState.Expired => DeploymentStatus.Expired,
                WantedState.Failed => Error,
            };
            var lastTry = state.FailedStarts == Policy.MaxFailedStarts - 1 && state.RunSeen;
            current.Status.ShouldBe(lastTry && state.Wanted == WantedState.Running ? Error : atRest, $"{state}");
        }
    }

    [Fact]
    public void Whatever_is_wanted_and_ready_runs()
    {
        var wanted = Reachable.Where(state => state.Wanted == WantedState.Running).ToArray();

        wanted.ShouldNotBeEmpty();
        foreach (var state in wanted)
            Next(state, Ready).State.Status.ShouldBe(Running, $"{state}");
    }

    [Fact]
    public void What_is_not_wanted_is_never_started()
    {
        foreach (var (state, observed, now) in Walk().Where(w => w.State.Wanted != WantedState.Running))
        {
            var step = Next(state, observed, now);
            (step.Action == NodeAction.Start || step.NewRun).ShouldBeFalse($"{state} seen {observed}");
        }
    }

    [Fact]
    public void A_wish_changes_only_to_failed_or_expired_and_an_error_has_an_end_of_a_run()
    {
        foreach (var (state, observed, now) in Walk())
        {
            var step = Next(state, observed, now);
            var after = step.State.Wanted;
            if (after != state.Wanted)
                (state.Wanted == WantedState.Running && after is WantedState.Failed or WantedState.Expired).ShouldBeTrue($"{state} seen {observed}");
            if (after == WantedState.Failed && state.Wanted != WantedState.Failed)
                step.End.ShouldBeOneOf(RunEnd.Failed, RunEnd.Vanished, RunEnd.TimedOut);
        }
    }

    [Fact]
    public void Status_and_wish_fit_each_other_in_every_reachable_state()
    {
        var allowed = new Dictionary<WantedState, DeploymentStatus[]>
        {
            [WantedState.Running] = [Starting, DeploymentStatus.Loading, Running, DeploymentStatus.Stopping, Unreachable],
            [WantedState.Failed] = [Error],
            [WantedState.Stopped] = [DeploymentStatus.Stopping, Stopped, Unreachable, Error, DeploymentStatus.Expired],
            [WantedState.Expired] = [Starting, DeploymentStatus.Loading, Running, DeploymentStatus.Stopping, DeploymentStatus.Expired, Unreachable],
        };

        foreach (var state in Reachable)
            allowed[state.Wanted].ShouldContain(state.Status, $"{state}");
    }

    private static DeploymentStep Next(DeploymentState state, RunObservation observed, DateTimeOffset? now = null) =>
        DeploymentStateMachine.Next(state, new(observed, now ?? Now, Jitter: 0.5), Policy);

    /// <summary>The state once the engine of its run has been seen.</summary>
    private static DeploymentState Loaded(DeploymentState state, DateTimeOffset now) => DeploymentStateMachine.Next(state, new(Loading, now), Policy).State;

    /// <summary>What a person's stop writes.</summary>
    private static DeploymentState Stop(DeploymentState state) => state with
    {
        Wanted = state.Wanted == WantedState.Expired ? WantedState.Expired : WantedState.Stopped,
        Status = state.Status.IsActive() && state.Status != Unreachable ? DeploymentStatus.Stopping : state.Status,
    };

    /// <summary>Every reachable state with every observation: at once, when the warning is due, and after the end of every deadline.</summary>
    private static IEnumerable<(DeploymentState State, RunObservation Observed, DateTimeOffset Now)> Walk() =>
        from state in Reachable
        from observed in Observations
        from now in Moments
        select (state, observed, now);

    private static readonly DateTimeOffset[] Moments = [Now, Now + TimeSpan.FromMinutes(40), Now + (2 * Lease)];

    private static HashSet<DeploymentState> Reachable => s_reachable.Value;

    private static readonly Lazy<HashSet<DeploymentState>> s_reachable = new(() =>
    {
        // in a time that moves by hand the moments of a state are kept to those that can differ
        static DeploymentState Still(DeploymentState state) => state with
        {
            ExpiresAt = state.ExpiresAt is null ? null : Now + Lease,
            BeginsAt = state.BeginsAt is null ? null : Now,
            ReadyAt = state.ReadyAt is null ? null : Now,
            WarnedOf = state.WarnedOf is null ? null : Now + Lease,
        };
        var reached = new HashSet<DeploymentState> { Fresh, Fresh with { Duration = null }, Fresh with { BeginsAt = null } };
        var open = new Queue<DeploymentState>(reached);
        while (open.TryDequeue(out var state))
        {
            var next = Observations.SelectMany(observed => Moments.Select(now => Next(state, observed, now).State));
            foreach (var found in next.Append(Stop(state)).Select(Still).Where(reached.Add))
                open.Enqueue(found);
        }
        return reached;
    });
}
