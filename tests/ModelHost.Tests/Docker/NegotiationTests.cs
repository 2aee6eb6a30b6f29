using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

public sealed class NegotiationTests
{
    private static readonly Dictionary<string, string?> NoLabels = [];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("1.51", "1.47")]
    [InlineData("1.44", "1.44")]
    [InlineData("1.41", "1.41")]
    public async Task The_lower_of_both_versions_is_spoken(string engines, string spoken)
    {
        await using var engine = await HandMadeEngine.StartAsync(newest: engines);
        using var client = new DockerClient(engine.Endpoint);

        var ping = await client.PingAsync(Ct);

        ping.ShouldBe(new DockerPing(spoken, engines, "HandMade/1.0"));
    }

    [Fact]
    public async Task Calls_that_come_together_negotiate_once()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("[]");
        using var client = new DockerClient(engine.Endpoint);

        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => client.ListContainersAsync(NoLabels, Ct)));

        engine.Pings.ShouldBe(1);
        engine.Calls.Select(c => c.Version).Distinct().ShouldHaveSingleItem().ShouldBe("1.47");
    }

    [Theory]
    [InlineData("1.40", "the engine is too old: it speaks API 1.40, and 1.41 is the oldest supported")]
    [InlineData("1.9", "the engine is too old: it speaks API 1.9, and 1.41 is the oldest supported")]
    [InlineData(null, "not a Docker engine: its Api-Version is ''")]
    [InlineData("latest", "not a Docker engine: its Api-Version is 'latest'")]
    public async Task An_engine_that_is_too_old_or_is_none_is_refused(string? version, string message)
    {
        await using var engine = await HandMadeEngine.StartAsync(newest: version);
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.StartContainerAsync("a", Ct));

        failure.EngineMessage.ShouldBe(message);
        failure.Call.ShouldBe("GET /_ping");
        engine.Calls.ShouldBeEmpty();
    }

    [Fact]
    public async Task A_failed_negotiation_is_tried_again_at_the_next_call()
    {
        var folder = Directory.CreateTempSubdirectory("mhd").FullName;
        using var client = new DockerClient(new Uri($"unix://{folder}/d.sock"));

        var failure = await Should.ThrowAsync<DockerException>(client.StartContainerAsync("a", Ct));
        await using var engine = await HandMadeEngine.StartAsync(folder: folder);
        await client.StartContainerAsync("a", Ct);

        failure.StatusCode.ShouldBeNull();
        failure.EngineMessage.ShouldStartWith("the engine was not reached: ");
        engine.Calls.ShouldHaveSingleItem().Version.ShouldBe("1.47");
    }

    [Fact]
    public async Task After_a_lost_connection_the_version_is_negotiated_anew()
    {
        var folder = Directory.CreateTempSubdirectory("mhd").FullName;
        var before = await HandMadeEngine.StartAsync(folder: folder);
        using var client = new DockerClient(before.Endpoint);
        await client.StartContainerAsync("a", Ct);
        await before.DisposeAsync();

        (await Should.ThrowAsync<DockerException>(client.StartContainerAsync("a", Ct))).StatusCode.ShouldBeNull();
        await using var after = await HandMadeEngine.StartAsync(newest: "1.45", folder: folder);
        await client.StartContainerAsync("a", Ct);

        after.Pings.ShouldBe(1);
        after.Calls.ShouldHaveSingleItem().Version.ShouldBe("1.45");
    }

    [Theory]
    [InlineData("1.45", "1.44", "1.51", "1.45")]
    [InlineData("1.51", "1.44", "1.41", "1.47")]
    public async Task An_engine_replaced_between_two_calls_is_understood_at_once(string newest, string oldest, string newestBefore, string spoken)
    {
        var folder = Directory.CreateTempSubdirectory("mhd").FullName;
        var before = await HandMadeEngine.StartAsync(newest: newestBefore, oldest: "1.24", folder: folder);
        using var client = new DockerClient(before.Endpoint);
        await client.StartContainerAsync("a", Ct);
        await before.DisposeAsync();
        await using var after = await HandMadeEngine.StartAsync(newest: newest, oldest: oldest, folder: folder);

        await client.KillContainerAsync("a", "TERM", Ct);

        after.Calls.ShouldHaveSingleItem().Version.ShouldBe(spoken);
    }

    [Theory]
    [InlineData("https://localhost:1234")]
    [InlineData("npipe://./pipe/docker_engine")]
    [InlineData("ssh://host")]
    public void Other_endpoints_are_refused(string endpoint) =>
        Should.Throw<ArgumentException>(() => new DockerClient(new Uri(endpoint)));

    [Fact]
    public async Task Where_nobody_listens_no_engine_is_reached()
    {
        using var client = new DockerClient(new Uri("tcp://127.0.0.1:1"));

        var failure = await Should.ThrowAsync<DockerException>(client.PingAsync(Ct));

        failure.StatusCode.ShouldBeNull();
        failure.EngineMessage.ShouldContain("refused");
    }
}
