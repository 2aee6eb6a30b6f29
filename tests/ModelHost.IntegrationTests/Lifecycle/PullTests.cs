using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>Pulls of a real engine from a registry at the other end of a bad network.</summary>
public sealed class PullTests(RealDockerFixture fixture)
{
    private const long Slow = StandInEngine.Slow;

    [Fact]
    public async Task Figures_of_a_slow_pull_grow_to_the_size_of_the_image()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry);
        registry.Network.BytesPerSecond = Slow;
        var id = await StartAsync(host, node);

        var seen = new List<JsonElement>();
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), d => Keep(seen, d).Status() is not "starting", 120);
        var running = await host.Client.ReachAsync(id, "running");
        var log = await host.Client.LogAsync(id);

        running.Text("image_digest").ShouldStartWith($"{registry.Repository}@sha256:");
        foreach (var figure in (string[])["pull_percent", "pull_downloaded_mb", "pull_total_mb", "pull_layers", "pull_layers_done"])
        {
            var values = Values(seen, figure);
            values.ShouldBe(values.Order());
            running.GetProperty(figure).ValueKind.ShouldBe(JsonValueKind.Null);
        }
        var percents = Values(seen, "pull_percent");
        percents.Distinct().Count().ShouldBeGreaterThan(10);
        percents.ShouldAllBe(percent => percent >= 0 && percent <= 100 && percent == Math.Round(percent, 1));
        Values(seen, "pull_total_mb")[^1].ShouldBe(registry.Bytes / 1_000_000);
        Values(seen, "pull_downloaded_mb").Distinct().Count().ShouldBeGreaterThan(3);
        Values(seen, "pull_layers")[^1].ShouldBe(2);
        seen.Where(d => d.Text("detail") == "pulling image" && Number(d, "pull_percent") is > 0 and < 100).ShouldNotBeEmpty();
        seen.Where(d => d.Text("detail") == "extracting image").ShouldAllBe(d => Number(d, "pull_percent") == 100);
        foreach (var step in (string[])["Downloading", "Extracting", "Pull complete"])
            log.Count(line => line.EndsWith($": {step}", StringComparison.Ordinal)).ShouldBe(2, step);
    }

    [Fact]
    public async Task Registry_that_answers_late_is_waited_for()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry, "Node:PullStallTimeout=00:00:30");
        registry.Network.Delay = TimeSpan.FromMilliseconds(300);

        await host.Client.ReachAsync(await StartAsync(host, node), "running");

        registry.Network.Accepted.ShouldBeGreaterThan(1);
    }

    [Fact]
    public async Task Stop_ends_the_download_of_the_engine()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry);
        registry.Network.BytesPerSecond = Slow;
        var id = await StartAsync(host, node);
        await PullingAsync(host, id);

        await host.Client.StopModelAsync(id);
        await Deadline.UntilAsync(() => registry.Network.Open == 0, what: "the engine to hang up");
        var (bytes, connections) = (registry.Network.Bytes, registry.Network.Accepted);
        registry.Network.BytesPerSecond = long.MaxValue;
        await PassAsync(TimeSpan.FromSeconds(1));

        (registry.Network.Bytes, registry.Network.Accepted).ShouldBe((bytes, connections));
        bytes.ShouldBeLessThan(registry.Bytes);
        (await node.ContainersAsync()).ShouldBeEmpty();
        (await node.Client.ListImagesAsync(registry.Repository, TestContext.Current.CancellationToken)).ShouldBeEmpty();
        (await host.Client.JsonAsync($"/api/deployments/{id}")).Status().ShouldBe("stopped");
    }

    [Fact]
    public async Task Start_after_a_stopped_pull_pulls_again()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry);
        registry.Network.BytesPerSecond = Slow;
        var id = await StartAsync(host, node);
        await PullingAsync(host, id);
        await host.Client.StopModelAsync(id);

        // at once: the engine may still be busy with giving up
        var again = await StartAsync(host, node);
        registry.Network.BytesPerSecond = long.MaxValue;
        await host.Client.ReachAsync(again, "running");

        (await node.ContainersAsync()).Count.ShouldBe(1);
    }

    [Fact]
    public async Task Cut_connection_is_made_again_by_the_engine_and_the_figures_do_not_fall()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry);
        registry.Network.BytesPerSecond = Slow;
        var id = await StartAsync(host, node);
        var seen = new List<JsonElement> { await PullingAsync(host, id) };

        registry.Network.Cut();
        await Deadline.UntilAsync(() => host.Client.LogAsync(id), log => log.Any(line => line.Contains(": Retrying", StringComparison.Ordinal)));
        registry.Network.BytesPerSecond = 4 * Slow;
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), d => Keep(seen, d).Status() is not "starting", 120);
        await host.Client.ReachAsync(id, "running");

        foreach (var figure in (string[])["pull_percent", "pull_downloaded_mb", "pull_total_mb"])
        {
            var values = Values(seen, figure);
            values.ShouldBe(values.Order());
        }
    }

    [Fact]
    public async Task Registry_that_is_gone_half_way_is_an_error_that_says_so_and_back_it_serves_the_next_start()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry, "Node:PullStallTimeout=00:00:08");
        registry.Network.BytesPerSecond = Slow;
        var id = await StartAsync(host, node);
        await PullingAsync(host, id);

        await registry.Network.RefuseAsync();
        var failed = await FailAsync(host, id, registry, "registry_unreachable");
        registry.Network.Heal();
        registry.Network.BytesPerSecond = long.MaxValue;
        await host.Client.ReachAsync(await StartAsync(host, node), "running");

        failed.ShouldContain("for 8 s (Node:PullStallTimeout)");
        failed.ShouldContain("Retrying in");
    }

    [Fact]
    public async Task Registry_that_refuses_connections_is_an_error_that_says_so()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry);
        await registry.Network.RefuseAsync();

        var failed = await FailAsync(host, await StartAsync(host, node), registry, "registry_unreachable");
        registry.Network.Heal();
        await host.Client.ReachAsync(await StartAsync(host, node), "running");

        failed.ShouldContain("connection refused");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Registry_that_sends_nothing_more_is_given_up_and_back_it_serves_the_next_start(bool begins)
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry, "Node:PullStallTimeout=00:00:05");
        registry.Network.BytesPerSecond = begins ? Slow : 0;
        var id = await StartAsync(host, node);
        if (begins)
            await PullingAsync(host, id);

        registry.Network.BytesPerSecond = 0;
        var failed = await FailAsync(host, id, registry, "registry_unreachable");
        registry.Network.BytesPerSecond = long.MaxValue;
        await host.Client.ReachAsync(await StartAsync(host, node), "running");

        failed.ShouldContain("for 5 s (Node:PullStallTimeout)");
    }

    [Theory]
    [InlineData("team/engine", "9.9.9", "image_not_found", "manifest unknown")]
    [InlineData("team/nothing", "1.0.0", "image_not_found", "name unknown")]
    public async Task Image_that_the_registry_does_not_have_is_an_error_that_says_so(string repository, string version, string code, string words)
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: $"Node:ImageRepository={registry.Registry}/{repository}");

        var failed = await FailAsync(host, await StartAsync(host, node, version: version), registry, code, $"{repository}:v{version}");

        failed.ShouldContain(words);
        (await node.ContainersAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Registry_that_wants_a_login_is_an_error_that_says_so()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry);
        registry.Lock();

        var failed = await FailAsync(host, await StartAsync(host, node), registry, "registry_auth");

        failed.ShouldContain("without a login");
    }

    [Fact]
    public async Task Deployments_of_one_image_share_its_pull_and_the_stop_of_one_leaves_the_others_alone()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await StartAsync(node, registry);
        registry.Network.BytesPerSecond = Slow;
        var (one, other) = (await StartAsync(host, node), await StartAsync(host, node, 8102));
        await PullingAsync(host, one);
        await PullingAsync(host, other);

        await host.Client.StopModelAsync(one);
        registry.Network.BytesPerSecond = long.MaxValue;
        await host.Client.ReachAsync(other, "running");

        (await host.Client.JsonAsync($"/api/deployments/{one}")).Status().ShouldBe("stopped");
        registry.Network.Bytes.ShouldBeLessThan(registry.Bytes * 5 / 4); // once, with the heads of the answers
        (await node.ContainersAsync()).Count.ShouldBe(1);
    }

    [Fact]
    public async Task Pull_is_taken_up_again_by_a_control_plane_that_was_stopped_meanwhile()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        registry.Network.BytesPerSecond = Slow;
        int id;
        await using (var first = await StartAsync(node, registry))
        {
            id = await StartAsync(first, node);
            await PullingAsync(first, id);
        }

        await using var second = await StartAsync(node, registry);
        await PullingAsync(second, id);
        registry.Network.BytesPerSecond = long.MaxValue;
        await second.Client.ReachAsync(id, "running");

        (await node.ContainersAsync()).Count.ShouldBe(1);
    }

    private static Task<ControlPlane> StartAsync(EngineNode node, StandInEngine registry, params string[] settings) =>
        ControlPlane.StartAsync(node.Surroundings, configuration: [$"Node:ImageRepository={registry.Repository}", .. settings]);

    private static async Task<int> StartAsync(ControlPlane host, EngineNode node, int port = 8101, string version = StandInEngine.Tag) =>
        await host.Client.StartModelAsync(node.Request(
            await host.Client.NodeAsync("docker"), EngineNode.NewModel(), port, request => request["vllm_version"] = version));

    private static Task<JsonElement> PullingAsync(ControlPlane host, int id) => Deadline.UntilAsync(
        () => host.Client.JsonAsync($"/api/deployments/{id}"), d => Number(d, "pull_percent") is > 0 and < 100, what: "the pull to be under way");

    /// <summary>Waits for the failure; it must name image and registry, and the log its code.</summary>
    private static async Task<string> FailAsync(ControlPlane host, int id, StandInEngine registry, string code, string image = $"team/engine:{StandInEngine.Tag}")
    {
        var failed = await host.Client.StatusAsync(id, "error");
        failed.Text("last_error").ShouldContain($"image {registry.Registry}/{image}");
        failed.Text("last_error").ShouldContain($"egistry {registry.Registry}");
        (await host.Client.LogAsync(id)).ShouldContain(line => line.EndsWith($"failed ({code})", StringComparison.Ordinal), failed.Text("last_error"));
        return failed.Text("last_error");
    }

    private static JsonElement Keep(List<JsonElement> seen, JsonElement deployment)
    {
        seen.Add(deployment);
        return deployment;
    }

    private static double[] Values(IEnumerable<JsonElement> seen, string property) => [.. seen.Select(d => Number(d, property)).OfType<double>()];

    private static double? Number(JsonElement element, string property) =>
        element.GetProperty(property) is { ValueKind: JsonValueKind.Number } number ? number.GetDouble() : null;

    /// <summary>Lets time pass in which something might happen that must not.</summary>
    private static Task PassAsync(TimeSpan time)
    {
        var began = TimeProvider.System.GetTimestamp();
        return Deadline.UntilAsync(() => TimeProvider.System.GetElapsedTime(began) > time);
    }
}
