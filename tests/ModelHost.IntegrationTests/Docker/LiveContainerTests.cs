using System.Net;
using ModelHost.Docker;
using ModelHost.Docker.Http;

namespace ModelHost.IntegrationTests.Docker;

public sealed class LiveContainerTests(RealDockerFixture fixture)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_engine_is_spoken_to_in_a_version_that_both_know()
    {
        using var client = new DockerClient(fixture.Docker.Endpoint);

        var ping = await client.PingAsync(Ct);

        ApiVersion.TryParse(ping.EngineApiVersion, out var theirs).ShouldBeTrue();
        ping.ApiVersion.ShouldBe(ApiVersion.Lower(theirs, ApiVersion.Newest).ToString());
        ping.Server.ShouldNotBeNull();
    }

    [Fact]
    public async Task A_container_is_created_started_stopped_and_removed()
    {
        await using var live = new LiveContainers(fixture);
        var client = live.Client;

        var id = await live.CreateAsync(live.Shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done"), $"mh-{live.Mark}");
        var created = await client.InspectContainerAsync(id, Ct);
        await client.StartContainerAsync(id, Ct);
        await client.StartContainerAsync(id, Ct);
        var running = await client.InspectContainerAsync($"mh-{live.Mark}", Ct);
        await foreach (var _ in client.ReadLogsAsync(id, new() { Follow = true }, Ct))
            break; // it knows what to do with the signal
        await client.StopContainerAsync(id, TimeSpan.FromSeconds(20), Ct);
        await client.StopContainerAsync(id, TimeSpan.FromSeconds(20), Ct);
        var code = await client.WaitContainerAsync(id, Ct);
        var stopped = await client.InspectContainerAsync(id, Ct);
        await client.RemoveContainerAsync(id, force: false, Ct);

        created.Name.ShouldBe($"mh-{live.Mark}");
        created.ImageName.ShouldBe("modelhost-test/busybox:1");
        created.State.ShouldBe(new ContainerState { Status = "created" });
        created.Created.ShouldNotBeNull();
        running.State.Running.ShouldBeTrue();
        running.State.Pid.ShouldBeGreaterThan(0);
        running.State.StartedAt.ShouldNotBeNull();
        running.State.FinishedAt.ShouldBeNull();
        code.ShouldBe(7);
        stopped.State.ExitCode.ShouldBe(7);
        stopped.State.Status.ShouldBe("exited");
        stopped.State.FinishedAt.ShouldNotBeNull().ShouldBeGreaterThan(running.State.StartedAt.Value);
        (await Should.ThrowAsync<DockerException>(client.InspectContainerAsync(id, Ct))).StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    [Fact]
    public async Task What_was_asked_for_is_what_the_engine_has()
    {
        await using var live = new LiveContainers(fixture);
        var folder = Directory.CreateTempSubdirectory("mhd");
        await File.WriteAllTextAsync(Path.Combine(folder.FullName, "f"), "from outside", Ct);

        var spec = live.Shell("cat /in/f; echo; echo $A; cat /proc/1/comm; touch /in/x || echo refused") with
        {
            Env = new Dictionary<string, string> { ["A"] = "b=c ü" },
            Mounts = [new(folder.FullName, "/in", ReadOnly: true)],
            Init = true,
            ShmSizeBytes = 1 << 20,
            RestartPolicy = "on-failure",
        };
        var lines = await live.RunAsync(spec);
        var details = await live.Client.InspectContainerAsync((await Mine(live)).ShouldHaveSingleItem().Id, Ct);
        folder.Delete(recursive: true);

        var stdout = lines.Where(l => l.Stream == LogStream.Stdout).Select(l => l.Text).ToList();
        stdout[..2].ShouldBe(["from outside", "b=c ü"]);
        stdout[2].ShouldContain("init");
        stdout[3].ShouldBe("refused");
        details.Mounts.ShouldBe(spec.Mounts);
        details.Env.ShouldContain("A=b=c ü");
        details.Command.ShouldBe(spec.Command);
        details.RestartPolicy.ShouldBe("on-failure");
        details.GpuDeviceIds.ShouldBeNull();
    }

    [Fact]
    public async Task Containers_are_found_by_label_in_every_state()
    {
        await using var live = new LiveContainers(fixture);
        var one = await live.CreateAsync(live.Shell("true"), $"mh-{live.Mark}");
        var other = await live.StartAsync(live.Shell("sleep 100") with
        {
            Labels = new Dictionary<string, string> { ["modelhost.test"] = live.Mark, ["other"] = "x" },
        });

        var all = await Mine(live);
        var some = await live.Client.ListContainersAsync(
            new Dictionary<string, string?> { ["modelhost.test"] = live.Mark, ["other"] = null }, Ct);

        all.Select(c => c.Id).ShouldBe([one, other], ignoreOrder: true);
        var created = all.Single(c => c.Id == one);
        created.Names.ShouldBe([$"mh-{live.Mark}"]);
        created.State.ShouldBe("created");
        created.Image.ShouldBe("modelhost-test/busybox:1");
        created.ImageId.ShouldStartWith("sha256:");
        created.Labels["modelhost.test"].ShouldBe(live.Mark);
        some.ShouldHaveSingleItem().State.ShouldBe("running");
    }

    [Fact]
    public async Task A_killed_container_ends_with_the_signal()
    {
        await using var live = new LiveContainers(fixture);
        var id = await live.StartAsync(live.Shell("sleep 100"));
        var waiting = live.Client.WaitContainerAsync(id, Ct);

        await live.Client.KillContainerAsync(id, "SIGKILL", Ct);

        (await waiting).ShouldBe(137);
        (await Should.ThrowAsync<DockerException>(live.Client.KillContainerAsync(id, "SIGKILL", Ct))).StatusCode.ShouldBe(HttpStatusCode.Conflict);
    }

    [Fact]
    public async Task A_name_that_is_taken_is_a_conflict()
    {
        await using var live = new LiveContainers(fixture);
        await live.CreateAsync(live.Shell("true"), $"mh-{live.Mark}");

        var failure = await Should.ThrowAsync<DockerException>(live.CreateAsync(live.Shell("true"), $"mh-{live.Mark}"));

        failure.StatusCode.ShouldBe(HttpStatusCode.Conflict);
        failure.EngineMessage.ShouldContain("already in use");
    }

    [Fact]
    public async Task What_is_absent_is_not_found()
    {
        await using var live = new LiveContainers(fixture);
        var client = live.Client;
        Func<Task>[] calls =
        [
            () => client.StartContainerAsync("no-such", Ct),
            () => client.InspectContainerAsync("no-such", Ct),
            () => client.StopContainerAsync("no-such", TimeSpan.Zero, Ct),
            () => client.KillContainerAsync("no-such", "TERM", Ct),
            () => client.WaitContainerAsync("no-such", Ct),
            () => client.RemoveContainerAsync("no-such", true, Ct),
            () => client.ReadLogsAsync("no-such", new(), Ct).ToListAsync(Ct).AsTask(),
            () => client.InspectImageAsync("no/such:image", Ct),
            () => client.CreateContainerAsync(new() { Image = "no/such:image" }, null, Ct),
            () => client.TagImageAsync("no/such:image", "a", "b", Ct),
        ];

        foreach (var call in calls)
        {
            var failure = await Should.ThrowAsync<DockerException>(call);
            failure.StatusCode.ShouldBe(HttpStatusCode.NotFound, failure.Message);
            failure.EngineMessage.ShouldContain("o such");
        }
    }

    [Fact]
    public async Task A_container_that_cannot_start_says_why()
    {
        await using var live = new LiveContainers(fixture);

        var command = await Should.ThrowAsync<DockerException>(live.StartAsync(live.Shell("") with { Command = ["/no/such/program"] }));
        var mount = await Should.ThrowAsync<DockerException>(live.CreateAsync(live.Shell("") with { Mounts = [new("/no/such/folder", "/x")] }));

        command.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        command.EngineMessage.ShouldContain("/no/such/program");
        mount.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        mount.EngineMessage.ShouldContain("/no/such/folder");
    }

    [Theory]
    [InlineData("0,2")]
    [InlineData("all")]
    public async Task Gpus_asked_for_are_visible_inside(string devices)
    {
        await using var live = new LiveContainers(fixture);
        string[] ids = devices == "all" ? [] : devices.Split(',');

        var lines = await live.RunAsync(live.Shell("echo $NVIDIA_VISIBLE_DEVICES") with { Gpus = new() { DeviceIds = ids } });

        lines.ShouldBe([new LogLine(LogStream.Stdout, devices, null)]);
        var details = await live.Client.InspectContainerAsync((await Mine(live)).ShouldHaveSingleItem().Id, Ct);
        details.GpuDeviceIds.ShouldBe(ids);
    }

    [Fact]
    public async Task Network_and_ipc_of_the_machine_are_shared_when_asked_for()
    {
        await using var live = new LiveContainers(fixture);
        var script = live.Shell("readlink /proc/self/ns/net; readlink /proc/self/ns/ipc");

        var shared = await live.RunAsync(script with { NetworkMode = "host", IpcMode = "host" });
        var apart = await live.RunAsync(script with { IpcMode = "private" });

        string[] own = [new FileInfo("/proc/self/ns/net").LinkTarget!, new FileInfo("/proc/self/ns/ipc").LinkTarget!];
        shared.Select(l => l.Text).ShouldBe(own);
        apart.Count(l => own.Contains(l.Text)).ShouldBe(0);
        var details = await live.Client.InspectContainerAsync((await Mine(live))[^1].Id, Ct);
        (details.NetworkMode, details.IpcMode).ShouldBe(("host", "host"));
    }

    private static Task<IReadOnlyList<ContainerSummary>> Mine(LiveContainers live) =>
        live.Client.ListContainersAsync(new Dictionary<string, string?> { ["modelhost.test"] = live.Mark }, Ct);
}
