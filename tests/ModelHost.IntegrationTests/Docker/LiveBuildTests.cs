using System.Formats.Tar;
using System.Net;
using ModelHost.Docker;

namespace ModelHost.IntegrationTests.Docker;

public sealed class LiveBuildTests(RealDockerFixture fixture)
{
    private const string Label = "modelhost.test.build";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task An_image_is_built_run_and_removed()
    {
        await using var live = new LiveContainers(fixture);
        var client = live.Client;
        var (name, lines) = ($"modelhost-test/built-{live.Mark}:1", new List<string>());

        var id = await client.BuildImageAsync(
            Context("FROM modelhost-test/busybox:1\nARG WORD\nRUN echo \"said $WORD\"\nCOPY hello /hello\nCMD [\"cat\", \"/hello\"]\n"),
            Spec(live, name) with { BuildArgs = new Dictionary<string, string> { ["WORD"] = "ü>" } }, lines.Add, Ct);
        var image = await client.InspectImageAsync(name, Ct);
        var said = await live.RunAsync(new() { Image = name });
        var container = (await client.ListContainersAsync(new Dictionary<string, string?> { [Label] = live.Mark }, Ct)).ShouldHaveSingleItem();
        await client.WaitContainerAsync(container.Id, Ct);
        var inUse = await Should.ThrowAsync<DockerException>(client.RemoveImageAsync(name, force: false, Ct));
        await client.RemoveContainerAsync(container.Id, force: true, Ct);
        var removal = await client.RemoveImageAsync(name, force: false, Ct);
        var absent = await Should.ThrowAsync<DockerException>(client.RemoveImageAsync(name, force: false, Ct));

        image.Id.ShouldBe(id);
        image.Labels[Label].ShouldBe(live.Mark);
        lines.ShouldContain("said ü>");
        lines.ShouldContain(l => l.StartsWith("Step 1/", StringComparison.Ordinal));
        said.ShouldHaveSingleItem().Text.ShouldBe("hello from the context");
        inUse.StatusCode.ShouldBe(HttpStatusCode.Conflict);
        removal.Untagged.ShouldBe([name]);
        removal.Deleted.ShouldContain(id);
        absent.StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    [Fact]
    public async Task By_force_an_image_of_a_running_container_loses_its_name_only()
    {
        await using var live = new LiveContainers(fixture);
        var name = $"modelhost-test/built-{live.Mark}:1";
        var id = await live.Client.BuildImageAsync(Context("FROM modelhost-test/busybox:1\n"), Spec(live, name), _ => { }, Ct);
        var container = await live.StartAsync(live.Shell("sleep 100") with { Image = name });

        var removal = await live.Client.RemoveImageAsync(name, force: true, Ct);
        var image = await live.Client.InspectImageAsync(id, Ct);
        await live.Client.RemoveContainerAsync(container, force: true, Ct);
        var rest = await live.Client.RemoveImageAsync(id, force: false, Ct);

        removal.Untagged.ShouldBe([name]);
        removal.Deleted.ShouldBeEmpty();
        image.RepoTags.ShouldBeEmpty();
        rest.Deleted.ShouldContain(id);
    }

    [Fact]
    public async Task A_failing_step_is_a_failure_and_leaves_no_container()
    {
        await using var live = new LiveContainers(fixture);
        var lines = new List<string>();

        var failure = await Should.ThrowAsync<DockerException>(live.Client.BuildImageAsync(
            Context($"FROM modelhost-test/busybox:1\nLABEL {Label}.step={live.Mark}\nRUN echo before; exit 3\n"), Spec(live, null), lines.Add, Ct));

        failure.EngineMessage.ShouldContain("returned a non-zero code: 3");
        lines.ShouldContain("before");
        (await live.Client.ListContainersAsync(new Dictionary<string, string?> { [$"{Label}.step"] = live.Mark }, Ct)).ShouldBeEmpty();
        await fixture.PruneAsync(live.Client, new Dictionary<string, string?> { [$"{Label}.step"] = live.Mark }, danglingOnly: true);
    }

    [Theory]
    [InlineData("FRM x\n", "unknown instruction")]
    [InlineData("FROM 127.0.0.1:1/no/such:1\n", "127.0.0.1:1")]
    [InlineData("FROM modelhost-test/busybox:1\nCOPY absent /\n", "absent")]
    public async Task A_dockerfile_that_cannot_be_built_is_a_failure(string dockerfile, string message)
    {
        using var client = new DockerClient(fixture.Docker.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.BuildImageAsync(Context(dockerfile), new(), _ => { }, Ct));

        failure.EngineMessage.ShouldContain(message);
    }

    [Fact]
    public async Task Images_are_cleaned_up_by_label()
    {
        await using var live = new LiveContainers(fixture);
        var client = live.Client;
        var (name, mine) = ($"modelhost-test/built-{live.Mark}:1", new Dictionary<string, string?> { [Label] = live.Mark });
        var dangling = await client.BuildImageAsync(Context("FROM modelhost-test/busybox:1\nENV A=1\n"), Spec(live, null), _ => { }, Ct);
        var named = await client.BuildImageAsync(Context("FROM modelhost-test/busybox:1\nENV A=2\n"), Spec(live, name), _ => { }, Ct);

        var nothing = await fixture.PruneAsync(client, new Dictionary<string, string?> { [Label] = "other" }, danglingOnly: true);
        var first = await fixture.PruneAsync(client, mine, danglingOnly: true);
        var second = await fixture.PruneAsync(client, mine, danglingOnly: false);

        nothing.Deleted.ShouldBeEmpty();
        first.Deleted.ShouldContain(dangling);
        first.Deleted.ShouldNotContain(named);
        first.Untagged.ShouldBeEmpty();
        second.Untagged.ShouldBe([name]);
        second.Deleted.ShouldContain(named);
        (await client.ListImagesAsync(name, Ct)).ShouldBeEmpty();
    }

    private static BuildSpec Spec(LiveContainers live, string? tag) =>
        new() { Tag = tag, Labels = new Dictionary<string, string> { [Label] = live.Mark } };

    private static MemoryStream Context(string dockerfile)
    {
        var tar = new MemoryStream();
        using (var writer = new TarWriter(tar, leaveOpen: true))
        {
            Add(writer, "Dockerfile", dockerfile);
            Add(writer, "hello", "hello from the context\n");
        }
        tar.Position = 0;
        return tar;
    }

    private static void Add(TarWriter writer, string name, string text)
    {
        using var data = new MemoryStream(System.Text.Encoding.UTF8.GetBytes(text));
        writer.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = data });
    }
}
