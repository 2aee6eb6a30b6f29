using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>Containers that outlive the database, on the real Docker engine.</summary>
public sealed class AdoptionTests(RealDockerFixture fixture)
{
    private const string Secret = "hf_a-secret-of-the-tests";

    private readonly int _port = TestPorts.Free();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(false)]
    [InlineData(true)] // all that is left is what the container itself carries
    public async Task Container_comes_back_under_its_own_uid_after_the_database_is_lost(bool recordsToo)
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{_port}") };
        var (nodeId, model) = (await client.NodeAsync("docker"), EngineNode.NewModel());
        await client.StopModelAsync(await client.StartModelAsync(node.Request(nodeId, EngineNode.NewModel(), 8105)));
        var id = await client.RunModelAsync(node.Request(nodeId, model, change: request =>
            (request["owner"], request["pinned"], request["duration_seconds"], request["engine_args"], request["max_failed_restarts"]) =
                ("team-a", true, 3600, new JsonObject { ["max_model_len"] = 2048 }, 9), variables: ("HF_TOKEN", Secret)));
        var before = await client.JsonAsync($"/api/deployments/{id}");
        var container = await node.ContainerAsync();
        await first.DisposeAsync();
        foreach (var file in Directory.GetFiles(node.Surroundings.Data, "modelhost.db*"))
            File.Delete(file);
        if (recordsToo)
            Directory.Delete(Path.Combine(node.Surroundings.Data, "runs"), recursive: true);

        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, _port, "Lifecycle:RelaunchDelay=00:00:00.200");
        await Deadline.UntilAsync(() => client.JsonAsync("/api/deployments"), all => all.GetArrayLength() == 1 && all[0].Status() == "running");
        var after = await client.JsonAsync($"/api/deployments/{id}");
        await client.ChatAsync(model);
        var still = await node.ContainerAsync();
        // a run after it still has the values
        await fixture.Docker.CliAsync(Ct, "rm", "-f", container.Id);
        await Deadline.UntilAsync(() => client.JsonAsync($"/api/deployments/{id}/runs"), runs => runs.GetArrayLength() == 2 && runs[0].GetProperty("ready_at").ValueKind == JsonValueKind.String);
        var next = await node.ContainerAsync();

        (still.Id, still.State.StartedAt).ShouldBe((container.Id, container.State.StartedAt));
        foreach (var field in (string[])["owner", "pinned", "port", "model_name", "duration_seconds", "engine_args", "max_failed_restarts", "env_vars", "gpu_memory_fraction", "container_runtime"])
            after.GetProperty(field).ToString().ShouldBe(before.GetProperty(field).ToString(), field);
        if (!recordsToo)
            after.GetProperty("expires_at").GetDateTimeOffset().ShouldBe(before.GetProperty("expires_at").GetDateTimeOffset(), TimeSpan.FromMilliseconds(2));
        after.GetProperty("expires_at").ValueKind.ShouldBe(JsonValueKind.String);
        next.Labels["modelhost.deployment"].ShouldBe(container.Labels["modelhost.deployment"]);
        next.Labels["modelhost.run"].ShouldNotBe(container.Labels["modelhost.run"]);
        next.Env.ShouldContain($"HF_TOKEN={Secret}");
        next.Labels.Values.ShouldAllBe(label => !label.Contains(Secret, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Container_of_a_deleted_deployment_is_left_alone_and_not_taken_back()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{_port}") };
        var id = await client.RunModelAsync(node.Request(await client.NodeAsync("docker"), EngineNode.NewModel()));
        var container = await node.ContainerAsync();
        (await client.DeleteAsync(new Uri($"/api/deployments/{id}", UriKind.Relative), Ct)).EnsureSuccessStatusCode().Dispose();
        await first.DisposeAsync();

        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        await Deadline.UntilAsync(() => client.JsonAsync("/api/nodes"),
            nodes => nodes[0].GetProperty("rogue_container_count") is { ValueKind: JsonValueKind.Number } count && count.GetInt32() == 1);
        var other = await client.RunModelAsync(node.Request(await client.NodeAsync("docker"), EngineNode.NewModel()));
        var all = await client.JsonAsync("/api/deployments");

        all.EnumerateArray().ShouldHaveSingleItem().GetProperty("id").GetInt32().ShouldBe(other);
        (await node.ContainersAsync()).ShouldContain(container.Id);
        (await node.ContainersAsync()).Count.ShouldBe(2);
    }
}
