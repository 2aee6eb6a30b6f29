using System.Text.Json;
using ModelHost.IntegrationTests.Lifecycle;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>vLLM as a backend: releases are images, prepared on the nodes that are named while everything runs on.</summary>
public sealed class ImageUpgradeTests(RealDockerFixture fixture)
{
    private const string Old = UpgradeLab.Old, New = UpgradeLab.New;

    // so slow that nothing ends by itself while a test kills and restarts
    private const long Held = StandInEngine.Slow / 10;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Release_is_prepared_node_by_node_and_what_runs_goes_on()
    {
        await using var lab = await UpgradeLab.StartAsync(fixture);
        var (client, model) = (lab.Client, EngineNode.NewModel());
        var first = await client.NodeAsync("docker");
        var second = await lab.AddNodeAsync("gpu-2");
        await client.RunModelAsync(Request(lab, first, model, 8101, Old));
        await client.ChatAsync(model);
        var before = await lab.Node.ContainerAsync();
        var even = await lab.UpgradesAsync();

        lab.Registry.Network.BytesPerSecond = StandInEngine.Slow;
        var job = await lab.UpgradeAsync(New, first);
        var seen = new List<JsonElement>();
        var done = await Deadline.UntilAsync(async () =>
        {
            seen.Add(await lab.JobAsync(job));
            return seen[^1];
        }, one => one.GetProperty("processed").GetBoolean(), 180, "the upgrade");
        await client.ChatAsync(model);
        var after = await lab.Node.ContainerAsync();
        var has = await lab.BackendAsync(first);
        var all = (await client.JsonAsync("/backends")).EnumerateArray().Single(one => one.Text("Name") == "vllm");
        var drifted = await lab.UpgradesAsync();
        lab.Registry.Network.BytesPerSecond = long.MaxValue;
        var other = await lab.EndAsync(await lab.UpgradeAsync(New, second));
        var evenAgain = await lab.UpgradesAsync();
        var pulled = (lab.Registry.Network.Accepted, lab.Registry.Network.Bytes);
        var next = await client.RunModelAsync(Request(lab, first, EngineNode.NewModel(), 8102, New));
        var log = await client.LogAsync(next);

        done.Text("message").ShouldBe("completed", string.Join('\n', seen.Select(one => one.ToString()).Distinct()));
        var bytes = seen.Select(one => UpgradeLab.Number(one, "current_bytes")).Where(bytes => bytes > 0).ToArray();
        bytes.Distinct().Count().ShouldBeGreaterThan(3);
        bytes.ShouldBe(bytes.Order());
        seen.Max(one => UpgradeLab.Number(one, "total_bytes")).ShouldBe(lab.NewBytes);
        var progress = seen.Where(one => one.GetProperty("processed").GetBoolean() is false).Select(one => one.GetProperty("progress").GetDouble()).ToArray();
        progress.Distinct().Count().ShouldBeGreaterThan(3);
        seen.Any(one => one.TryGetProperty("nodes", out var nodes) && nodes[0].Text("status") == "downloading" && nodes[0].GetProperty("percentage").GetDouble() > 0).ShouldBeTrue();
        done.GetProperty("nodes").EnumerateArray().ShouldHaveSingleItem().Text("node_id").ShouldBe($"{first}");
        (after.Id, after.State.StartedAt, after.ImageName).ShouldBe((before.Id, before.State.StartedAt, $"{lab.Registry.Repository}:v{Old}"), "an upgrade touches nothing that runs");
        (has.Text("version"), has.Text("uri")).ShouldBe((New, $"{lab.Registry.Repository}:v{New}"));
        Versions(has).ShouldBe([Old, New]);
        all.GetProperty("nodes").EnumerateArray().Select(one => $"{one.Text("node_id")}: {string.Join(", ", Versions(one))}").ShouldBe([$"{first}: {Old}, {New}", $"{second}: {Old}"]);
        even.ValueKind.ShouldBe(JsonValueKind.Undefined);
        var drift = drifted.GetProperty("node_drift").EnumerateArray().ShouldHaveSingleItem();
        (drift.Text("node_name"), drift.Text("version"), drifted.Text("installed_version")).ShouldBe(("gpu-2", Old, New));
        other.Text("message").ShouldBe("completed", other.ToString());
        evenAgain.ValueKind.ShouldBe(JsonValueKind.Undefined);
        (lab.Registry.Network.Accepted, lab.Registry.Network.Bytes).ShouldBe(pulled, "the image is there already");
        log.ShouldNotContain(line => line.Contains("pulling", StringComparison.Ordinal));
        (await lab.Node.ContainersAsync()).Count.ShouldBe(2);
    }

    [Fact]
    public async Task Tag_that_the_registry_does_not_have_fails_the_job_and_changes_nothing()
    {
        await using var lab = await UpgradeLab.StartAsync(fixture);
        var (client, model) = (lab.Client, EngineNode.NewModel());
        var node = await client.NodeAsync("docker");
        await client.RunModelAsync(Request(lab, node, model, 8101, Old));
        var before = await lab.Node.ContainerAsync();

        var failed = await lab.EndAsync(await lab.UpgradeAsync("9.9.9", node));

        failed.Text("error").ShouldStartWith($"Registry {lab.Registry.Registry} has no image {lab.Registry.Repository}:v9.9.9.");
        failed.Text("message").ShouldBe($"error: {failed.Text("error")}");
        failed.GetProperty("nodes").EnumerateArray().ShouldHaveSingleItem().Text("status").ShouldBe("error");
        (await lab.TagsAsync()).ShouldBe([$"v{Old}"]);
        Versions(await lab.BackendAsync(node)).ShouldBe([Old]);
        (await lab.Node.ContainerAsync()).Id.ShouldBe(before.Id);
        await client.ChatAsync(model);
    }

