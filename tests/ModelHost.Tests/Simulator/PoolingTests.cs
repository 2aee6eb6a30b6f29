namespace ModelHost.Tests.Simulator;

public sealed class PoolingTests
{
    private const string Embedder = "BAAI/bge-m3";

    [Fact]
    public async Task Texts_are_classified_one_by_one()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--convert", "classify");

        var (status, body) = await simulator.SendAsync("/classify", """{"input":["good","bad"]}""");

        status.ShouldBe(200);
        body.AsObject().Select(member => member.Key).ShouldBe(["id", "object", "created", "model", "data", "usage"]);
        ((string)body["id"]!).ShouldStartWith("classify-");
        ((string?)body["object"]).ShouldBe("list");
        var data = body["data"]!.AsArray();
        data.Count.ShouldBe(2);
        foreach (var entry in data)
        {
            entry!.AsObject().Select(member => member.Key).ShouldBe(["index", "label", "probs", "num_classes"]);
            var probabilities = entry["probs"]!.AsArray().Select(value => (double)value!).ToArray();
            probabilities.Length.ShouldBe((int)entry["num_classes"]!);
            probabilities.Sum().ShouldBe(1, 0.001);
            ((string?)entry["label"]).ShouldBe($"LABEL_{Array.IndexOf(probabilities, probabilities.Max())}");
        }
        body["usage"]!.AsObject().Select(member => member.Key).ShouldBe(["prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details"]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(1500)]
    public async Task Pooling_gives_a_vector_for_every_token_and_in_base64_the_same(int times)
    {
        await using var simulator = await RunningSimulator.StartAsync(Embedder);
        var text = string.Concat(Enumerable.Repeat("the of and", times));

        var (status, body) = await simulator.SendAsync("/pooling", $$"""{"input":"{{text}}","dimensions":15}""");
        var (_, packed) = await simulator.SendAsync("/pooling", $$"""{"input":"{{text}}","dimensions":15,"encoding_format":"base64"}""");

        status.ShouldBe(200);
        ((string)body["id"]!).ShouldStartWith("pool-");
        body["data"]![0]!.AsObject().Select(member => member.Key).ShouldBe(["index", "object", "data"]);
        ((string?)body["data"]![0]!["object"]).ShouldBe("pooling");
        var rows = body["data"]![0]!["data"]!.AsArray();
        rows.Count.ShouldBe((int)body["usage"]!["prompt_tokens"]!);
        var bytes = Convert.FromBase64String((string)packed["data"]![0]!["data"]!);
        rows.SelectMany(row => row!.AsArray()).Select(value => (float)value!)
            .ShouldBe(Enumerable.Range(0, bytes.Length / 4).Select(i => BitConverter.ToSingle(bytes, i * 4)));
    }

    [Fact]
    public async Task Pooling_of_a_whole_text_is_its_embedding()
    {
        await using var simulator = await RunningSimulator.StartAsync(Embedder);

        var (_, pooled) = await simulator.SendAsync("/pooling", """{"input":"the of and","task":"embed","dimensions":4}""");
        var (_, embedded) = await simulator.SendAsync("/v1/embeddings", """{"input":"the of and","dimensions":4}""");

        pooled["data"]![0]!["data"]!.ToJsonString().ShouldBe(embedded["data"]![0]!["embedding"]!.ToJsonString());
    }

    [Theory]
    [InlineData(Embedder, "/classify", """{"input":"a"}""", 501, "NotImplementedError", null)]
    [InlineData("BAAI/bge-reranker-v2-m3", "/v1/embeddings", """{"input":"a"}""", 501, "NotImplementedError", null)]
    [InlineData(Embedder, "/pooling", """{"input":"a","task":"classify"}""", 400, "BadRequestError", "task")]
    [InlineData(Embedder, "/pooling", """{"input":"a","dimensions":0}""", 400, "BadRequestError", "dimensions")]
    [InlineData(Embedder, "/pooling", "{}", 400, "Bad Request", "body.input")]
    [InlineData(Embedder, "/pooling", """{"input":"a","model":"other"}""", 404, "NotFoundError", "model")]
    [InlineData("m", "/pooling", """{"input":"a"}""", 404, "Not Found", null)]
    [InlineData("m", "/classify", """{"input":"a"}""", 404, "Not Found", null)]
    public async Task What_the_model_cannot_do_is_refused(string model, string path, string body, int status, string type, string? parameter)
    {
        await using var simulator = await RunningSimulator.StartAsync(model);

        var (answered, json) = await simulator.SendAsync(path, body);

        answered.ShouldBe(status);
        ((string?)json["error"]!["type"]).ShouldBe(type);
        ((string?)json["error"]!["param"]).ShouldBe(parameter);
    }

    [Theory]
    [InlineData("/v1/embeddings", """{"input":"a"}""")]
    [InlineData("/pooling", """{"input":"a"}""")]
    [InlineData("/score", """{"text_1":"a","text_2":"b"}""")]
    [InlineData("/rerank", """{"query":"a","documents":["b"]}""")]
    public async Task Failures_on_demand_hit_pooling_too(string path, string body)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_REQUEST_FAIL"] = "error" }, Embedder);

        (await simulator.SendAsync(path, body)).Status.ShouldBe(500);
    }
}
