using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

public sealed class FailureTests(RealDockerFixture fixture)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Load_that_fails_is_explained_and_its_container_removed()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);

        var id = await host.Client.StartModelAsync(
            node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel(), variables: ("VLLM_SIM_FAIL", "oom")));
        var failed = await host.Client.StatusAsync(id, "error");
        await Deadline.UntilAsync(node.ContainersAsync, containers => containers.Count == 0, what: "the container to be removed");
        var after = await host.Client.JsonAsync($"/api/deployments/{id}");
        var log = await host.Client.LogAsync(id);

        failed.Text("last_error").ShouldContain("gpu_memory_fraction");
        failed.Text("last_error").ShouldContain("Last log lines:");
        failed.Text("last_error").ShouldContain("CUDA out of memory");
        (after.Status(), after.Text("last_error")).ShouldBe(("error", failed.Text("last_error")));
        failed.Text("error_code").ShouldBe("gpu_oom");
        log.ShouldContain(line => line.Contains("CUDA out of memory", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Blank_version_is_the_newest_image_on_the_node_when_no_release_is_known()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var repository = $"modelhost-test/engine-{Guid.NewGuid():N}";
        string[] tags = ["v0.28.0", "v0.27.0", "v0.9.1"];
        foreach (var tag in tags)
            await node.Client.TagImageAsync($"{RealDocker.SimulatorRepository}:{RealDocker.SimulatorTag}", repository, tag, Ct);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: $"Node:ImageRepository={repository}");

        var id = await host.Client.RunModelAsync(
            node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request.Remove("vllm_version")));
        var container = await node.ContainerAsync();
        var deployment = await host.Client.JsonAsync($"/api/deployments/{id}");
        await fixture.Docker.CliAsync(Ct, ["rmi", .. tags.Select(tag => $"{repository}:{tag}")]);

        container.ImageName.ShouldBe($"{repository}:v0.28.0");
        deployment.Text("vllm_version").ShouldBe("0.28.0");
    }
}
