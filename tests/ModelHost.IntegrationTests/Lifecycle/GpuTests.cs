using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Simulator.Gpu;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

public sealed class GpuTests(RealDockerFixture fixture)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Engine_gets_the_gpus_that_were_asked_for_and_no_others()
    {
        await using var node = await EngineNode.MakeAsync(fixture, gpus: 2);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var id = await host.Client.RunModelAsync(node.Request(
            await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["gpu_ids"] = new JsonArray(1)));

        var container = await node.ContainerAsync();
        var deployment = await host.Client.JsonAsync($"/api/deployments/{id}");

        (await VisibleAsync(container.Id)).ShouldBe("1");
        container.GpuDeviceIds.ShouldBe(["1"]);
        Gpus(deployment).ShouldBe([1]);
    }

    [Fact]
    public async Task Without_gpu_ids_a_model_is_split_over_as_many_gpus_as_its_parallel_size()
    {
        await using var node = await EngineNode.MakeAsync(fixture, gpus: 2);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        await host.Client.RunModelAsync(node.Request(
            await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["tensor_parallel_size"] = 2));

        var container = await node.ContainerAsync();

        (await VisibleAsync(container.Id)).ShouldBe("0,1");
        container.GpuDeviceIds.ShouldBe(["0", "1"]);
    }

    [Fact]
    public async Task Placement_follows_the_memory_that_engines_hold()
    {
        await using var node = await EngineNode.MakeAsync(fixture, gpus: 2);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var nodeId = await host.Client.NodeAsync("docker");
        var (empty, _) = await UsedAsync(host.Client);
        await host.Client.RunModelAsync(node.Request(nodeId, EngineNode.NewModel(), 8101));

        var used = await Deadline.UntilAsync(() => UsedAsync(host.Client), used => used.First > 30_000, what: "the engine's memory to show");
        var second = await host.Client.RunModelAsync(node.Request(nodeId, EngineNode.NewModel(), 8102));
        var tooMuch = await host.Client.RefusedStartAsync(
            node.Request(nodeId, EngineNode.NewModel(), 8103, request => request["gpu_memory_fraction"] = 0.7));
        var unchecked_ = await host.Client.StartModelAsync(node.Request(nodeId, EngineNode.NewModel(), 8103, request =>
        {
            request["gpu_memory_fraction"] = 0.7;
            request["skip_resource_check"] = true;
        }));

        empty.ShouldBeLessThan(10);
        used.Second.ShouldBeLessThan(10);
        Gpus(await host.Client.JsonAsync($"/api/deployments/{second}")).ShouldBe([1]);
        (tooMuch.Status, tooMuch.Code).ShouldBe((409, "deployment.no_capacity"));
        tooMuch.Detail.ShouldContain("GPU 0: ");
        tooMuch.Detail.ShouldContain("GPU 1: ");
        (await host.Client.StatusAsync(unchecked_, "error")).Text("last_error").ShouldContain("Lower gpu_memory_fraction");
    }

    [Fact]
    public async Task Process_of_a_container_belongs_to_its_deployment()
    {
        await using var node = await EngineNode.MakeAsync(fixture, gpus: 2);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var id = await host.Client.RunModelAsync(node.Request(
            await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["gpu_ids"] = new JsonArray(0)));
        var container = await node.ContainerAsync();
        // a real driver names processes as the host numbers them; the simulator knows only its number in the container
        var pid = int.Parse(await fixture.Docker.CliAsync(Ct, "inspect", "--format", "{{.State.Pid}}", container.Id), CultureInfo.InvariantCulture);
        using var hold = GpuHold.Open(node.Surroundings.GpuFolder, [GpuDevice.ReadAll(node.Surroundings.GpuFolder)[1]], ["VLLM::EngineCore"], pid);
        hold.Set(1000);

        var processes = await Deadline.UntilAsync(
            async () => (await host.Client.JsonAsync("/api/nodes"))[0].GetProperty("gpu_usage")[1].GetProperty("processes"), found => found.GetArrayLength() == 1);

        processes[0].GetProperty("pid").GetInt32().ShouldBe(pid);
        processes[0].GetProperty("deployment_id").GetInt32().ShouldBe(id);
    }

    [Fact]
    public async Task Node_without_gpus_starts_containers_without_asking_for_any()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        await host.Client.RunModelAsync(node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel()));

        var container = await node.ContainerAsync();

        container.GpuDeviceIds.ShouldBeNull();
        (await VisibleAsync(container.Id)).ShouldBeNull();
    }

    private async Task<string?> VisibleAsync(string container)
    {
        // the variable is set by the engine at the start: the container's description does not have it
        var variables = await fixture.Docker.CliAsync(Ct, "exec", container, "cat", "/proc/1/environ");
        return variables.Split('\0').FirstOrDefault(v => v.StartsWith("NVIDIA_VISIBLE_DEVICES=", StringComparison.Ordinal))?.Split('=')[1];
    }

    private static async Task<(double First, double Second)> UsedAsync(HttpClient client)
    {
        var gpus = (await client.JsonAsync("/api/nodes"))[0].GetProperty("gpu_usage");
        return (gpus[0].GetProperty("memory_used_mb").GetDouble(), gpus[1].GetProperty("memory_used_mb").GetDouble());
    }

    private static int[] Gpus(JsonElement deployment) => [.. deployment.GetProperty("gpu_ids").EnumerateArray().Select(id => id.GetInt32())];
}
