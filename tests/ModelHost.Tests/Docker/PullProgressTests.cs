using System.Net;
using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

/// <summary>Streams of pulls as engines send them on bad days.</summary>
public sealed class PullProgressTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task What_a_retry_fetches_again_counts_once()
    {
        var seen = await PullAsync(
            Line("Pulling fs layer", "a"), Line("Downloading", "a", 600, 1000), Line("Retrying in 2 seconds", "a"), Line("Retrying in 1 second", "a"),
            Line("Downloading", "a", 100, 1000), Line("Downloading", "a", 700, 1000));

        seen.Select(p => p.DoneBytes).ShouldBe([0, 600, 600, 600, 600, 700]);
        seen.Select(p => p.Percent).ShouldBe([null, 60, 60, 60, 60, 70]);
    }

    [Fact]
    public async Task Numbers_that_go_backward_are_not_believed()
    {
        var seen = await PullAsync(
            Line("Downloading", "a", 600, 1000), Line("Downloading", "a", 500, 900), Line("Downloading", "a", -7, -1), Line("Downloading", "a", 610, 1000));

        seen.Select(p => (p.DoneBytes, p.TotalBytes)).ShouldBe([(600, 1000), (600, 1000), (600, 1000), (610, 1000)]);
    }

    [Fact]
    public async Task A_step_that_was_left_is_not_entered_again()
    {
        var seen = await PullAsync(
            Line("Downloading", "a", 1000, 1000), Line("Pull complete", "a"), Line("Extracting", "a", 10, 1000), Line("Downloading", "a", 5, 1000),
            Line("Pulling fs layer", "a"), Line("Pull complete", "a"));

        seen.Skip(1).ShouldAllBe(p => p.LayersDone == 1 && p.DoneBytes == 1000 && p.LayersExtracting == 0);
    }

    [Fact]
    public async Task A_layer_named_twice_is_one_layer()
    {
        var seen = await PullAsync(
            Line("Pulling fs layer", "a"), Line("Pulling fs layer", "a"), Line("Downloading", "a", 10, 10), Line("Pull complete", "a"), Line("Pull complete", "a"));

        (seen[^1].Layers, seen[^1].LayersDone, seen[^1].DoneBytes, seen[^1].TotalBytes).ShouldBe((1, 1, 10, 10));
    }

    [Fact]
    public async Task A_layer_that_another_pull_fetched_meanwhile_stays_counted()
    {
        var seen = await PullAsync(
            Line("Pulling fs layer", "a"), Line("Pulling fs layer", "b"), Line("Downloading", "a", 400, 1000), Line("Already exists", "a"),
            Line("Already exists", "b"));

        (seen[3].DoneBytes, seen[3].TotalBytes, seen[3].LayersDone).ShouldBe((1000, 1000, 1));
        (seen[4].Layers, seen[4].LayersDone, seen[4].Percent).ShouldBe((1, 1, 100));
    }

    [Fact]
    public async Task Percent_grows_while_layers_of_unknown_size_wait()
    {
        var seen = await PullAsync(
            Line("Pulling fs layer", "a"), Line("Pulling fs layer", "b"), Line("Pulling fs layer", "c"),
            Line("Downloading", "a", 100, 100), Line("Download complete", "a"),
            Line("Downloading", "b", 0, 1800), Line("Downloading", "b", 1800, 1800), Line("Downloading", "c", 0, 100), Line("Downloading", "c", 100, 100));

        seen.Select(p => p.Percent is { } percent ? Math.Round(percent, 1) : (double?)null)
            .ShouldBe([null, null, null, 33.3, 33.3, 33.3, 66.7, 95, 100]);
    }

    [Fact]
    public async Task Missing_and_empty_fields_are_passed_over()
    {
        var seen = await PullAsync(
            "{}", """{"status":null,"id":null,"progressDetail":null}""", """{"id":""}""", """{"status":"Downloading","id":"a"}""",
            """{"status":"Downloading","id":"a","progressDetail":{"current":null,"total":null}}""", """{"status":"Downloading","id":"a","progressDetail":{"current":5}}""",
            """{"progressDetail":{"current":5,"total":9},"id":"a"}""", """{"status":"Something new","id":"a","more":[1,{}]}""");

        seen.Count.ShouldBe(8);
        seen[0].Status.ShouldBe("");
        (seen[^1].Layers, seen[^1].DoneBytes, seen[^1].TotalBytes).ShouldBe((1, 5, 5));
    }

    [Fact]
    public async Task Sizes_beyond_all_measure_do_not_overflow()
    {
        var seen = await PullAsync(Enumerable.Range(0, 2000).Select(i => Line("Downloading", $"l{i}", long.MaxValue, long.MaxValue)).ToArray());

        seen[^1].Layers.ShouldBe(1024);
        seen.ShouldAllBe(p => p.TotalBytes > 0 && p.DoneBytes <= p.TotalBytes && p.Percent <= 100);
    }

    [Fact]
    public async Task What_was_said_before_and_the_countdown_to_a_retry_move_nothing()
    {
        var seen = await PullAsync(
            Line("Pulling from team/app", "1"), Line("Pulling fs layer", "a"), Line("Downloading", "a", 10, 100), Line("Downloading", "a", 10, 100),
            Line("Retrying in 2 seconds", "a"), Line("Retrying in 1 second", "a"), Line("Downloading", "a", 5, 100), Line("Download complete", "a"),
            Line("Extracting", "a", 50, 100), Line("Extracting", "a", 50, 100), Line("Extracting", "a", 60, 100), Line("Pull complete", "a"));

        seen.Select(p => p.Advanced).ShouldBe([true, true, true, false, false, false, true, true, true, false, true, true]);
    }

    [Fact]
    public async Task Random_streams_never_move_back()
    {
        var random = new Random(11);
        string[] words = ["Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete", "Retrying in 1 second"];
        var lines = Enumerable.Range(0, 3000)
            .Select(_ => Line(words[random.Next(words.Length)], $"l{random.Next(12)}", random.Next(-10, 1000), random.Next(-10, 1000))).ToArray();

        var seen = await PullAsync(lines);

        foreach (var (before, after) in seen.Zip(seen.Skip(1)))
        {
            after.DoneBytes.ShouldBeGreaterThanOrEqualTo(before.DoneBytes);
            after.TotalBytes.ShouldBeGreaterThanOrEqualTo(before.TotalBytes);
            (after.Percent ?? 0).ShouldBeInRange(before.Percent ?? 0, 100);
            after.LayersDone.ShouldBeInRange(0, after.LayersDownloaded);
            after.LayersDownloaded.ShouldBeInRange(0, after.Layers);
        }
    }

    [Theory]
    [InlineData("""{"errorDetail":{"code":401},"error":"no basic auth credentials"}""", "no basic auth credentials")]
    [InlineData("""{"errorDetail":{"message":"failed to register layer: write /x: no space left on device"}}""", "failed to register layer: write /x: no space left on device")]
    [InlineData("""{"status":"Downloading""", "the answer ended within an object")]
    public async Task A_pull_that_breaks_within_the_stream_tells_what_came_before(string last, string message)
    {
        var seen = new List<PullProgress>();

        var failure = await Should.ThrowAsync<DockerException>(PullAsync([Line("Downloading", "a", 10, 100), last], seen));

        (failure.StatusCode, failure.EngineMessage).ShouldBe((HttpStatusCode.OK, message));
        seen.ShouldHaveSingleItem().DoneBytes.ShouldBe(10);
    }

    private static async Task<List<PullProgress>> PullAsync(params string[] lines)
    {
        var seen = new List<PullProgress>();
        await PullAsync(lines, seen);
        return seen;
    }

    private static async Task PullAsync(string[] lines, List<PullProgress> seen)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(string.Join("\r\n", lines));
        using var client = new DockerClient(engine.Endpoint);
        await client.PullImageAsync("team/app", "1", seen.Add, Ct);
    }

    private static string Line(string status, string id) => $$"""{"status":"{{status}}","progressDetail":{},"id":"{{id}}"}""";

    private static string Line(string status, string id, long current, long total) =>
        $$$"""{"status":"{{{status}}}","progressDetail":{"current":{{{current}}},"total":{{{total}}}},"id":"{{{id}}}"}""";
}
