using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Docker;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>Engines that end by themselves, on the real Docker engine.</summary>
public sealed class RelaunchTests(RealDockerFixture fixture)
{
    private const string Quick = "Lifecycle:RelaunchDelay=00:00:00.200";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Crash_loop_is_given_up_with_its_cause_and_nothing_is_left()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: Quick);
        var id = await host.Client.StartModelAsync(node.Request(
            await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["max_failed_restarts"] = 2, variables: ("VLLM_SIM_FAIL", "nccl")));

        var failed = await host.Client.StatusAsync(id, "error");
        await Deadline.UntilAsync(node.ContainersAsync, containers => containers.Count == 0, what: "the containers to be removed");
        var runs = await host.Client.JsonAsync($"/api/deployments/{id}/runs");
        var logs = await Task.WhenAll(runs.EnumerateArray().Select(run => host.Client.JsonAsync($"/api/deployments/{id}/logs?run={run.Text("id")}")));

        failed.Text("last_error").ShouldStartWith("Stopped after 2 failed starts. ");
        failed.Text("error_code").ShouldBe("engine_exited");
        runs.GetArrayLength().ShouldBe(2);
        runs.EnumerateArray().ShouldAllBe(run => run.GetProperty("exit_code").GetInt32() == 1 && run.Text("engine_version") == "0.28.0");
        logs.ShouldAllBe(log => log.GetProperty("lines").EnumerateArray().Any(line => line.GetString()!.EndsWith("failed (engine_exited)", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task Engine_that_ends_while_it_serves_and_a_container_removed_by_hand_are_followed_by_others()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: Quick);
        var model = EngineNode.NewModel();
        var id = await host.Client.RunModelAsync(node.Request(
            await host.Client.NodeAsync("docker"), model, change: request => request["max_failed_restarts"] = 10, variables: ("VLLM_SIM_EXIT_AFTER", "1")));
        var first = await node.ContainerAsync();

        await host.Client.ChatAsync(model);
        await NextRunAsync(host, id, first.Labels["modelhost.run"]);
        var second = await node.ContainerAsync();
        await fixture.Docker.CliAsync(Ct, "rm", "-f", second.Id);
        await NextRunAsync(host, id, second.Labels["modelhost.run"]);
        var third = await node.ContainerAsync();
        var runs = await host.Client.JsonAsync($"/api/deployments/{id}/runs");
        await host.Client.ChatAsync(model); // after which it ends as well

        runs.EnumerateArray().Select(run => run.Text("id")).ShouldBe(new[] { third, second, first }.Select(container => container.Labels["modelhost.run"]));
        runs.EnumerateArray().Skip(1).Select(run => run.Text("error_code")).ShouldBe(["engine_vanished", "engine_exited"]);
        third.Labels["modelhost.deployment"].ShouldBe(first.Labels["modelhost.deployment"]);
    }

    [Fact]
    public async Task Engine_that_loads_for_ever_is_ended()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: "Lifecycle:StartTimeout=00:00:20");
        var id = await host.Client.StartModelAsync(node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel(), variables: ("VLLM_SIM_HANG", "load")));

        await host.Client.StatusAsync(id, "loading");
        var failed = await host.Client.StatusAsync(id, "error");
        await Deadline.UntilAsync(node.ContainersAsync, containers => containers.Count == 0, what: "the container to be removed");

        failed.Text("error_code").ShouldBe("start_timeout");
        (await host.Client.JsonAsync($"/api/deployments/{id}")).Text("last_error").ShouldContain("not ready within 20 s");
    }

    [Fact]
    public async Task Lease_that_is_over_ends_the_container()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var id = await host.Client.StartModelAsync(node.Request(
            await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["duration_seconds"] = 3));

        // it runs for seconds only: who looks at the wrong moment does not see it
        var expired = await host.Client.StatusAsync(id, "expired");
        var run = (await host.Client.JsonAsync($"/api/deployments/{id}/runs"))[0];

        (expired.GetProperty("expires_at").GetDateTimeOffset() - run.GetProperty("ready_at").GetDateTimeOffset()).ShouldBe(TimeSpan.FromSeconds(3));
        (await node.ContainersAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Extension_keeps_the_container_and_a_restart_makes_another_with_the_same_command_and_variables()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var model = EngineNode.NewModel();
        var id = await host.Client.RunModelAsync(node.Request(await host.Client.NodeAsync("docker"), model, change: request =>
            (request["duration_seconds"], request["engine_args"]) = (12, new JsonObject { ["max_model_len"] = 2048 }), variables: ("HF_TOKEN", "hf_a-secret-of-the-tests")));
        var first = await node.ContainerAsync();

        // both at once: the lease of a few seconds must not run out in between
        var extended = await PostAsync(host, $"{id}/extend", new() { ["hours"] = 336 });
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"),
            d => TimeProvider.System.GetUtcNow() > d.GetProperty("expires_at").GetDateTimeOffset() - TimeSpan.FromHours(336), what: "the first lease to be over");
        await host.Client.ChatAsync(model);
        var kept = await node.ContainerAsync();
        await host.Client.StopModelAsync(id);
        var none = await node.ContainersAsync();
        await PostAsync(host, $"{id}/restart", new() { ["owner"] = "team-b" });
        var running = await host.Client.ReachAsync(id, "running");
        await host.Client.ChatAsync(model);
        var second = await node.ContainerAsync();

        extended.GetProperty("duration_seconds").GetInt32().ShouldBe(12 + (336 * 3600));
        kept.Id.ShouldBe(first.Id);
        none.ShouldBeEmpty();
        (second.Labels["modelhost.deployment"], second.Env.Contains("HF_TOKEN=hf_a-secret-of-the-tests")).ShouldBe((first.Labels["modelhost.deployment"], true));
        second.Labels["modelhost.run"].ShouldNotBe(first.Labels["modelhost.run"]);
        Command(second).ShouldBe(Command(first));
        (running.Text("owner"), running.GetProperty("expires_at").ValueKind, running.GetProperty("id").GetInt32()).ShouldBe(("team-b", JsonValueKind.Null, id));
    }

    // the port on the loopback is chosen for each run
    private static IEnumerable<string> Command(ContainerDetails container) =>
        container.Command.Select((argument, i) => i > 0 && container.Command[i - 1] == "--port" ? "PORT" : argument);

    private static async Task<JsonElement> PostAsync(ControlPlane host, string path, JsonObject body)
    {
        using var answer = await host.Client.PostAsJsonAsync($"/api/deployments/{path}", body, Ct);
        answer.EnsureSuccessStatusCode();
        return await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
    }

    private static async Task NextRunAsync(ControlPlane host, int id, string run)
    {
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}/runs"), runs => runs[0].Text("id") != run && runs[0].GetProperty("ready_at").ValueKind == JsonValueKind.String);
        await host.Client.ReachAsync(id, "running");
    }
}
