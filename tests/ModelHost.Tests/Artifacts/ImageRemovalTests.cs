using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Agent;
using ModelHost.Agent.Artifacts;
using ModelHost.Agent.Backends;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Docker;

namespace ModelHost.Tests.Artifacts;

/// <summary>Images that a node has pulled are deleted when nothing on it uses them, and no others.</summary>
public sealed class ImageRemovalTests
{
    private const string Image = "registry.example:5000/team/engine:v1", Vllm = "vllm/vllm-openai";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Image_that_was_pulled_is_deleted_without_force_after_a_restart_too()
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        await using (var first = await OpenAsync(engine, surroundings))
            (await PullAsync(first, Image)).Phase.ShouldBe(PullPhase.Done);
        await using var node = await OpenAsync(engine, surroundings);

        var listed = (await node.ArtifactsAsync(new ArtifactsRequest { ImageRepositories = { "registry.example:5000/team/engine" } }, Ct)).Artifacts.ShouldHaveSingleItem();
        var reply = await DeleteAsync(node, Image);
        await DeleteAsync(node, Image);

        listed.HasInstalledAt.ShouldBeTrue();
        reply.UnderWay.ShouldBeFalse();
        engine.Images.ShouldBeEmpty();
        engine.Deletions.ShouldBe(["DELETE /images/registry.example%3A5000/team/engine%3Av1?force=0"]);
    }

    [Fact]
    public async Task Image_that_somebody_else_brought_stays_though_it_is_pulled_again()
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);
        engine.Images[Image] = engine.Next;

        (await PullAsync(node, Image)).Phase.ShouldBe(PullPhase.Done);
        var listed = (await node.ArtifactsAsync(new ArtifactsRequest { ImageRepositories = { "registry.example:5000/team/engine" } }, Ct)).Artifacts.ShouldHaveSingleItem();

        listed.HasInstalledAt.ShouldBeFalse();
        (await KeptAsync(node, Image)).ShouldBe("it was not pulled by ModelHost");
        engine.Deletions.ShouldBeEmpty();
    }

    [Fact]
    public async Task Name_that_leads_to_another_image_since_is_somebody_elses_until_it_is_pulled_anew()
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);
        await PullAsync(node, Image);
        engine.Images[Image] = "sha256:2";

        var kept = await KeptAsync(node, Image);
        engine.Next = "sha256:3";
        await PullAsync(node, Image);
        await DeleteAsync(node, Image);

        kept.ShouldBe("it was not pulled by ModelHost");
        engine.Images.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("running", "container web uses it")]
    [InlineData("exited", "container web uses it (exited)")]
    [InlineData("created", "container web uses it (created)")]
    public async Task Image_of_a_container_stays_though_it_has_another_name(string state, string why)
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);
        await PullAsync(node, Image);
        engine.Containers.Enqueue(("other", "running", "sha256:9"));
        engine.Containers.Enqueue(("web", state, engine.Next));

        (await KeptAsync(node, Image)).ShouldBe(why);
        engine.Deletions.ShouldBeEmpty();
    }

    [Fact]
    public async Task Refusal_of_the_engine_is_passed_on()
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);
        await PullAsync(node, Image);
        engine.Conflict = "image has dependent child images";

        (await KeptAsync(node, Image)).ShouldBe("docker keeps it: image has dependent child images");
        engine.Conflict = null;
        await DeleteAsync(node, Image);
        engine.Images.ShouldBeEmpty();
    }

    [Fact]
    public async Task Image_that_is_being_pulled_stays()
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);
        await PullAsync(node, Image);
        var release = new TaskCompletionSource();
        engine.Pulling = release.Task;
        var request = new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = Image };

        await node.PullAsync(request, Ct);
        var kept = await KeptAsync(node, Image);
        release.SetResult();
        await Pulls.EndAsync(node, request.PullId);
        await DeleteAsync(node, Image);

        kept.ShouldBe("a pull is at work on it");
        engine.Images.ShouldBeEmpty();
    }

    [Fact]
    public async Task Image_of_the_nodes_own_configuration_stays()
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings, options => options.Backends["mine"] = new NodeBackend { Image = Image });
        await PullAsync(node, Image);

        (await KeptAsync(node, Image)).ShouldBe("backend mine of the node's configuration is started from it");
    }

    [Theory]
    [InlineData("nightly", "nightly", true)]
    [InlineData(null, "v0.11.0", true)] // where the newest release is not to be had, it takes what there is
    [InlineData("0.12.0", "v0.11.0", false)]
    public async Task Image_that_a_run_may_begin_with_stays(string? version, string tag, bool stays)
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);
        await PullAsync(node, $"{Vllm}:{tag}");
        var release = new TaskCompletionSource();
        engine.Pulling = release.Task;
        var start = new StartRequest
        {
            DeploymentUid = Guid.NewGuid().ToString(),
            RunId = Guid.NewGuid().ToString("N"),
            LaunchSpec = new LaunchSpec { ModelName = "demo/tiny", Owner = "tests", EngineVersion = version, Port = 8100 }.ToJson(),
            LatestVersion = "0.13.0",
            Lease = new Lease(1, null, null).ToJson(),
        };

        await node.StartAsync(start, Ct);
        await Deadline.UntilAsync(() => node.ReportAsync(new ReportRequest(), Ct), report => report.Engines.Any(one => one.Detail == "pulling image"), what: "the run to pull");
        if (stays)
            (await KeptAsync(node, $"{Vllm}:{tag}")).ShouldBe($"run {start.RunId} is being started");
        else
            await DeleteAsync(node, $"{Vllm}:{tag}");
        await node.StopAsync(new StopRequest { RunId = start.RunId }, Ct);
        release.SetResult();

        engine.Deletions.Length.ShouldBe(stays ? 0 : 1);
    }

    [Fact]
    public async Task Deletion_that_takes_long_goes_on_and_is_joined_by_who_asks_again()
    {
        await using var engine = await ImageEngine.StartAsync();
        using var surroundings = new TestNode();
        var time = new ManualTimeProvider();
        using var containers = new ContainerEngine(ModelHost.Core.Backends.ContainerRuntimes.Docker, engine.Endpoint, new NodeOptions(), new NodeIdentity("c", "n", surroundings.Data), TimeProvider.System);
        await using var removal = new ImageRemoval([containers], _ => true, _ => null, time, NullLogger.Instance, Ct);
        var release = new TaskCompletionSource();
        (engine.Images[Image], engine.Deleting) = (engine.Next, release.Task);
        containers.Pulled.Note(Image, engine.Next);

        var (first, second) = (removal.RemoveAsync(Image, Ct), removal.RemoveAsync(Image, Ct));
        await Deadline.UntilAsync(() => Task.FromResult(engine.Deletions.Length), count => count > 0, what: "the engine to be asked");
        time.Advance(TimeSpan.FromSeconds(5));
        var waited = await Task.WhenAll(first, second);
        var third = removal.RemoveAsync(Image, Ct);
        release.SetResult();
        var done = await third;

        waited.ShouldAllBe(reply => reply.UnderWay);
        done.UnderWay.ShouldBeFalse();
        engine.Deletions.Length.ShouldBe(1);
        engine.Images.ShouldBeEmpty();
    }

    [Fact]
    public async Task Engine_that_is_silent_is_no_reason_to_take_an_image_for_gone()
    {
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(null, surroundings);

        var failure = await Should.ThrowAsync<RuntimeException>(() => DeleteAsync(node, Image));

        failure.IsSilence.ShouldBeTrue();
    }

    private static Task<Pull> PullAsync(LocalNode node, string image) =>
        Pulls.DoAsync(node, new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = image });

    private static Task<DeleteArtifactReply> DeleteAsync(LocalNode node, string image) => node.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Image, Name = image }, Ct);

    private static async Task<string> KeptAsync(LocalNode node, string image) => (await Should.ThrowAsync<InvalidOperationException>(() => DeleteAsync(node, image))).Message;

    private static async Task<LocalNode> OpenAsync(ImageEngine? engine, TestNode surroundings, Action<NodeOptions>? change = null)
    {
        var options = new NodeOptions { DockerHost = engine?.Endpoint ?? surroundings.DockerHost, PodmanHost = "", NvidiaSmi = surroundings.NvidiaSmi };
        change?.Invoke(options);
        var node = new LocalNode(new NodeIdentity("cluster", "node", surroundings.Data), options, Pulls.Options(), TimeProvider.System, NullLoggerFactory.Instance);
        await node.OpenAsync(Ct);
        return node;
    }
}
