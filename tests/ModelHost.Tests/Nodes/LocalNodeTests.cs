using System.Text.Json.Nodes;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;
using ModelHost.TestKit;
using static ModelHost.Tests.Nodes.NodeRuns;

namespace ModelHost.Tests.Nodes;

/// <summary>A node that nobody speaks to: no control plane is there.</summary>
public sealed class LocalNodeTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Lease_counts_from_the_first_ready_moment_and_ends_the_engine_without_being_told()
    {
        var clock = new MovedClock();
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(surroundings, time: clock);
        var request = Request(new Lease(0, null, 3600));

        await node.StartAsync(request, Ct);
        var ready = await PhaseAsync(node, request.RunId, EnginePhase.Ready);
        clock.By = TimeSpan.FromHours(1);
        var expired = await PhaseAsync(node, request.RunId, EnginePhase.Expired);
        var left = Engines(surroundings);
        await node.StopAsync(new StopRequest { RunId = request.RunId }, Ct);
        await GoneAsync(node, request.RunId);

        (Lease.FromJson(ready.Lease)!.ExpiresAt!.Value.ToUnixTimeMilliseconds() / 1000.0).ShouldBe(ready.ReadyAt + 3600, 0.002);
        expired.Lease.ShouldBe(ready.Lease);
        left.ShouldBeEmpty();
        Directory.GetFiles(Path.Combine(surroundings.Data, "runs")).ShouldBeEmpty();
    }

    [Fact]
    public async Task Lease_told_last_holds_over_a_restart_of_the_node()
    {
        using var surroundings = new TestNode();
        var request = Request(new Lease(3, null, 3600));
        var end = DateTimeOffset.UtcNow.AddHours(5);
        double readyAt;
        await using (var first = await OpenAsync(surroundings))
        {
            await first.StartAsync(request, Ct);
            readyAt = (await PhaseAsync(first, request.RunId, EnginePhase.Ready)).ReadyAt;
            await first.UpdateAsync(new UpdateRequest { RunId = request.RunId, LaunchSpec = request.LaunchSpec, Lease = new Lease(4, end, 7200).ToJson() }, Ct);
            await first.UpdateAsync(new UpdateRequest { RunId = request.RunId, LaunchSpec = request.LaunchSpec, Lease = new Lease(2, null, null).ToJson() }, Ct);
        }

        await using var second = await OpenAsync(surroundings);
        var found = await PhaseAsync(second, request.RunId, EnginePhase.Ready);
        await second.UpdateAsync(new UpdateRequest { RunId = request.RunId, LaunchSpec = request.LaunchSpec, Lease = new Lease(5, DateTimeOffset.UtcNow, 1).ToJson() }, Ct);
        await PhaseAsync(second, request.RunId, EnginePhase.Expired);
        await second.StopAsync(new StopRequest { RunId = request.RunId }, Ct);
        await GoneAsync(second, request.RunId);

        Lease.FromJson(found.Lease).ShouldBe(new Lease(4, end, 7200));
        found.ReadyAt.ShouldBe(readyAt);
    }

    [Fact]
    public async Task Lease_that_ended_while_the_node_was_down_ends_the_engine_and_is_remembered()
    {
        var clock = new MovedClock();
        using var surroundings = new TestNode();
        var request = Request(new Lease(0, null, 3600));
        await using (var first = await OpenAsync(surroundings, time: clock))
        {
            await first.StartAsync(request, Ct);
            await PhaseAsync(first, request.RunId, EnginePhase.Ready);
        }
        clock.By = TimeSpan.FromHours(2);

        await using (var second = await OpenAsync(surroundings, time: clock))
            await PhaseAsync(second, request.RunId, EnginePhase.Expired);
        await using var third = await OpenAsync(surroundings, time: clock);
        await PhaseAsync(third, request.RunId, EnginePhase.Expired);
        await third.StopAsync(new StopRequest { RunId = request.RunId }, Ct);
        await GoneAsync(third, request.RunId);

        Engines(surroundings).ShouldBeEmpty();
    }

    [Fact]
    public async Task Engine_goes_on_after_the_machine_was_started_again()
    {
        using var surroundings = new TestNode();
        var request = Request(new Lease(6, DateTimeOffset.UtcNow.AddHours(1), 3600), ("HF_TOKEN", "hf_a-secret-of-the-tests"));
        await using (var first = await OpenAsync(surroundings))
        {
            await first.StartAsync(request, Ct);
            await PhaseAsync(first, request.RunId, EnginePhase.Ready);
        }
        await RebootAsync(surroundings, request.RunId);

        await using var second = await OpenAsync(surroundings);
        var engine = await Deadline.UntilAsync(() => ReportAsync(second), report => report.Engines.Count == 1 && report.Engines[0].Phase == EnginePhase.Ready);
        var next = engine.Engines[0];
        var env = await second.EnvironmentAsync(new EnvironmentRequest { RunId = next.RunId }, Ct);
        await second.StopAsync(new StopRequest { RunId = next.RunId }, Ct);
        await GoneAsync(second, next.RunId);

        (next.DeploymentUid, next.LaunchSpec).ShouldBe((request.DeploymentUid, request.LaunchSpec));
        next.RunId.ShouldNotBe(request.RunId);
        Lease.FromJson(next.Lease).ShouldBe(Lease.FromJson(request.Lease));
        env.Env["HF_TOKEN"].ShouldBe("hf_a-secret-of-the-tests");
    }

    [Theory]
    [InlineData("Told")]
    [InlineData("Expired")]
    public async Task What_was_not_to_run_any_more_does_not_come_back_after_the_machine_was_started_again(string ending)
    {
        using var surroundings = new TestNode();
        var request = Request(new Lease(6, null, null));
        await using (var first = await OpenAsync(surroundings))
        {
            await first.StartAsync(request, Ct);
            await PhaseAsync(first, request.RunId, EnginePhase.Ready);
        }
        await RebootAsync(surroundings, request.RunId, ending);

        await using var second = await OpenAsync(surroundings);
        if (ending == "Expired")
        {
            await PhaseAsync(second, request.RunId, EnginePhase.Expired);
            await second.StopAsync(new StopRequest { RunId = request.RunId }, Ct);
        }
        await GoneAsync(second, request.RunId);

        (await ReportAsync(second)).Engines.ShouldBeEmpty();
        Engines(surroundings).ShouldBeEmpty();
    }

    [Fact]
    public async Task Secrets_stand_in_no_file_in_clear()
    {
        const string secret = "hf_not-to-be-found-anywhere";
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(surroundings);
        var request = Request(new Lease(0, null, null), ("HF_TOKEN", secret));
        await node.StartAsync(request, Ct);
        await PhaseAsync(node, request.RunId, EnginePhase.Ready);

        var texts = FolderText.Read(surroundings.Data);
        var record = Path.Combine(surroundings.Data, "runs", request.RunId + ".json");
        var mode = File.GetUnixFileMode(record);
        await node.StopAsync(new StopRequest { RunId = request.RunId }, Ct);
        await GoneAsync(node, request.RunId);

        texts.ShouldAllBe(text => !text.Contains(secret, StringComparison.Ordinal));
        mode.ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    /// <summary>Ends the engine and lets its record be of an earlier boot.</summary>
    private static async Task RebootAsync(TestNode surroundings, string run, string ending = "None")
    {
        var sidecar = ProcessSidecar.Read(Path.Combine(surroundings.Data, "engines", run + ".json"))!;
        Libc.SignalGroup(sidecar.Pid!.Value, Libc.SigKill);
        await Deadline.UntilAsync(() => !sidecar.IsAlive);
        var path = Path.Combine(surroundings.Data, "runs", run + ".json");
        var record = JsonNode.Parse(await File.ReadAllTextAsync(path, Ct))!;
        record["ending"]!.GetValue<string>().ShouldBe("None");
        (record["boot_id"], record["ending"]) = ("another", ending);
        await File.WriteAllTextAsync(path, record.ToJsonString(), Ct);
    }

    private static string[] Engines(TestNode surroundings) => Directory.GetFiles(Path.Combine(surroundings.Data, "engines"), "*.json");
}
