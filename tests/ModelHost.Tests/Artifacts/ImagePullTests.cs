using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Agent;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Docker;

namespace ModelHost.Tests.Artifacts;

/// <summary>Images, pulled by the container engine of the node.</summary>
public sealed class ImagePullTests
{
    private const string Digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    private const string Repository = "registry.example:5000/team/engine";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Image_is_pulled_with_figures_and_listed()
    {
        var release = new TaskCompletionSource();
        await using var engine = await EngineAsync(async context =>
        {
            await context.Response.WriteAsync("""{"status":"Pulling fs layer","id":"a"}{"status":"Downloading","id":"a","progressDetail":{"current":40,"total":100}}""");
            await context.Response.Body.FlushAsync();
            await release.Task;
            await context.Response.WriteAsync("""{"status":"Download complete","id":"a"}{"status":"Pull complete","id":"a"}{"status":"Digest: DIGEST"}""");
        });
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);
        var request = new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = $"{Repository}:v1" };

        await node.PullAsync(request, Ct);
        var half = await Pulls.UntilAsync(node, request.PullId, pull => pull.DoneBytes == 40);
        release.SetResult();
        var pull = await Pulls.EndAsync(node, request.PullId);
        var list = await node.ArtifactsAsync(new ArtifactsRequest { ImageRepositories = { Repository } }, Ct);

        (half.Phase, half.TotalBytes).ShouldBe((PullPhase.Downloading, 100));
        (pull.Phase, pull.Error, pull.Digest).ShouldBe((PullPhase.Done, "", Digest));
        var image = list.Artifacts.ShouldHaveSingleItem();
        (image.Kind, image.Name, image.Version, image.Digest, image.SizeBytes, list.ImageError).ShouldBe((ArtifactKind.Image, $"{Repository}:v1", "v1", Digest, 5000, ""));
    }

    [Fact]
    public async Task Pull_that_the_engine_refuses_has_its_cause()
    {
        await using var engine = await EngineAsync(context => context.Response.WriteAsync("""{"errorDetail":{"message":"unauthorized: authentication required"}}"""));
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);

        var pull = await Pulls.DoAsync(node, new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = $"{Repository}:v1" });

        (pull.Phase, pull.ErrorCode).ShouldBe((PullPhase.Failed, "registry_auth"));
    }

    [Theory]
    [InlineData("v1", PullPhase.Done)]
    [InlineData("latest", PullPhase.Failed)] // it may be another one by now
    public async Task Image_that_is_there_will_do_where_its_registry_is_not(string tag, PullPhase phase)
    {
        await using var engine = await EngineAsync(context => context.Response.WriteAsync("""{"errorDetail":{"message":"Get \"https://registry.example.com/v2/\": dial tcp: lookup registry.example.com: no such host"}}"""));
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);

        var pull = await Pulls.DoAsync(node, new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = $"{Repository}:{tag}" });

        (pull.Phase, pull.ErrorCode).ShouldBe((phase, phase == PullPhase.Done ? "" : "registry_unreachable"));
    }

    [Fact]
    public async Task Cancelled_pull_ends_that_of_the_engine()
    {
        var ended = new TaskCompletionSource();
        await using var engine = await EngineAsync(async context =>
        {
            await context.Response.WriteAsync("""{"status":"Downloading","id":"a","progressDetail":{"current":40,"total":100}}""");
            await context.Response.Body.FlushAsync();
            await Task.Delay(Timeout.Infinite, context.RequestAborted).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            ended.SetResult();
        });
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(engine, surroundings);
        var request = new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = $"{Repository}:v1" };

        await node.PullAsync(request, Ct);
        await Pulls.UntilAsync(node, request.PullId, pull => pull.DoneBytes == 40);
        await node.CancelPullAsync(new CancelPullRequest { PullId = request.PullId }, Ct);

        (await Pulls.EndAsync(node, request.PullId)).Phase.ShouldBe(PullPhase.Cancelled);
        await ended.Task.WaitAsync(TimeSpan.FromSeconds(60), Ct);
    }

    [Fact]
    public async Task Engine_that_is_away_is_told_and_hides_nothing_else()
    {
        using var surroundings = new TestNode();
        await using var node = await OpenAsync(null, surroundings);
        Directory.CreateDirectory(Path.Combine(surroundings.Data, "backends", "mine"));

        var list = await node.ArtifactsAsync(new ArtifactsRequest { ImageRepositories = { Repository } }, Ct);

        list.ImageError.ShouldNotBe("");
        list.Artifacts.ShouldHaveSingleItem().Name.ShouldBe("mine");
    }

    [Fact]
    public async Task Podman_has_the_images_of_a_node_whose_docker_does_not_answer()
    {
        using var surroundings = new TestNode();
        await using var podman = await EngineAsync(_ => Task.CompletedTask);
        await using var node = await OpenAsync(null, surroundings, podman);

        // which of them answers may be found out after the node has opened
        var report = await Deadline.UntilAsync(() => node.ReportAsync(new ReportRequest(), Ct), report => report.Runtimes.Count > 0);
        var list = await node.ArtifactsAsync(new ArtifactsRequest { ImageRepositories = { Repository } }, Ct);

        list.ImageError.ShouldBe("");
        list.Artifacts.ShouldHaveSingleItem().Name.ShouldBe($"{Repository}:v1");
        report.Runtimes.ShouldBe(["podman"]);
    }

    private static Task<HandMadeEngine> EngineAsync(RequestDelegate pull) => HandMadeEngine.StartAsync(context =>
    {
        var path = context.Request.Path.Value!;
        if (path.EndsWith("/images/create", StringComparison.Ordinal))
            return pull(context);
        context.Response.ContentType = "application/json";
        var image = $$"""{"Id":"sha256:1","RepoTags":["{{Repository}}:v1"],"RepoDigests":["{{Repository}}@{{Digest}}"],"Created":1,"Size":5000}""";
        return context.Response.WriteAsync(path.EndsWith("/images/json", StringComparison.Ordinal) ? $"[{image}]"
            : path.Contains("/images/", StringComparison.Ordinal) ? image.Replace("\"Created\":1,", "", StringComparison.Ordinal) : "[]");
    });

    private static async Task<LocalNode> OpenAsync(HandMadeEngine? engine, TestNode surroundings, HandMadeEngine? podman = null)
    {
        var options = new NodeOptions
        {
            DockerHost = engine?.Endpoint.OriginalString ?? surroundings.DockerHost,
            PodmanHost = podman?.Endpoint.OriginalString ?? "",
            NvidiaSmi = surroundings.NvidiaSmi,
        };
        var node = new LocalNode(new NodeIdentity("cluster", "node", surroundings.Data), options, Pulls.Options(), TimeProvider.System, NullLoggerFactory.Instance);
        await node.OpenAsync(Ct);
        return node;
    }
}
