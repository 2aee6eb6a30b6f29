using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Features.Galleries;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;
using ModelHost.Rpc;
using ModelHost.TestKit;

namespace ModelHost.Tests.Galleries;

/// <summary>How long nodes are waited for that say nothing of what they are to pull.</summary>
public sealed class NodePullsTests
{
    private readonly ManualTimeProvider _clock = new();
    private readonly NodeRegistry _nodes = new();
    private readonly PullRequest _request = new() { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Model, Name = "m" };
    private readonly MuteNode _node = new();
    private readonly NodeHandle _handle;
    private readonly NodePulls _pulls;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public NodePullsTests()
    {
        _handle = new NodeHandle(1, _node, new LiveSettings(null!, null!, new RuntimeSettings(), new HashSet<string>(), NullLogger<LiveSettings>.Instance), "n");
        _nodes.Add(_handle);
        _pulls = new NodePulls(_nodes, _clock, NullLogger<NodePulls>.Instance);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_node_that_is_gone_keeps_nobody_waiting_for_ever(bool isAsked)
    {
        _node.Takes = isAsked;
        var began = _clock.GetUtcNow();

        var pull = _pulls.PullAsync(1, _request, _ => { }, () => false, Ct);
        await MoveAsync(() => pull.IsCompleted, NodePulls.Silence * 2);

        (await pull).Failure.ShouldNotBeNull().Code.ShouldBe("node.unreachable");
        (_clock.GetUtcNow() - began).ShouldBeGreaterThanOrEqualTo(NodePulls.Silence);
    }

    [Fact]
    public async Task A_node_that_answers_may_take_as_long_as_it_takes()
    {
        _node.Takes = true;
        var pull = _pulls.PullAsync(1, _request, _ => { }, () => false, Ct);
        Say(PullPhase.Downloading);

        await MoveAsync(() => _clock.GetUtcNow() > _handle.ReportedAt + (NodePulls.Silence * 4), NodePulls.Silence * 5);
        pull.IsCompleted.ShouldBeFalse();
        Say(PullPhase.Done);
        await MoveAsync(() => pull.IsCompleted, NodePulls.Silence);

        (await pull).Failure.ShouldBeNull();
    }

    [Fact]
    public void Id_of_a_pull_is_the_same_for_the_same_thing_and_for_nothing_else()
    {
        string Id(string job, int node, string uri) => NodePulls.WithId(job, node, new PullRequest { Kind = ArtifactKind.Backend, Name = "b", Files = { new PullFile { Uri = uri } } }).PullId;

        var ids = new[] { Id("j", 1, "u"), Id("k", 1, "u"), Id("j", 2, "u"), Id("j", 1, "v") };

        Array.ConvertAll(ids, Guid.Parse).ShouldBeUnique();
        Id("j", 1, "u").ShouldBe(ids[0]);
        NodePulls.WithId("j", 1, new PullRequest { PullId = ids[3], Kind = ArtifactKind.Backend, Name = "b", Files = { new PullFile { Uri = "u" } } }).PullId.ShouldBe(ids[0]);
    }

    [Fact]
    public async Task A_node_that_falls_silent_is_told_of_at_once_and_what_it_said_last_counts_for_nothing()
    {
        _node.Takes = true;
        Pull? shown = new();
        var pull = _pulls.PullAsync(1, _request, told => shown = told, () => false, Ct);
        Say(PullPhase.Downloading);
        await MoveAsync(() => shown?.Phase == PullPhase.Downloading, NodePulls.Silence);

        _handle.Silent(_clock.GetUtcNow(), "no report");
        var began = _clock.GetUtcNow();
        await MoveAsync(() => shown is null, NodePulls.Silence);
        await MoveAsync(() => pull.IsCompleted, NodePulls.Silence * 2);

        (await pull).Failure.ShouldNotBeNull().Code.ShouldBe("node.unreachable");
        (_clock.GetUtcNow() - began).ShouldBeLessThan(NodePulls.Silence * 1.5);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_node_that_dropped_what_it_held_pulls_it_anew(bool commits)
    {
        (_node.Takes, _node.Tells) = (true, Say);
        Say(PullPhase.Failed, "hold_expired");

        var pull = commits ? _pulls.CommitAsync(1, _request, _ => { }, NodePulls.Silence, Ct) : _pulls.PullAsync(1, _request, _ => { }, () => false, Ct);
        await MoveAsync(() => pull.IsCompleted, NodePulls.Silence);

        (await pull).Match(done => done.Phase, failure => throw new InvalidOperationException(failure.Detail)).ShouldBe(commits ? PullPhase.Done : PullPhase.Staged);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Agent_of_the_version_before_that_keeps_to_having_dropped_it_is_not_waited_for(bool commits)
    {
        _node.Takes = true;
        _node.Tells = (_, _) => Say(PullPhase.Failed, "hold_expired");
        Say(PullPhase.Failed, "hold_expired");

        var pull = commits ? _pulls.CommitAsync(1, _request, _ => { }, NodePulls.Silence, Ct) : _pulls.PullAsync(1, _request, _ => { }, () => false, Ct);
        await MoveAsync(() =>
        {
            Say(PullPhase.Failed, "hold_expired");
            return pull.IsCompleted;
        }, NodePulls.Silence);

        (await pull).Failure.ShouldNotBeNull().Code.ShouldBe("pull.hold_expired");
    }

    private void Say(PullPhase phase, string error = "") =>
        _handle.Heard(new NodeReport { NodeId = "n", Hostname = "n", Pulls = { new Pull { PullId = _request.PullId, Phase = phase, ErrorCode = error } } }, _clock.GetUtcNow());

    private async Task MoveAsync(Func<bool> until, TimeSpan most)
    {
        for (var end = _clock.GetUtcNow() + most; !until() && _clock.GetUtcNow() < end;)
        {
            // what the clock has woken waits for it again before it moves on
            await Deadline.UntilAsync(() => _clock.Waiting >= 2 || until());
            _clock.Advance(TimeSpan.FromSeconds(5));
        }
        until().ShouldBeTrue();
    }

    private sealed class MuteNode : NodeStandIn
    {
        public bool Takes { get; set; }

        /// <summary>Says how the pull stands after it was asked for, or told to take its place.</summary>
        public Action<PullPhase, string> Tells { get; set; } = (_, _) => { };

        public override Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken)
        {
            if (!Takes)
                return Task.FromException<PullReply>(new RpcException(RpcCode.Unavailable, "cut off"));
            Tells(PullPhase.Staged, "");
            return base.PullAsync(request, cancellationToken);
        }

        public override Task<CommitPullReply> CommitPullAsync(CommitPullRequest request, CancellationToken cancellationToken)
        {
            Tells(PullPhase.Done, "");
            return base.CommitPullAsync(request, cancellationToken);
        }

        public override IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, CancellationToken cancellationToken) => AsyncEnumerable.Empty<ReportUpdate>();
    }
}
