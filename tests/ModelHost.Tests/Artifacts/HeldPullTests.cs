using System.Text.Json.Nodes;
using ModelHost.Agent;
using ModelHost.Agent.Artifacts;
using ModelHost.Agent.Downloads;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Nodes;

namespace ModelHost.Tests.Artifacts;

/// <summary>Pulls that stop when they are whole, until they may take their place.</summary>
public sealed class HeldPullTests : IAsyncLifetime
{
    private readonly TestNode _surroundings = new();
    private readonly DownloadOptions _options = Pulls.Options();
    private FileServer _server = null!;
    private ServedFile _old = null!, _new = null!;
    private LocalNode _node = null!;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private string Parts => Path.Combine(_surroundings.Data, "models/.staging/m/parts");

    private string Tree => Path.Combine(_surroundings.Data, "models/.staging/m/tree");

    public async ValueTask InitializeAsync()
    {
        _server = await FileServer.StartAsync();
        (_old, _new) = (_server.Put("/old", FileServer.Bytes(1000)), _server.Put("/new", FileServer.Bytes(200_000, seed: 2)));
        _node = await NodeRuns.OpenAsync(_surroundings, _options);
        await Pulls.DoAsync(_node, Pulls.Model("m", Pulls.From(_server.Url("/old"), "w")));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Cancelled_one_leaves_what_was_there_and_its_parts_only_if_that_is_wanted(bool keepPartial)
    {
        var request = await StageAsync();

        await _node.CancelPullAsync(new CancelPullRequest { PullId = request.PullId, KeepPartial = keepPartial }, Ct);
        var pull = await Pulls.EndAsync(_node, request.PullId);

        pull.Phase.ShouldBe(PullPhase.Cancelled);
        Content().ShouldBe(_old.Content);
        Directory.Exists(Tree).ShouldBeFalse();
        Directory.Exists(Parts).ShouldBe(keepPartial);
        (await RefusedAsync(request)).ShouldBe("the pull was cancelled");
        (await Pulls.DoAsync(_node, Pulls.Model("m", Pulls.From(_server.Url("/new"), "w")))).Phase.ShouldBe(PullPhase.Done);
        Content().ShouldBe(_new.Content);
        _server.Requests.Count(asked => asked.Path == "/new" && asked.Range.Length == 0).ShouldBe(keepPartial ? 1 : 2);
    }

    [Fact]
    public async Task Node_that_comes_back_holds_it_still_and_downloads_nothing()
    {
        var request = await StageAsync();
        var before = await Pulls.StateAsync(_node, request.PullId);
        await RestartAsync();
        var after = await Pulls.UntilAsync(_node, request.PullId, pull => pull.Phase == PullPhase.Staged);
        var between = Content();

        await CommitAsync(request);
        var done = await Pulls.EndAsync(_node, request.PullId);

        (after, before!.DoneBytes, before.Digest).ShouldBe((before, 200_000, "sha256:" + _new.Sha256));
        (done.Phase, done.DoneBytes, done.Digest).ShouldBe((PullPhase.Done, 200_000, "sha256:" + _new.Sha256));
        between.ShouldBe(_old.Content);
        Content().ShouldBe(_new.Content);
        _server.Requests.Count(asked => asked.Path == "/new").ShouldBe(1);
        Directory.Exists(Path.GetDirectoryName(Tree)).ShouldBeFalse();
    }

    [Fact]
    public async Task Node_that_has_lost_what_it_held_gets_it_again()
    {
        var request = await StageAsync();
        await _node.DisposeAsync();
        Directory.Delete(Path.GetDirectoryName(Tree)!, recursive: true);
        _node = await NodeRuns.OpenAsync(_surroundings, _options);

        // until the node has looked, it says what its record says
        await Deadline.UntilAsync(() => _server.Requests.Count(asked => asked.Path == "/new") == 2, what: "the node to get it again");
        await Pulls.UntilAsync(_node, request.PullId, pull => pull.Phase == PullPhase.Staged);
        await CommitAsync(request);

        (await Pulls.EndAsync(_node, request.PullId)).Phase.ShouldBe(PullPhase.Done);
        Content().ShouldBe(_new.Content);
        _server.Requests.Count(asked => asked.Path == "/new").ShouldBe(2);
    }

    [Fact]
    public async Task Node_that_goes_down_after_the_exchange_knows_that_it_is_done()
    {
        var request = await StageAsync();
        var record = await File.ReadAllTextAsync(Record(request), Ct);
        await CommitAsync(request);
        await Pulls.EndAsync(_node, request.PullId);
        await _node.DisposeAsync();
        await File.WriteAllTextAsync(Record(request), record, Ct);
        _node = await NodeRuns.OpenAsync(_surroundings, _options);

        (await Pulls.EndAsync(_node, request.PullId)).Phase.ShouldBe(PullPhase.Done);
        await _node.DisposeAsync();
        File.Delete(Record(request));
        _node = await NodeRuns.OpenAsync(_surroundings, _options);
        await CommitAsync(request); // known by what lies in the place

        Content().ShouldBe(_new.Content);
        _server.Requests.Count(asked => asked.Path == "/new").ShouldBe(1);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Held_one_gives_way_to_a_later_one_of_its_name(bool isAskedForBefore)
    {
        var last = _server.Put("/last", FileServer.Bytes(500, seed: 3));
        var (held, later) = (Held(), Pulls.Model("m", Pulls.From(_server.Url("/last"), "w")));
        if (isAskedForBefore)
            _new.HoldAfter = 1000;
        await _node.PullAsync(held, Ct);
        if (isAskedForBefore)
            await Pulls.UntilAsync(_node, held.PullId, pull => pull.DoneBytes == 1000);
        else
            await Pulls.UntilAsync(_node, held.PullId, pull => pull.Phase == PullPhase.Staged);

        await _node.PullAsync(later, Ct);
        _new.Release();
        var (gone, done) = (await Pulls.EndAsync(_node, held.PullId), await Pulls.EndAsync(_node, later.PullId));

        (gone.Phase, gone.ErrorCode, done.Phase).ShouldBe((PullPhase.Failed, "superseded", PullPhase.Done));
        Content().ShouldBe(last.Content);
        (await RefusedAsync(held)).ShouldStartWith("the pull has failed");
    }

    [Fact]
    public async Task One_that_is_cancelled_while_it_waits_changes_nothing_for_those_before_and_after_it()
    {
        var last = _server.Put("/last", FileServer.Bytes(500, seed: 3));
        _new.HoldAfter = 1000;
        var (first, cancelled, third) = (Held(), Pulls.Model("m", Pulls.From(_server.Url("/last"), "w")), Pulls.Model("m", Pulls.From(_server.Url("/last"), "w")));
        await _node.PullAsync(first, Ct);
        await Pulls.UntilAsync(_node, first.PullId, pull => pull.DoneBytes == 1000);
        await _node.PullAsync(cancelled, Ct);
        await _node.CancelPullAsync(new CancelPullRequest { PullId = cancelled.PullId }, Ct);
        (await Pulls.EndAsync(_node, cancelled.PullId)).Phase.ShouldBe(PullPhase.Cancelled);
        await _node.PullAsync(third, Ct);
        (await Pulls.DoAsync(_node, Pulls.Model("other", Pulls.From(_server.Url("/last"))))).Phase.ShouldBe(PullPhase.Done);

        var waiting = await Pulls.StateAsync(_node, third.PullId);
        await _node.CancelPullAsync(new CancelPullRequest { PullId = third.PullId }, Ct);
        await Pulls.EndAsync(_node, third.PullId);
        _new.Release();
        var held = await Pulls.UntilAsync(_node, first.PullId, pull => pull.Phase is PullPhase.Staged or PullPhase.Failed);

        waiting!.Phase.ShouldBe(PullPhase.Queued, "two are never at work on one name");
        (held.Phase, held.Error).ShouldBe((PullPhase.Staged, ""));
    }

    [Fact]
    public async Task Who_ends_one_waits_for_nothing_that_it_does_then()
    {
        using var running = new RunningPull(new PullRecord { Request = Held(), State = new Pull() }, () => { }, new CancellationTokenSource());
        using var deleted = new ManualResetEventSlim();
        running.Stop.Register(deleted.Wait);

        try
        {
            await Task.Run(() => running.Cancel(keepPartial: false), Ct).WaitAsync(Deadline.Allowed(30), Ct);
        }
        finally
        {
            deleted.Set();
        }

        running.Stop.IsCancellationRequested.ShouldBeTrue();
    }

    [Fact]
    public async Task Held_one_does_not_keep_what_is_there_from_being_deleted()
    {
        var request = await StageAsync();

        await DeleteAsync();

        (await Pulls.EndAsync(_node, request.PullId)).ErrorCode.ShouldBe("superseded");
        (await Pulls.InstalledAsync(_node, "m")).ShouldBeNull();
    }

    [Fact]
    public async Task Held_one_that_nobody_asks_for_any_more_is_dropped()
    {
        var request = await StageAsync();
        var before = AskedAt(request);
        await _node.PullAsync(request, Ct);
        AskedAt(request).ShouldBeGreaterThan(before, "being asked for again, it is wanted longer");
        await _node.DisposeAsync();
        var record = JsonNode.Parse(await File.ReadAllTextAsync(Record(request), Ct))!;
        record["asked_at"] = DateTimeOffset.UtcNow - _options.HoldFor - TimeSpan.FromMinutes(1);
        await File.WriteAllTextAsync(Record(request), record.ToJsonString(), Ct);
        _node = await NodeRuns.OpenAsync(_surroundings, _options);

        var pull = await Pulls.EndAsync(_node, request.PullId);

        (pull.Phase, pull.ErrorCode).ShouldBe((PullPhase.Failed, "hold_expired"));
        Content().ShouldBe(_old.Content);
        (Directory.Exists(Tree), Directory.Exists(Parts)).ShouldBe((false, true));
    }

    [Fact]
    public async Task One_that_was_dropped_is_pulled_anew_for_who_asks_again_and_downloads_nothing()
    {
        _options.HoldFor = TimeSpan.FromSeconds(1);
        await RestartAsync();
        var request = Held();
        await _node.PullAsync(request, Ct);
        (await Pulls.EndAsync(_node, request.PullId)).ErrorCode.ShouldBe("hold_expired");
        var downloads = _server.Requests.Count(asked => asked.Range.Length == 0);
        _options.HoldFor = TimeSpan.FromHours(1);
        await RestartAsync();

        await _node.PullAsync(request, Ct);
        var staged = await Pulls.UntilAsync(_node, request.PullId, pull => pull.Phase == PullPhase.Staged);
        await _node.CommitPullAsync(new CommitPullRequest { PullId = request.PullId }, Ct);
        var done = await Pulls.EndAsync(_node, request.PullId);
        await _node.PullAsync(request, Ct);

        (staged.ErrorCode, staged.HasEndedAt, done.Phase).ShouldBe(("", false, PullPhase.Done));
        (await Pulls.StateAsync(_node, request.PullId))!.Phase.ShouldBe(PullPhase.Done);
        _server.Requests.Count(asked => asked.Range.Length == 0).ShouldBe(downloads, "its parts lie on the disk");
        Content().ShouldNotBe(_old.Content);
    }

    [Fact]
    public async Task Held_one_is_dropped_while_the_node_runs_as_well_and_keeps_no_other_waiting()
    {
        (_options.HoldFor, _options.ParallelPulls) = (TimeSpan.FromSeconds(1), 1);
        await RestartAsync();
        var request = Held();

        await _node.PullAsync(request, Ct);
        var other = await Pulls.DoAsync(_node, Pulls.Model("other", Pulls.From(_server.Url("/old"))));
        var pull = await Pulls.EndAsync(_node, request.PullId);

        (other.Phase, pull.ErrorCode).ShouldBe((PullPhase.Done, "hold_expired"));
        Content().ShouldBe(_old.Content);
    }

    [Fact]
    public async Task Held_ones_take_no_place_among_those_at_work()
    {
        _options.ParallelPulls = 1;
        await RestartAsync();
        var request = await StageAsync();

        (await Pulls.DoAsync(_node, Pulls.Model("other", Pulls.From(_server.Url("/old"))))).Phase.ShouldBe(PullPhase.Done);

        (await Pulls.StateAsync(_node, request.PullId))!.Phase.ShouldBe(PullPhase.Staged);
    }

    [Fact]
    public async Task What_cannot_take_its_place_is_not_held()
    {
        await DeleteAsync();
        await File.WriteAllTextAsync(Path.Combine(_surroundings.Data, "models/m"), "mine", Ct);

        var pull = await Pulls.DoAsync(_node, Held());

        (pull.Phase, pull.ErrorCode).ShouldBe((PullPhase.Failed, "install_failed"));
    }

    public async ValueTask DisposeAsync()
    {
        await _node.DisposeAsync();
        await _server.DisposeAsync();
        _surroundings.Dispose();
    }

    private PullRequest Held() => Pulls.Held("m", Pulls.From(_server.Url("/new"), "w"));

    private async Task<PullRequest> StageAsync()
    {
        var request = Held();
        await _node.PullAsync(request, Ct);
        await Pulls.UntilAsync(_node, request.PullId, pull => pull.Phase == PullPhase.Staged);
        return request;
    }

    private Task<CommitPullReply> CommitAsync(PullRequest request) => _node.CommitPullAsync(new CommitPullRequest { PullId = request.PullId }, Ct);

    private async Task<string> RefusedAsync(PullRequest request) => (await Should.ThrowAsync<InvalidOperationException>(() => CommitAsync(request))).Message;

    private async Task DeleteAsync()
    {
        await _node.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Model, Name = "m" }, Ct);
        await Deadline.UntilAsync(() => Directory.GetDirectories(Path.Combine(_surroundings.Data, "models/.staging"), ".removed-*").Length == 0, what: "its files to be gone");
    }

    private async Task RestartAsync()
    {
        await _node.DisposeAsync();
        _node = await NodeRuns.OpenAsync(_surroundings, _options);
    }

    private string Record(PullRequest request) => Path.Combine(_surroundings.Data, "pulls", $"{Guid.Parse(request.PullId):N}.json");

    private DateTimeOffset AskedAt(PullRequest request) => JsonNode.Parse(File.ReadAllText(Record(request)))!["asked_at"]!.GetValue<DateTimeOffset>();

    private byte[] Content() => File.ReadAllBytes(Path.Combine(_surroundings.Data, "models/m/w"));
}
