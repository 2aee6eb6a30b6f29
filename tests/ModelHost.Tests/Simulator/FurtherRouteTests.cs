using System.Net.Http.Headers;
using System.Text.Json.Nodes;

namespace ModelHost.Tests.Simulator;

public sealed class FurtherRouteTests
{
    private const string Generate = "/inference/v1/generate";

    [Fact]
    public async Task Tokens_in_give_the_tokens_of_the_text_that_their_text_gives()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        var (_, completion) = await simulator.SendAsync("/v1/completions", """{"prompt":"the of and","max_tokens":5}""");
        var ids = (await simulator.SendAsync("/tokenize", """{"prompt":"the of and"}""")).Body["tokens"]!.ToJsonString();

        var (status, body) = await simulator.SendAsync(Generate, $$$"""{"token_ids":{{{ids}}},"sampling_params":{"max_tokens":5,"logprobs":1,"prompt_logprobs":1}}""");

        status.ShouldBe(200);
        body.AsObject().Select(member => member.Key).ShouldBe(["request_id", "choices", "prompt_logprobs", "kv_transfer_params"]);
        var choice = body["choices"]![0]!;
        choice.AsObject().Select(member => member.Key).ShouldBe(["index", "logprobs", "finish_reason", "token_ids"]);
        ((string?)choice["finish_reason"]).ShouldBe("length");
        var (_, text) = await simulator.SendAsync("/detokenize", $$"""{"tokens":{{choice["token_ids"]!.ToJsonString()}}}""");
        ((string?)text["prompt"]).ShouldBe((string?)completion["choices"]![0]!["text"]);
        choice["logprobs"]!["content"]!.AsArray().Select(token => (string?)token!["token"])
            .ShouldBe(choice["token_ids"]!.AsArray().Select(id => $"token_id:{id}"));
        body["prompt_logprobs"]!.AsArray().Count.ShouldBe(3);
    }

    [Fact]
    public async Task Tokens_are_streamed_and_end_like_chat()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        const string Request = """{"token_ids":[1009,1013],"sampling_params":{"max_tokens":3},"stream":false,"stream_options":{"include_usage":true}}""";

        var (_, whole) = await simulator.SendAsync(Generate, Request.Replace(",\"stream_options\":{\"include_usage\":true}", "", StringComparison.Ordinal));
        var events = await simulator.StreamAsync(Generate, Request.Replace("false", "true", StringComparison.Ordinal));

        events[^1].ShouldBe("[DONE]");
        JsonNode.Parse(events[0])!.AsObject().Select(member => member.Key).ShouldBe(["request_id", "choices", "usage"]);
        ((int)JsonNode.Parse(events[^2])!["usage"]!["completion_tokens"]!).ShouldBe(3);
        events[..^2].SelectMany(entry => JsonNode.Parse(entry)!["choices"]![0]!["token_ids"]!.AsArray()).Select(id => (int)id!)
            .ShouldBe(whole["choices"]![0]!["token_ids"]!.AsArray().Select(id => (int)id!));
    }

    [Theory]
    [InlineData("{}", "body.token_ids")]
    [InlineData("""{"token_ids":[1]}""", "body.sampling_params")]
    [InlineData("""{"token_ids":["a"],"sampling_params":{}}""", "body.token_ids")]
    [InlineData("""{"token_ids":[],"sampling_params":{}}""", "token_ids")]
    [InlineData("""{"token_ids":[1],"sampling_params":{"max_tokens":0}}""", "max_tokens")]
    public async Task Token_requests_are_refused_by_field(string body, string parameter)
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (status, json) = await simulator.SendAsync(Generate, body);

        status.ShouldBe(400);
        ((string?)json["error"]!["param"]).ShouldBe(parameter);
    }

    [Fact]
    public async Task Cohere_embeddings_come_in_every_type_asked_for()
    {
        await using var simulator = await RunningSimulator.StartAsync("BAAI/bge-m3");

        var (status, body) = await simulator.SendAsync("/v2/embed",
            """{"model":"BAAI/bge-m3","texts":["a","b"],"embedding_types":["float","binary","ubinary","base64"],"output_dimension":16}""");

        status.ShouldBe(200);
        body.AsObject().Select(member => member.Key).ShouldBe(["id", "embeddings", "texts", "meta", "response_type"]);
        body["meta"]!["api_version"]!.ToJsonString().ShouldBe("""{"version":"2"}""");
        var embeddings = body["embeddings"]!;
        var floats = embeddings["float"]![1]!.AsArray().Select(value => (float)value!).ToArray();
        floats.Length.ShouldBe(16);
        var packed = Convert.FromBase64String((string)embeddings["base64"]![1]!);
        Enumerable.Range(0, 16).Select(i => BitConverter.ToSingle(packed, i * 4)).ShouldBe(floats);
        var bytes = embeddings["ubinary"]![1]!.AsArray().Select(value => (int)value!).ToArray();
        Enumerable.Range(0, 16).Select(i => (bytes[i / 8] >> (7 - (i % 8)) & 1) == 1).ShouldBe(floats.Select(value => value >= 0));
        embeddings["binary"]![1]!.AsArray().Select(value => (int)value! + 128).ShouldBe(bytes);
    }

    [Theory]
    [InlineData("""{"texts":["a"]}""", "body.model")]
    [InlineData("""{"model":"BAAI/bge-m3"}""", "texts")]
    [InlineData("""{"model":"BAAI/bge-m3","texts":["a"],"embedding_types":["int8"]}""", "body.embedding_types")]
    [InlineData("""{"model":"BAAI/bge-m3","texts":["a"],"output_dimension":12,"embedding_types":["binary"]}""", null)]
    public async Task Cohere_requests_are_refused_by_field(string body, string? parameter)
    {
        await using var simulator = await RunningSimulator.StartAsync("BAAI/bge-m3");

        var (status, json) = await simulator.SendAsync("/v2/embed", body);

        status.ShouldBe(400);
        ((string?)json["error"]!["param"]).ShouldBe(parameter);
    }

    [Theory]
    [InlineData("m", """{"messages":[]}""", "chat.completion")]
    [InlineData("m", """{"prompt":"a"}""", "text_completion")]
    [InlineData("BAAI/bge-m3", """{"input":"a"}""", "list")]
    [InlineData("BAAI/bge-m3", """{"text_1":"a","text_2":"b"}""", "list")]
    [InlineData("BAAI/bge-reranker", """{"input":"a"}""", "list")]
    public async Task Invocations_are_told_apart_by_their_members(string model, string body, string kind)
    {
        await using var simulator = await RunningSimulator.StartAsync(model);

        var (status, answer) = await simulator.SendAsync("/invocations", body);

        status.ShouldBe(200, answer.ToJsonString());
        ((string?)answer["object"]).ShouldBe(kind);
    }

    [Fact]
    public async Task An_invocation_that_means_nothing_is_refused()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (status, answer) = await simulator.SendAsync("/invocations", """{"input":"a"}""");

        status.ShouldBe(400);
        ((string?)answer["error"]!["message"]).ShouldBe(
            "Cannot find suitable handler for request. Expected one of: ['ChatCompletionRequest', 'CompletionRequest']");
    }

    [Fact]
    public async Task The_tokenizer_is_described_only_with_its_flag()
    {
        await using var silent = await RunningSimulator.StartAsync("m");
        await using var telling = await RunningSimulator.StartAsync("m", "--enable-tokenizer-info-endpoint");

        ((int)(await silent.Http.GetAsync("/tokenizer_info", TestContext.Current.CancellationToken)).StatusCode).ShouldBe(404);
        JsonNode.Parse(await telling.Http.GetStringAsync("/tokenizer_info", TestContext.Current.CancellationToken))!["tokenizer_class"].ShouldNotBeNull();
    }

    [Theory]
    [InlineData("m", Generate, true)]
    [InlineData("m", "/v1/responses", true)]
    [InlineData("BAAI/bge-m3", "/v2/embed", true)]
    [InlineData("openai/whisper-small", "/v1/audio/transcriptions", true)]
    [InlineData("BAAI/bge-m3", "/pooling", false)]
    [InlineData("BAAI/bge-m3", "/classify", false)]
    [InlineData("m", "/invocations", false)]
    public async Task The_key_guards_by_the_beginning_of_the_path(string model, string path, bool guarded)
    {
        await using var simulator = await RunningSimulator.StartAsync(model, "--api-key", "hush");

        var without = (int)(await simulator.PostAsync(path, "{}")).StatusCode;
        simulator.Http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", "hush");
        var with = (int)(await simulator.PostAsync(path, "{}")).StatusCode;

        without.ShouldBe(guarded ? 401 : 400);
        with.ShouldBe(400);
    }
}
