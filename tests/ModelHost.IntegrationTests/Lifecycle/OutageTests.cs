using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>The Docker engine does not answer for a while. Its containers go on, and nothing is concluded from its silence.</summary>
public sealed class OutageTests(RealDockerFixture fixture)
{
    [Fact]
    public async Task Silence_of_the_engine_changes_nothing_and_what_was_asked_meanwhile_is_done_afterwards()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var relay = new SocketRelay(fixture.Docker.Endpoint);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: $"Node:DockerHost={relay.Endpoint}");
        var (nodeId, model) = (await host.Client.NodeAsync("docker"), EngineNode.NewModel());
        var kept = await host.Client.RunModelAsync(node.Request(nodeId, model));
        using var traffic = new EngineTraffic(await node.ContainerAsync());
        var stopped = await host.Client.RunModelAsync(node.Request(nodeId, EngineNode.NewModel(), 8102));
        await traffic.SendAsync(20);

        await relay.CutAsync();
        await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/nodes"), nodes => !Runtimes(nodes).Contains("docker"), what: "the silence to be noticed");
        await traffic.SendAsync(20);
        await host.Client.ChatAsync(model);
        var during = await host.Client.JsonAsync($"/api/deployments/{kept}");
        var refused = await host.Client.RefusedStartAsync(node.Request(nodeId, EngineNode.NewModel(), 8103));
        (await host.Client.PostAsync(new Uri($"/api/deployments/stop/{stopped}", UriKind.Relative), null, TestContext.Current.CancellationToken)).Dispose();
        var stopping = await host.Client.JsonAsync($"/api/deployments/{stopped}");
        var containers = await node.ContainersAsync();

        relay.Heal();
        await host.Client.NodeAsync("docker");
        await host.Client.ReachAsync(stopped, "stopped");
        await traffic.SendAsync(20);
        var after = await host.Client.JsonAsync($"/api/deployments/{kept}");
        var log = await Deadline.UntilAsync(() => host.Client.LogAsync(kept), traffic.IsWhole, what: "the log to be whole");

        (during.Status(), after.Status()).ShouldBe(("running", "running"));
        (refused.Status, refused.Code).ShouldBe((409, "node.no_runtime"));
        stopping.Status().ShouldBe("stopping");
        containers.Count.ShouldBe(2);
        (await node.ContainersAsync()).Count.ShouldBe(1);
        log.Count(line => line.Contains("Application startup complete", StringComparison.Ordinal)).ShouldBe(1);
    }

    [Fact]
    public async Task Start_goes_on_when_the_engine_is_back()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        registry.Network.BytesPerSecond = StandInEngine.Slow;
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var relay = new SocketRelay(fixture.Docker.Endpoint);
        await using var host = await ControlPlane.StartAsync(
            node.Surroundings, configuration: [$"Node:DockerHost={relay.Endpoint}", $"Node:ImageRepository={registry.Repository}"]);
        var id = await host.Client.StartModelAsync(
            node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["vllm_version"] = StandInEngine.Tag));
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), d => d.GetProperty("pull_percent").ValueKind == JsonValueKind.Number);

        await relay.CutAsync();
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), d => d.Text("detail") == "waiting for docker");
        registry.Network.BytesPerSecond = long.MaxValue;
        relay.Heal();
        await host.Client.ReachAsync(id, "running");

        (await node.ContainersAsync()).Count.ShouldBe(1);
    }

    private static IEnumerable<string> Runtimes(JsonElement nodes) => nodes[0].GetProperty("available_runtimes").EnumerateArray().Select(r => r.GetString()!);
}
