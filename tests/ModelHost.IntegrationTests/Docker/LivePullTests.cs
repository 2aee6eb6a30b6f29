using ModelHost.Docker;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Docker;

public sealed class LivePullTests(RealDockerFixture fixture)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_pull_tells_how_far_it_is_and_counts_only_new_layers()
    {
        await using var registry = await HandMadeRegistry.StartAsync();
        var (old, one, two) = (registry.AddLayer("old", 1000), registry.AddLayer("one", 3 << 20), registry.AddLayer("two", 1 << 20));
        registry.AddImage("team/app", "1", old);
        registry.AddImage("team/app", "2", old, one, two);
        using var client = new DockerClient(fixture.Docker.Endpoint);
        var (first, second, again) = (new List<PullProgress>(), new List<PullProgress>(), new List<PullProgress>());

        await client.PullImageAsync($"{registry.Host}/team/app", "1", first.Add, Ct);
        await client.PullImageAsync($"{registry.Host}/team/app", "2", second.Add, Ct);
        await client.PullImageAsync($"{registry.Host}/team/app", "2", again.Add, Ct);
        var image = await client.InspectImageAsync($"{registry.Host}/team/app:2", Ct);
        await fixture.Docker.CliAsync(Ct, "rmi", $"{registry.Host}/team/app:1", $"{registry.Host}/team/app:2");

        first[^1].Layers.ShouldBe(1);
        (second[^1].Layers, second[^1].LayersDone).ShouldBe((2, 2));
        second[^1].Percent.ShouldBe(100);
        second[^1].DoneBytes.ShouldBe(registry.Bytes(one.Digest) + registry.Bytes(two.Digest));
        second.ShouldContain(p => p.Status == "Already exists");
        second.ShouldContain(p => p.LayersExtracting > 0);
        second.ShouldAllBe(p => p.DoneBytes <= p.TotalBytes);
        again[^1].Layers.ShouldBe(0);
        again[^1].Status.ShouldContain("up to date");
        image.Labels["made"].ShouldBe("by hand");
        image.RepoDigests.ShouldHaveSingleItem().ShouldStartWith($"{registry.Host}/team/app@sha256:");
    }

    [Fact]
    public async Task An_image_that_a_registry_does_not_have_fails_with_its_words()
    {
        await using var registry = await HandMadeRegistry.StartAsync();
        registry.AddImage("team/app", "1", registry.AddLayer("small", 1000));
        using var client = new DockerClient(fixture.Docker.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.PullImageAsync($"{registry.Host}/team/app", "9", _ => { }, Ct));

        failure.StatusCode.ShouldNotBeNull();
        failure.EngineMessage.ShouldContain("manifest");
    }

    [Fact]
    public async Task A_pull_that_is_given_up_stops_the_engines_download()
    {
        await using var registry = await HandMadeRegistry.StartAsync();
        var layer = registry.AddLayer("big", 4 << 20);
        registry.AddImage("team/slow", "1", layer);
        await using var network = new NetworkRelay(registry.Host);
        // bytes go on coming: Docker 20.10 looks whether anybody still wants a layer only when some of it arrives
        network.BytesPerSecond = 200_000;
        using var client = new DockerClient(fixture.Docker.Endpoint);
        using var cancelling = CancellationTokenSource.CreateLinkedTokenSource(Ct);

        await Should.ThrowAsync<OperationCanceledException>(client.PullImageAsync($"{network.Host}/team/slow", "1", progress =>
        {
            if (progress.DoneBytes > 0)
                cancelling.Cancel();
        }, cancelling.Token));

        await Deadline.UntilAsync(() => network.Open == 0, what: "the engine to hang up");
        network.Bytes.ShouldBeLessThan(registry.Bytes(layer.Digest));
    }
}
