using System.Net;
using System.Net.Http.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Agent;
using ModelHost.Agent.Downloads;
using ModelHost.Core.Engines;
using ModelHost.Docker;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>What works with Docker, on a real Podman.</summary>
public sealed class PodmanTests(PodmanFixture fixture, RealDockerFixture docker) : IClassFixture<PodmanFixture>
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Model_is_served_found_again_by_the_next_process_and_gone_after_stop()
    {
        await using var node = await EngineNode.MakeAsync(fixture.Podman);
        var port = TestPorts.Free();
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, port);
        using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{port}") };
        var model = EngineNode.NewModel();
        var id = await client.RunModelAsync(node.Request(await client.NodeAsync("podman"), model));
        await client.ChatAsync(model);
        var container = await node.ContainerAsync();
        var runtime = (await client.JsonAsync($"/api/deployments/{id}")).Text("container_runtime");
        await Deadline.UntilAsync(() => client.LogAsync(id), log => log.Count(IsChat) == 1);
        await first.DisposeAsync();

        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, port);
        await Deadline.UntilAsync(() => client.JsonAsync($"/api/deployments/{id}"), deployment => deployment.Status() == "running");
        await client.ChatAsync(model);
        var still = await node.ContainerAsync();
        var log = await Deadline.UntilAsync(() => client.LogAsync(id), log => log.Count(IsChat) == 2);
        await client.StopModelAsync(id);
        var after = await client.LogAsync(id);

        runtime.ShouldBe("podman");
        (still.Id, still.State.StartedAt).ShouldBe((container.Id, container.State.StartedAt));
        log.Count(line => line.Contains("Application startup complete", StringComparison.Ordinal)).ShouldBe(1);
        after.Count(IsChat).ShouldBe(2);
        (await node.ContainersAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Container_gets_the_gpus_that_were_asked_for_and_no_others()
    {
        await using var node = await EngineNode.MakeAsync(fixture.Podman, gpus: 2);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        await host.Client.RunModelAsync(node.Request(
            await host.Client.NodeAsync("podman"), EngineNode.NewModel(), change: request => request["gpu_ids"] = new JsonArray(1)));
        var container = await node.ContainerAsync();

        var variables = (await fixture.Podman.CliAsync(Ct, "exec", container.Id, "cat", "/proc/1/environ")).Split('\0');
        var files = (await fixture.Podman.CliAsync(Ct, "exec", container.Id, "ls", "/")).Split('\n');

        variables.Where(v => v.StartsWith("GPU_", StringComparison.Ordinal)).ShouldBe(["GPU_1=here"]);
        files.Where(f => f.StartsWith("gpu-", StringComparison.Ordinal)).ShouldBe(["gpu-1"]);
    }

    [Fact]
    public async Task Gpu_without_a_cdi_specification_is_a_failure_that_says_so()
    {
        await using var node = await EngineNode.MakeAsync(fixture.Podman, gpus: 3);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var id = await host.Client.StartModelAsync(node.Request(await host.Client.NodeAsync("podman"), EngineNode.NewModel(), change: request =>
            request["gpu_ids"] = new JsonArray(2)));

        var failed = await host.Client.StatusAsync(id, "error");

        failed.Text("last_error").ShouldContain("nvidia.com/gpu=2");
        await Deadline.UntilAsync(node.ContainersAsync, containers => containers.Count == 0, what: "the container to be removed");
    }

    [Fact]
    public async Task Engine_that_is_killed_is_explained_and_its_last_words_are_kept()
    {
        await using var node = await EngineNode.MakeAsync(fixture.Podman);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var id = await host.Client.StartModelAsync(node.Request(
            await host.Client.NodeAsync("podman"), EngineNode.NewModel(), variables: ("VLLM_SIM_FAIL", "killed")));

        var failed = await host.Client.StatusAsync(id, "error");

        (failed.Text("error_code"), failed.Text("last_error")).ShouldSatisfyAllConditions(
            f => f.Item1.ShouldBe("killed"), f => f.Item2.ShouldContain("exit code 137"), f => f.Item2.ShouldContain("Last log lines:"));
    }

    [Fact]
    public async Task Node_with_both_takes_the_preferred_one()
    {
        await using var node = await EngineNode.MakeAsync(docker.Docker);
        await fixture.Podman.NeedSimulatorAsync();
        await using var other = await EngineNode.MakeAsync(fixture.Podman);
        node.Surroundings.PodmanHost = fixture.Podman.Endpoint.OriginalString;
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var nodeId = await host.Client.NodeAsync("docker", "podman");
        async Task<string> RuntimeAsync(int port)
        {
            var id = await host.Client.RunModelAsync(node.Request(nodeId, EngineNode.NewModel(), port));
            return (await host.Client.JsonAsync($"/api/deployments/{id}")).Text("container_runtime");
        }

        var byDefault = await RuntimeAsync(8101);
        (await host.Client.PostAsJsonAsync($"/api/nodes/{nodeId}/runtime", new { runtime = "podman" }, Ct)).EnsureSuccessStatusCode().Dispose();
        var chosen = await RuntimeAsync(8102);

        (byDefault, chosen).ShouldBe(("docker", "podman"));
        (await node.ContainersAsync()).Count.ShouldBe(1);
        foreach (var deployment in (await host.Client.JsonAsync("/api/deployments")).EnumerateArray())
            await host.Client.StopModelAsync(deployment.GetProperty("id").GetInt32());
    }

    [Fact]
    public async Task Pull_tells_how_far_it_is()
    {
        using var client = new DockerClient(fixture.Podman.Endpoint);
        var layers = new[] { fixture.Registry.AddLayer("one", 3 << 20), fixture.Registry.AddLayer("two", 1 << 20) };
        fixture.Registry.AddImage("team/app", "1", layers);
        fixture.Network.BytesPerSecond = 1_000_000;
        var seen = new List<PullProgress>();

        await client.PullImageAsync($"{fixture.Network.Host}/team/app", "1", seen.Add, Ct);
        var image = await client.InspectImageAsync($"{fixture.Network.Host}/team/app:1", Ct);
        var listed = await client.ListImagesAsync($"{fixture.Network.Host}/team/app", Ct);

        // it neither tells of unpacking nor of its end, and counts the image's configuration as a layer
        (seen[^1].Layers, seen[^1].LayersDownloaded, seen[^1].Percent).ShouldBe((3, 3, 100));
        seen.Select(p => p.DoneBytes).ShouldBe(seen.Select(p => p.DoneBytes).Order());
        seen.Select(p => p.DoneBytes).Distinct().Count().ShouldBeGreaterThan(2);
        seen.Count(p => p.Advanced).ShouldBeGreaterThan(3);
        image.RepoDigests.ShouldContain(digest => digest.StartsWith($"{fixture.Network.Host}/team/app@sha256:", StringComparison.Ordinal));
        listed.ShouldHaveSingleItem().RepoTags.ShouldBe([$"{fixture.Network.Host}/team/app:1"]);
        (await Should.ThrowAsync<DockerException>(client.PullImageAsync($"{fixture.Network.Host}/team/app", "9", _ => { }, Ct)))
            .EngineMessage.ShouldContain("manifest");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Login_of_a_registry_goes_with_the_pull(bool wantsToken)
    {
        var name = $"team/closed-{wantsToken}".ToLowerInvariant();
        fixture.Registry.AddImage(name, "1", fixture.Registry.AddLayer("closed", 1000));
        (fixture.Registry.Login, fixture.Registry.WantsToken) = ("robot:s3cret", wantsToken);
        using var client = new DockerClient(fixture.Podman.Endpoint);
        Task PullAsync(string? password) => client.PullImageAsync(
            $"{fixture.Network.Host}/{name}", "1", password is null ? null : new RegistryCredential("robot", password, fixture.Network.Host), _ => { }, Ct);
        try
        {
            var wrong = await Should.ThrowAsync<DockerException>(PullAsync("another"));
            await PullAsync("s3cret");
            var none = await Should.ThrowAsync<DockerException>(PullAsync(null));

            PullFailures.Classify($"{name}:1", wrong.EngineMessage).Code.ShouldBe(PullFailures.LoginWanted, wrong.EngineMessage);
            PullFailures.Classify($"{name}:1", none.EngineMessage).Code.ShouldBe(PullFailures.LoginWanted, "it keeps no login for later");
            (wrong.Message + none.Message).ShouldNotContain("another");
        }
        finally
        {
            fixture.Registry.Login = null;
        }
    }

    [Fact]
    public async Task Image_that_the_node_pulled_is_deleted_when_no_container_uses_it()
    {
        fixture.Registry.AddImage("team/gone", "1", fixture.Registry.AddLayer("gone", 1000));
        var image = $"{fixture.Network.Host}/team/gone:1";
        using var client = new DockerClient(fixture.Podman.Endpoint);
        using var surroundings = new TestNode(fixture.Podman);
        var options = new NodeOptions { DockerHost = surroundings.DockerHost, PodmanHost = surroundings.PodmanHost, NvidiaSmi = surroundings.NvidiaSmi };
        await using var node = new LocalNode(new NodeIdentity("cluster", "node", surroundings.Data), options, new DownloadOptions(), TimeProvider.System, NullLoggerFactory.Instance);
        await node.OpenAsync(Ct);
        await Deadline.UntilAsync(() => node.ReportAsync(new ReportRequest(), Ct), report => report.Runtimes.Contains("podman"), what: "Podman to answer");
        var (pull, deletion) = (new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = image }, new DeleteArtifactRequest { Kind = ArtifactKind.Image, Name = image });

        await node.PullAsync(pull, Ct);
        var pulled = await Deadline.UntilAsync(() => node.ReportAsync(new ReportRequest(), Ct), report => report.Pulls.Any(one => one.HasEndedAt), what: "the pull to end");
        var container = await client.CreateContainerAsync(new ContainerSpec { Image = image, Command = ["/x"], NetworkMode = "none" }, null, Ct);
        await client.TagImageAsync(image, "modelhost-test/gone", "other", Ct);
        var held = await Should.ThrowAsync<InvalidOperationException>(() => node.DeleteArtifactAsync(deletion, Ct));
        await client.RemoveContainerAsync(container.Id, force: true, Ct);
        await node.DeleteArtifactAsync(deletion, Ct);
        await node.DeleteArtifactAsync(deletion, Ct);
        var left = await client.ListImagesAsync($"{fixture.Network.Host}/team/gone", Ct);
        await client.RemoveImageAsync("modelhost-test/gone:other", force: false, Ct);

        pulled.Pulls.ShouldHaveSingleItem().Phase.ShouldBe(PullPhase.Done);
        held.Message.ShouldContain(" uses it (created)");
        left.ShouldBeEmpty();
    }

    [Fact]
    public async Task Refusals_have_dockers_statuses_and_images_dockers_names()
    {
        await fixture.Podman.NeedSimulatorAsync();
        using var client = new DockerClient(fixture.Podman.Endpoint);
        var spec = new ContainerSpec { Image = "modelhost-test/busybox:1", Command = ["sleep", "1000"], NetworkMode = "none" };
        var created = await client.CreateContainerAsync(spec, "taken", Ct);

        var taken = await Should.ThrowAsync<DockerException>(client.CreateContainerAsync(spec, "taken", Ct));
        var absent = await Should.ThrowAsync<DockerException>(client.CreateContainerAsync(spec with { Image = "modelhost-test/none:1" }, null, Ct));
        var images = await client.ListImagesAsync("modelhost-test/busybox", Ct);
        var details = await client.InspectContainerAsync(created.Id, Ct);
        await client.RemoveContainerAsync(created.Id, force: true, Ct);

        (taken.StatusCode, absent.StatusCode).ShouldBe((HttpStatusCode.Conflict, HttpStatusCode.NotFound));
        images.ShouldHaveSingleItem().RepoTags.ShouldBe(["modelhost-test/busybox:1"]);
        (details.ImageName, details.State.Status).ShouldBe(("modelhost-test/busybox:1", "created"));
    }

    private static bool IsChat(string line) => line.Contains("\"POST /v1/chat/completions HTTP/1.1\" 200", StringComparison.Ordinal);
}
