namespace ModelHost.Tests.Simulator;

public sealed class ScoreTests
{
    [Theory]
    [InlineData("/score", """{"text_1":"a","text_2":["b","a"]}""")]
    [InlineData("/v1/score", """{"queries":"a","documents":["b","a"]}""")]
    [InlineData("/score", """{"queries":["a","a"],"items":["b","a"]}""")]
    [InlineData("/score", """{"data_1":"a","data_2":["b","a"]}""")]
    public async Task Pairs_are_scored_under_every_name(string path, string body)
    {
        await using var simulator = await RunningSimulator.StartAsync("BAAI/bge-m3");

        var (status, answer) = await simulator.SendAsync(path, body);

        status.ShouldBe(200);
        answer.AsObject().Select(member => member.Key).ShouldBe(["id", "object", "created", "model", "data", "usage"]);
        ((string?)answer["id"])!.ShouldStartWith("embd-");
        answer["data"]!.AsArray().Select(entry => string.Join(',', entry!.AsObject().Select(member => member.Key))).ShouldBe(["index,object,score", "index,object,score"]);
        ((double)answer["data"]![1]!["score"]!).ShouldBe(1);
        ((double)answer["data"]![0]!["score"]!).ShouldBeLessThan(1);
    }

    [Theory]
    [InlineData("/rerank")]
    [InlineData("/v1/rerank")]
    [InlineData("/v2/rerank")]
    public async Task Documents_are_ranked_best_first(string path)
    {
        await using var simulator = await RunningSimulator.StartAsync("BAAI/bge-m3");

        var (status, answer) = await simulator.SendAsync(path, """{"query":"a","documents":["b","a","c"],"top_n":2}""");

        status.ShouldBe(200);
        answer.AsObject().Select(member => member.Key).ShouldBe(["id", "model", "usage", "results"]);
        answer["usage"]!.AsObject().Select(member => member.Key).ShouldBe(["prompt_tokens", "total_tokens"]);
        answer["results"]!.AsArray().Count.ShouldBe(2);
        answer["results"]![0]!.ToJsonString().ShouldBe("""{"index":1,"document":{"text":"a"},"relevance_score":1}""");
    }

    [Fact]
    public async Task Unequal_lists_are_refused()
    {
        await using var simulator = await RunningSimulator.StartAsync("BAAI/bge-m3");

        (await simulator.SendAsync("/score", """{"text_1":["a","b"],"text_2":["c"]}""")).Status.ShouldBe(400);
        (await simulator.SendAsync("/score", """{"text_1":"a"}""")).Body["error"]!["param"]!.GetValue<string>().ShouldBe("body.text_1");
    }
}