    [Fact]
    public async Task Cancelled_upgrade_stays_cancelled_leaves_no_image_and_can_be_asked_for_again()
    {
        await using var lab = await UpgradeLab.StartAsync(fixture);
        var (node, job) = await BeginAsync(lab);

        using (var cancel = await lab.Client.PostAsync(new Uri($"/backends/jobs/{job}/cancel", UriKind.Relative), null, Ct))
            cancel.EnsureSuccessStatusCode();
        await Deadline.UntilAsync(() => lab.Registry.Network.Open == 0, what: "the engine to hang up");
        var came = lab.Registry.Network.Bytes;
        lab.Registry.Network.BytesPerSecond = long.MaxValue;
        var (cancelled, tags) = (await lab.JobAsync(job), await lab.TagsAsync());
        var again = await lab.EndAsync(await lab.UpgradeAsync(New, node));
        var later = await lab.JobAsync(job);

        came.ShouldBeLessThan(lab.NewBytes);
        (cancelled.Text("message"), cancelled.GetProperty("cancelled").GetBoolean(), cancelled.GetProperty("processed").GetBoolean()).ShouldBe(("cancelled", true, true));
        tags.ShouldBe([$"v{Old}"]);
        again.Text("message").ShouldBe("completed", again.ToString());
        (await lab.TagsAsync()).ShouldBe([$"v{Old}", $"v{New}"]);
        (later.Text("message"), later.GetProperty("cancelled").GetBoolean()).ShouldBe(("cancelled", true));
    }

    [Fact]
    public async Task Upgrade_goes_on_when_the_control_plane_was_killed_with_its_own_node()
    {
        await using var lab = await UpgradeLab.StartAsync(fixture);
        var (node, job) = await BeginAsync(lab);

        await lab.Host.KillAsync();
        // the engine gives up what nobody waits for any more
        await Deadline.UntilAsync(() => lab.Registry.Network.Open == 0, what: "the engine to hang up");
        var tags = await lab.TagsAsync();
        await lab.ServeAsync();
        await lab.PullingAsync(job);
        lab.Registry.Network.BytesPerSecond = long.MaxValue;
        var done = await lab.EndAsync(job);

        tags.ShouldBe([$"v{Old}"]);
        done.Text("message").ShouldBe("completed", string.Join('\n', lab.Host.Output));
        (await lab.TagsAsync()).ShouldBe([$"v{Old}", $"v{New}"]);
        Versions(await lab.BackendAsync(node)).ShouldBe([Old, New]);
    }

    [Fact]
    public async Task Upgrade_goes_on_when_the_agent_and_then_the_control_plane_were_killed()
    {
        await using var lab = await UpgradeLab.StartApartAsync(fixture);
        var (node, job) = await BeginAsync(lab);

        await lab.Agents[^1].KillAsync();
        await Deadline.UntilAsync(() => lab.Registry.Network.Open == 0, what: "the engine to hang up");
        var (orphaned, tags, came) = (await lab.JobAsync(job), await lab.TagsAsync(), lab.Registry.Network.Bytes);
        await lab.AgainAsync();
        await Deadline.UntilAsync(() => lab.Registry.Network.Bytes > came, 60, "the agent to go on by itself");
        await lab.Host.KillAsync();
        var open = lab.Registry.Network.Open;
        await lab.ServeAsync();
        await lab.PullingAsync(job);
        lab.Registry.Network.BytesPerSecond = long.MaxValue;
        var done = await lab.EndAsync(job);

        orphaned.GetProperty("processed").GetBoolean().ShouldBeFalse("a node that is silent has not failed");
        tags.ShouldBe([$"v{Old}"]);
        open.ShouldBeGreaterThan(0, "the end of the control plane does not end a pull of a node");
        done.Text("message").ShouldBe("completed", string.Join('\n', lab.Host.Output));
        (await lab.TagsAsync()).ShouldBe([$"v{Old}", $"v{New}"]);
        Versions(await lab.BackendAsync(node)).ShouldBe([Old, New]);
    }

    /// <summary>Asks for an upgrade, and waits until some of the image has come.</summary>
    private static async Task<(int Node, string Job)> BeginAsync(UpgradeLab lab)
    {
        var node = await lab.Client.NodeAsync("docker");
        lab.Registry.Network.BytesPerSecond = Held;
        var job = await lab.UpgradeAsync(New, node);
        await lab.PullingAsync(job);
        return (node, job);
    }

    private static string[] Versions(JsonElement backend) => [.. backend.GetProperty("versions").EnumerateArray().Select(version => version.GetString()!)];

    private static System.Text.Json.Nodes.JsonObject Request(UpgradeLab lab, int node, string model, int port, string version) =>
        lab.Node.Request(node, model, port, request => request["vllm_version"] = version);
}
