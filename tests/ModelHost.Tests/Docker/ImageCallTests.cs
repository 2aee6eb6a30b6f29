using System.Net;
using System.Text;
using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

public sealed class ImageCallTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Three layers as Docker 20.10 pulls them: one is there, one is small, one reports as it comes.</summary>
    private static readonly string[] Pull =
    [
        """{"status":"Pulling from team/app","id":"1"}""",
        """{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}""",
        """{"status":"Already exists","progressDetail":{},"id":"bbb"}""",
        """{"status":"Pulling fs layer","progressDetail":{},"id":"ccc"}""",
        """{"status":"Waiting","progressDetail":{},"id":"ccc"}""",
        """{"status":"Downloading","progressDetail":{"current":100,"total":1000},"progress":"[=>    ]","id":"aaa"}""",
        """{"status":"Downloading","progressDetail":{"current":50,"total":200},"progress":"[=>    ]","id":"ccc"}""",
        """{"status":"Verifying Checksum","progressDetail":{},"id":"ccc"}""",
        """{"status":"Download complete","progressDetail":{},"id":"ccc"}""",
        """{"status":"Retrying in 1 second","progressDetail":{},"id":"aaa"}""",
        """{"status":"Downloading","progressDetail":{"current":900,"total":1000},"progress":"[=====>]","id":"aaa"}""",
        """{"status":"Download complete","progressDetail":{},"id":"aaa"}""",
        """{"status":"Extracting","progressDetail":{"current":32,"total":1000},"progress":"[>     ]","id":"aaa"}""",
        """{"status":"Pull complete","progressDetail":{},"id":"aaa"}""",
        """{"status":"Extracting","progressDetail":{"current":1,"units":"s"},"id":"ccc"}""",
        """{"status":"Pull complete","progressDetail":{},"id":"ccc"}""",
        """{"status":"Digest: sha256:0123"}""",
        """{"status":"Status: Downloaded newer image for team/app:1"}""",
    ];

    [Fact]
    public async Task A_pull_is_summed_up_over_its_layers()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(string.Join("\r\n", Pull) + "\r\n");
        using var client = new DockerClient(engine.Endpoint);
        var seen = new List<PullProgress>();

        await client.PullImageAsync("registry:5000/team/app", "1", seen.Add, Ct);

        engine.Calls.ShouldHaveSingleItem().ToString().ShouldBe("POST /images/create?fromImage=registry:5000/team/app&tag=1");
        seen.Select(p => $"{p.Layer} {p.Status} {p.LayersDone}+{p.LayersExtracting}/{p.Layers} {p.DoneBytes}/{p.TotalBytes}").ShouldBe([
            " Pulling from team/app 0+0/0 0/0",
            "aaa Pulling fs layer 0+0/1 0/0",
            "bbb Already exists 0+0/1 0/0",
            "ccc Pulling fs layer 0+0/2 0/0",
            "ccc Waiting 0+0/2 0/0",
            "aaa Downloading 0+0/2 100/1000",
            "ccc Downloading 0+0/2 150/1200",
            "ccc Verifying Checksum 0+0/2 300/1200",
            "ccc Download complete 0+0/2 300/1200",
            "aaa Retrying in 1 second 0+0/2 300/1200",
            "aaa Downloading 0+0/2 1100/1200",
            "aaa Download complete 0+0/2 1200/1200",
            "aaa Extracting 0+1/2 1200/1200",
            "aaa Pull complete 1+0/2 1200/1200",
            "ccc Extracting 1+1/2 1200/1200",
            "ccc Pull complete 2+0/2 1200/1200",
            " Digest: sha256:0123 2+0/2 1200/1200",
            " Status: Downloaded newer image for team/app:1 2+0/2 1200/1200",
        ]);
        seen[0].Percent.ShouldBeNull();
        seen[5].Percent.ShouldBe(5); // the other layer, whose size is not known yet, counts like this one
        seen[6].Percent.ShouldBe(12.5);
        seen[^1].Percent.ShouldBe(100);
    }

    [Theory]
    [InlineData("""{"errorDetail":{"code":1,"message":"unauthorized"},"error":"short"}""", "unauthorized")]
    [InlineData("""{"error":"manifest unknown"}""", "manifest unknown")]
    public async Task A_failure_within_the_stream_is_a_failure_of_the_pull(string last, string message)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync($"{Pull[0]}\r\n{last}");
        using var client = new DockerClient(engine.Endpoint);
        var seen = 0;

        var failure = await Should.ThrowAsync<DockerException>(client.PullImageAsync("team/app", "1", _ => seen++, Ct));

        failure.EngineMessage.ShouldBe(message);
        failure.StatusCode.ShouldBe(HttpStatusCode.OK);
        seen.ShouldBe(1);
    }

    [Theory]
    [InlineData(404, "pull access denied")]
    [InlineData(500, "no such host")]
    public async Task A_pull_may_be_refused_at_once(int status, string message)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync($$"""{"message":"{{message}}"}""", status);
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.PullImageAsync("team/app", "1", _ => { }, Ct));

        failure.EngineMessage.ShouldBe(message);
        failure.StatusCode.ShouldBe((HttpStatusCode)status);
    }

    [Fact]
    public async Task A_message_without_an_end_is_not_gathered()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("{\"status\":\"" + new string('x', 2 << 20));
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.PullImageAsync("team/app", "1", _ => { }, Ct));

        failure.EngineMessage.ShouldBe("an object of the answer is larger than 1048576 bytes");
    }

    [Fact]
    public async Task An_exception_of_the_callers_own_is_left_as_it_is()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(Pull[0]);
        using var client = new DockerClient(engine.Endpoint);

        await Should.ThrowAsync<IOException>(client.PullImageAsync("team/app", "1", _ => throw new IOException("disk full"), Ct));
    }

    [Fact]
    public async Task An_image_is_loaded_from_a_stream_that_stays_open()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"stream":"Loaded image: a:1\n"}""" + "\r\n");
        using var client = new DockerClient(engine.Endpoint);
        using var tar = new MemoryStream(Encoding.ASCII.GetBytes("a tar file"));

        await client.LoadImageAsync(tar, Ct);

        tar.CanRead.ShouldBeTrue();
        var call = engine.Calls.ShouldHaveSingleItem();
        call.ToString().ShouldBe("POST /images/load?quiet=1");
        call.Body.ShouldBe("a tar file");
    }

    [Fact]
    public async Task A_load_fails_with_the_engines_words()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}""");
        using var client = new DockerClient(engine.Endpoint);
        using var tar = new MemoryStream([1]);

        (await Should.ThrowAsync<DockerException>(client.LoadImageAsync(tar, Ct))).EngineMessage.ShouldBe("unexpected EOF");
    }

    [Fact]
    public async Task Images_are_listed_by_reference()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""
            [{"Id":"sha256:1","RepoTags":["<none>:<none>"],"RepoDigests":null,"Created":1700000000,"Size":123,"VirtualSize":123,"Labels":null,"Containers":-1}]
            """);
        using var client = new DockerClient(engine.Endpoint);

        var image = (await client.ListImagesAsync("vllm/vllm-openai:*", Ct)).ShouldHaveSingleItem();
        await client.ListImagesAsync(null, Ct);

        engine.Calls.Select(c => c.ToString()).ShouldBe([
            """GET /images/json?filters={"reference":["vllm/vllm-openai:*"]}""",
            "GET /images/json",
        ]);
        image.RepoTags.ShouldBeEmpty();
        image.RepoDigests.ShouldBeEmpty();
        image.SizeBytes.ShouldBe(123);
        image.Created.ShouldBe(DateTimeOffset.FromUnixTimeSeconds(1700000000));
    }

    [Fact]
    public async Task An_image_is_inspected_and_tagged_under_its_escaped_name()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""
            {"Id":"sha256:1","RepoTags":["a:1"],"RepoDigests":["a@sha256:2"],"Created":"2026-01-02T03:04:05Z","Architecture":"amd64","Config":{"Labels":{"x":"y"}}}
            """);
        using var client = new DockerClient(engine.Endpoint);

        var image = await client.InspectImageAsync("registry:5000/team/app@sha256:2", Ct);
        await client.TagImageAsync("sha256:1", "registry:5000/team/app", "2", Ct);

        engine.Calls.Select(c => c.ToString()).ShouldBe([
            "GET /images/registry%3A5000/team/app%40sha256%3A2/json",
            "POST /images/sha256%3A1/tag?repo=registry:5000/team/app&tag=2",
        ]);
        image.Labels["x"].ShouldBe("y");
        image.Architecture.ShouldBe("amd64");
    }

    [Theory]
    [InlineData("../../containers")]
    [InlineData("a//b")]
    [InlineData("a/./b")]
    [InlineData("")]
    public async Task A_reference_that_would_lead_elsewhere_is_not_sent(string reference)
    {
        await using var engine = await HandMadeEngine.StartAsync();
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.InspectImageAsync(reference, Ct));

        failure.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        engine.Calls.ShouldBeEmpty();
    }
}
