using System.Net;
using System.Text;
using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

public sealed class ImageCareTests
{
    /// <summary>As Docker 20.10 builds: two steps, and two stages of which the second is the image.</summary>
    private static readonly string[] Build =
    [
        """{"stream":"Step 1/2 : FROM busybox:1"}""",
        """{"stream":"\n"}""",
        """{"status":"Pulling from library/busybox","id":"1"}""",
        """{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}""",
        """{"status":"Downloading","progressDetail":{"current":100,"total":1000},"progress":"[=>    ]","id":"aaa"}""",
        """{"status":"Digest: sha256:0123"}""",
        """{"aux":{"ID":"sha256:111"}}""",
        """{"stream":"Step 2/2 : RUN x"}""",
        """{"stream":"\n \u001b[91mwarned\n\u001b[0m --"}""",
        """{"stream":"-\u003e 222\r\n"}""",
        """{"aux":{"ID":"sha256:222"}}""",
        """{"stream":"Successfully built 222\n"}""",
        """{"stream":"Successfully tagged a:1"}""",
    ];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_removal_tells_what_is_gone()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""
            [{"Untagged":"a:1"},{"Untagged":"a@sha256:9"},{"Deleted":"sha256:1"},{"Deleted":"sha256:2"}]
            """);
        using var client = new DockerClient(engine.Endpoint);

        var removal = await client.RemoveImageAsync("registry:5000/team/a:1", force: false, Ct);
        await client.RemoveImageAsync("sha256:1", force: true, Ct);

        removal.Untagged.ShouldBe(["a:1", "a@sha256:9"]);
        removal.Deleted.ShouldBe(["sha256:1", "sha256:2"]);
        engine.Calls.Select(c => c.ToString()).ShouldBe([
            "DELETE /images/registry%3A5000/team/a%3A1?force=0",
            "DELETE /images/sha256%3A1?force=1",
        ]);
    }

    [Theory]
    [InlineData(404, "No such image: a:1")]
    [InlineData(409, "conflict: unable to remove repository reference")]
    public async Task A_removal_may_be_refused(int status, string message)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync($$"""{"message":"{{message}}"}""", status);
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.RemoveImageAsync("a:1", force: false, Ct));

        failure.StatusCode.ShouldBe((HttpStatusCode)status);
        failure.EngineMessage.ShouldBe(message);
    }

    [Fact]
    public async Task A_reference_that_would_lead_elsewhere_is_not_removed()
    {
        await using var engine = await HandMadeEngine.StartAsync();
        using var client = new DockerClient(engine.Endpoint);

        await Should.ThrowAsync<DockerException>(client.RemoveImageAsync("../containers/web", force: true, Ct));

        engine.Calls.ShouldBeEmpty();
    }

    [Fact]
    public async Task A_clean_up_tells_what_is_gone()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""
            {"ImagesDeleted":[{"Untagged":"a:1"},{"Deleted":"sha256:1"}],"SpaceReclaimed":123}
            """);
        using var client = new DockerClient(engine.Endpoint);

        var report = await client.PruneImagesAsync(new Dictionary<string, string?>(), danglingOnly: true, Ct);
        await client.PruneImagesAsync(new Dictionary<string, string?> { ["a"] = "b=c", ["d"] = null }, danglingOnly: false, Ct);

        report.Untagged.ShouldBe(["a:1"]);
        report.Deleted.ShouldBe(["sha256:1"]);
        report.ReclaimedBytes.ShouldBe(123);
        engine.Calls.Select(c => c.ToString()).ShouldBe([
            """POST /images/prune?filters={"dangling":["true"]}""",
            """POST /images/prune?filters={"dangling":["false"],"label":["a=b=c","d"]}""",
        ]);
    }

    [Fact]
    public async Task A_clean_up_may_find_nothing()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"ImagesDeleted":null,"SpaceReclaimed":0}""");
        using var client = new DockerClient(engine.Endpoint);

        var report = await client.PruneImagesAsync(new Dictionary<string, string?>(), danglingOnly: true, Ct);

        (report.Untagged.Count, report.Deleted.Count, report.ReclaimedBytes).ShouldBe((0, 0, 0));
    }

    [Fact]
    public async Task A_build_sends_what_was_asked_for_and_leaves_the_context_open()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"aux":{"ID":"sha256:1"}}""");
        using var client = new DockerClient(engine.Endpoint);
        using var tar = new MemoryStream("a tar file"u8.ToArray());
        using var empty = new MemoryStream();

        await client.BuildImageAsync(
            tar,
            new()
            {
                Tag = "team/app:1",
                Dockerfile = "docker/App.Dockerfile",
                Labels = new Dictionary<string, string> { ["modelhost.build"] = "7" },
                BuildArgs = new Dictionary<string, string> { ["BASE"] = "busybox:1" },
                NoCache = true,
            },
            _ => { }, Ct);
        await client.BuildImageAsync(empty, new(), _ => { }, Ct);

        tar.CanRead.ShouldBeTrue();
        engine.Calls.Select(c => c.ToString()).ShouldBe([
            "POST /build?dockerfile=docker/App.Dockerfile&rm=1&forcerm=1&t=team/app:1"
                + """&labels={"modelhost.build":"7"}&buildargs={"BASE":"busybox:1"}&nocache=1""",
            "POST /build?dockerfile=Dockerfile&rm=1&forcerm=1",
        ]);
        engine.Calls.First().Body.ShouldBe("a tar file");
    }

    [Fact]
    public async Task A_build_is_told_line_by_line_and_gives_the_images_id()
    {
        var lines = new List<string>();

        var id = await BuildAsync(string.Join("\r\n", Build), lines);

        id.ShouldBe("sha256:222");
        lines.ShouldBe([
            "Step 1/2 : FROM busybox:1", "1: Pulling from library/busybox", "aaa: Pulling fs layer", "Digest: sha256:0123", "Step 2/2 : RUN x",
            " \u001b[91mwarned", "\u001b[0m ---> 222\r", "Successfully built 222", "Successfully tagged a:1",
        ]);
    }

    [Theory]
    [InlineData("""{"stream":"Successfully built 3a0b81b2dcb6\n"}""", "3a0b81b2dcb6")]
    [InlineData("""{"aux":{"ID":"sha256:1"}}{"stream":"Successfully built 1\n"}{"aux":{"Tag":"x"}}{"aux":"e30="}{"aux":null}""", "sha256:1")]
    public async Task The_id_is_found_whichever_way_it_is_told(string body, string id) => (await BuildAsync(body, [])).ShouldBe(id);

    [Theory]
    [InlineData("""{"errorDetail":{"code":3,"message":"returned a non-zero code: 3"},"error":"short"}""", "returned a non-zero code: 3")]
    [InlineData("""{"error":"manifest unknown"}""", "manifest unknown")]
    [InlineData("", "the build ended without an image")]
    [InlineData("{\"stream\":\"", "the answer ended within an object")]
    [InlineData("""{"stream":7}""", "the answer cannot be read: ")]
    [InlineData("<html>", "the answer is not a stream of objects")]
    public async Task A_build_that_fails_has_told_its_lines_before(string last, string message)
    {
        var lines = new List<string>();

        var failure = await Should.ThrowAsync<DockerException>(BuildAsync("""{"stream":"one\ntw"}{"stream":"o"}""" + last, lines));

        failure.EngineMessage.ShouldStartWith(message);
        failure.StatusCode.ShouldBe(HttpStatusCode.OK);
        failure.Call.ShouldBe("POST /build");
        lines.ShouldBe(["one", "two"]);
    }

    [Fact]
    public async Task A_build_may_be_refused_at_once()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"message":"dockerfile parse error line 1"}""", 400);
        using var client = new DockerClient(engine.Endpoint);
        using var tar = new MemoryStream([1]);

        (await Should.ThrowAsync<DockerException>(client.BuildImageAsync(tar, new(), _ => { }, Ct))).StatusCode.ShouldBe(HttpStatusCode.BadRequest);
    }

    [Fact]
    public async Task A_line_without_an_end_comes_in_pieces()
    {
        var body = new StringBuilder();
        for (var i = 0; i < 5; i++)
            body.Append("{\"stream\":\"").Append((char)('a' + i), 10_000).Append("\"}");
        body.Append("{\"stream\":\"\\n").Append('x', 16 << 10).Append("\\ny\"}{\"aux\":{\"ID\":\"sha256:1\"}}");
        var lines = new List<string>();

        await BuildAsync(body.ToString(), lines);

        lines.Select(l => l.Length).ShouldBe([16 << 10, 16 << 10, 16 << 10, 50_000 - (3 * (16 << 10)), 16 << 10, 1]);
        string.Concat(lines.Take(4)).ShouldBe(string.Concat(Enumerable.Range(0, 5).Select(i => new string((char)('a' + i), 10_000))));
    }

    [Fact]
    public async Task A_character_is_not_cut_by_a_piece()
    {
        var (body, lines) = ($$$"""{"stream":"{{{new string('x', (16 << 10) - 1)}}}🐳y"}{"aux":{"ID":"sha256:1"}}""", new List<string>());

        await BuildAsync(body, lines);

        lines.ShouldBe([new string('x', (16 << 10) - 1), "🐳y"]);
    }

    [Fact]
    public async Task Cancelling_a_build_closes_the_connection()
    {
        await using var engine = await SilentEngine.StartAsync("""{"stream":"Step 1/2 : FROM busybox:1\n"}""");
        using var client = new DockerClient(engine.Endpoint);
        using var cancelling = new CancellationTokenSource();
        using var tar = new MemoryStream([1]);

        var building = client.BuildImageAsync(tar, new(), _ => cancelling.Cancel(), cancelling.Token);

        await Should.ThrowAsync<OperationCanceledException>(building);
        await engine.ClosedByClient;
    }

    [Fact]
    public async Task An_exception_of_the_callers_own_is_left_as_it_is()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(Build[0] + Build[1]);
        using var client = new DockerClient(engine.Endpoint);
        using var tar = new MemoryStream([1]);

        await Should.ThrowAsync<IOException>(client.BuildImageAsync(tar, new(), _ => throw new IOException("disk full"), Ct));
    }

    private static async Task<string> BuildAsync(string body, List<string> lines)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(body);
        using var client = new DockerClient(engine.Endpoint);
        using var tar = new MemoryStream([1]);
        return await client.BuildImageAsync(tar, new(), lines.Add, Ct);
    }
}
