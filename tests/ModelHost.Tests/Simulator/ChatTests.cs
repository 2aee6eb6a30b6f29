using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace ModelHost.Tests.Simulator;

public sealed partial class ChatTests
{
    private const string Hello = """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":3}""";

    [Fact]
    public async Task A_whole_chat_answer_has_the_members_and_nulls_of_vllm()
    {
        await using var simulator = await RunningSimulator.StartAsync("Qwen/Qwen3-0.6B", "--served-model-name", "first", "second");
        using var response = await simulator.PostAsync("/v1/chat/completions", Hello.Replace("{\"mess", "{\"model\":\"second\",\"mess", StringComparison.Ordinal));

        var body = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);

        response.Content.Headers.ContentType!.ToString().ShouldBe("application/json");
        Masked(body).ShouldBe("""
            {"id":"chatcmpl-ID","object":"chat.completion","created":0,"model":"first","choices":[{"index":0,"message":{"role":"assistant",
            "content":"TEXT","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,
            "finish_reason":"length","stop_reason":null,"token_ids":null,"routed_experts":null}],"service_tier":null,
            "system_fingerprint":"vllm-0.28.0-HASH","usage":{"prompt_tokens":10,"total_tokens":13,"completion_tokens":3,
            "prompt_tokens_details":null,"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":null}
            """.Replace("\n", "", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_chat_stream_sends_roles_then_text_then_usage_then_done()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var events = await simulator.StreamAsync("/v1/chat/completions",
            """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":2,"n":2,"stream":true,"stream_options":{"include_usage":true}}""");

        const string Head = """{"id":"chatcmpl-ID","object":"chat.completion.chunk","created":0,"model":"m","choices":[""";
        events.Select(Masked).ShouldBe(
        [
            Head + """{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}""",
            Head + """{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}""",
            Head + """{"index":0,"delta":{"content":"TEXT"},"logprobs":null,"finish_reason":null,"token_ids":null}]}""",
            Head + """{"index":1,"delta":{"content":"TEXT"},"logprobs":null,"finish_reason":null,"token_ids":null}]}""",
            Head + """{"index":0,"delta":{"content":"TEXT"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]}""",
            Head + """{"index":1,"delta":{"content":"TEXT"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]}""",
            Head + """],"system_fingerprint":"vllm-0.28.0-HASH","usage":{"prompt_tokens":10,"total_tokens":14,"completion_tokens":4}}""",
            "[DONE]",
        ]);
    }

    [Fact]
    public async Task Continuous_usage_stands_on_every_chunk()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var events = await simulator.StreamAsync("/v1/chat/completions", """
            {"messages":[{"role":"user","content":"Hello"}],"max_tokens":2,"stream":true,
             "stream_options":{"include_usage":true,"continuous_usage_stats":true}}
            """);

        events[..^1].Select(chunk => (int)JsonNode.Parse(chunk)!["usage"]!["completion_tokens"]!).ShouldBe([0, 1, 2, 2]);
    }

    [Fact]
    public async Task Without_a_usage_chunk_the_last_chunk_has_the_fingerprint()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "-tp", "2");

        var events = await simulator.StreamAsync("/v1/chat/completions", Hello.Replace("}]", "}],\"stream\":true", StringComparison.Ordinal));

        ((string?)JsonNode.Parse(events[^2])!["system_fingerprint"])!.ShouldStartWith("vllm-0.28.0-tp2-");
        events[^3].ShouldNotContain("system_fingerprint");
    }

    [Fact]
    public async Task Completion_chunks_have_their_own_shape()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var events = await simulator.StreamAsync("/v1/completions", """{"prompt":"Once","max_tokens":2,"stream":true,"echo":true}""");

        events.Length.ShouldBe(3);
        Masked(events[0]).ShouldBe("""
            {"id":"cmpl-ID","object":"text_completion","created":0,"model":"m","choices":[{"index":0,"text":"TEXT","logprobs":null,
            "finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}],"usage":null}
            """.Replace("\n", "", StringComparison.Ordinal));
        ((string)JsonNode.Parse(events[0])!["choices"]![0]!["text"]!).ShouldStartWith("Once");
    }

    [Fact]
    public async Task Completions_count_choices_over_prompts_and_n()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (status, body) = await simulator.SendAsync("/v1/completions", """{"prompt":["a",[72,1009]],"n":2,"max_tokens":1}""");

        status.ShouldBe(200);
        body["choices"]!.AsArray().Select(choice => (int)choice!["index"]!).ShouldBe([0, 1, 2, 3]);
        ((int)body["usage"]!["completion_tokens"]!).ShouldBe(4);
    }

    [Fact]
    public async Task The_same_request_gives_the_same_text_on_another_server()
    {
        await using var one = await RunningSimulator.StartAsync("m");
        await using var two = await RunningSimulator.StartAsync("m");
        await using var seeded = await RunningSimulator.StartAsync("m", "--seed", "7");
        const string Request = """{"messages":[{"role":"user","content":"Hello"}]}""";

        var first = Text((await one.SendAsync("/v1/chat/completions", Request)).Body);

        Text((await two.SendAsync("/v1/chat/completions", Request)).Body).ShouldBe(first);
        Text((await seeded.SendAsync("/v1/chat/completions", Request)).Body).ShouldNotBe(first);
        Text((await one.SendAsync("/v1/chat/completions", Request.Replace("Hello", "Hallo", StringComparison.Ordinal))).Body).ShouldNotBe(first);
    }

    [Fact]
    public async Task A_stream_and_a_whole_answer_say_the_same()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        const string Request = """{"messages":[{"role":"user","content":"Hello"}],"stream":false}""";

        var (_, whole) = await simulator.SendAsync("/v1/chat/completions", Request);
        var events = await simulator.StreamAsync("/v1/chat/completions", Request.Replace("false", "true", StringComparison.Ordinal));

        string.Concat(events[..^1].Select(chunk => (string?)JsonNode.Parse(chunk)!["choices"]![0]!["delta"]!["content"])).ShouldBe(Text(whole));
        ((string?)whole["choices"]![0]!["finish_reason"]).ShouldBe("stop");
        ((int)whole["usage"]!["completion_tokens"]!).ShouldBe(events.Length - 2);
    }

    [Fact]
    public async Task A_stop_string_cuts_the_text_and_is_the_stop_reason()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        const string Request = """{"messages":[{"role":"user","content":"Hello"}]}""";
        var text = Text((await simulator.SendAsync("/v1/chat/completions", Request)).Body)!;
        var stop = text[12..20];

        var (_, body) = await simulator.SendAsync("/v1/chat/completions", Request.Replace("]}", $"],\"stop\":[\"{stop}\"]}}", StringComparison.Ordinal));

        Text(body).ShouldBe(text[..text.IndexOf(stop, StringComparison.Ordinal)]);
        ((string?)body["choices"]![0]!["stop_reason"]).ShouldBe(stop);
    }

    [Fact]
    public async Task Adapters_answer_under_their_own_name_and_have_a_card()
    {
        await using var simulator = await RunningSimulator.StartAsync("base/model", "--enable-lora", "--lora-modules", "sql=/adapters/sql");

        var (_, body) = await simulator.SendAsync("/v1/chat/completions", Hello.Replace("{\"mess", "{\"model\":\"sql\",\"mess", StringComparison.Ordinal));
        var models = JsonNode.Parse(await simulator.Http.GetStringAsync("/v1/models", TestContext.Current.CancellationToken))!["data"]!;

        ((string?)body["model"]).ShouldBe("sql");
        ((string?)models[1]!["root"]).ShouldBe("/adapters/sql");
        ((string?)models[1]!["parent"]).ShouldBe("base/model");
        models[1]!["max_model_len"].ShouldBeNull();
    }

    [Fact]
    public async Task Token_counts_agree_with_the_tokenizer_and_its_inverse()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        const string Messages = """{"messages":[{"role":"user","content":"Grüße, 世界 🙂 of the unwritten"}]}""";

        var (_, chat) = await simulator.SendAsync("/v1/chat/completions", Messages);
        var (_, tokenized) = await simulator.SendAsync("/tokenize", Messages);
        var (_, back) = await simulator.SendAsync("/detokenize", $"{{\"tokens\":{tokenized["tokens"]!.ToJsonString()}}}");

        ((int)tokenized["count"]!).ShouldBe((int)chat["usage"]!["prompt_tokens"]!);
        ((string?)back["prompt"]).ShouldBe("<|im_start|>user\nGrüße, 世界 🙂 of the unwritten<|im_end|>\n<|im_start|>assistant\n");
    }

    [Fact]
    public async Task Embeddings_are_the_same_as_floats_and_as_base64()
    {
        await using var simulator = await RunningSimulator.StartAsync("BAAI/bge-m3");

        var (status, floats) = await simulator.SendAsync("/v1/embeddings", """{"input":["a","b"],"dimensions":4}""");
        var (_, packed) = await simulator.SendAsync("/v1/embeddings", """{"input":"b","dimensions":4,"encoding_format":"base64"}""");

        status.ShouldBe(200);
        var bytes = Convert.FromBase64String((string)packed["data"]![0]!["embedding"]!);
        floats["data"]![1]!["embedding"]!.AsArray().Select(value => (float)value!)
            .ShouldBe(Enumerable.Range(0, 4).Select(i => BitConverter.ToSingle(bytes, i * 4)));
        (await simulator.SendAsync("/v1/chat/completions", Hello)).Status.ShouldBe(404);
    }

    [Theory]
    [InlineData("""{"type":"json_object"}""", "{}")]
    [InlineData("""{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"},"at":{"type":"object","properties":{"x":{"enum":[7]}}}}}}}""",
        """{"city":"value","days":1,"at":{"x":7}}""")]
    [InlineData("""{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"boolean"}}}""", "true")]
    [InlineData("""{"type":"json_schema","json_schema":{"name":"n","schema":true}}""", "{}")]
    public async Task An_answer_is_the_json_that_its_format_asks_for(string format, string json)
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        var request = $$"""{"messages":[{"role":"user","content":"Hello"}],"response_format":{{format}},"stream":false}""";

        var (status, whole) = await simulator.SendAsync("/v1/chat/completions", request);
        var events = await simulator.StreamAsync("/v1/chat/completions", request.Replace("\"stream\":false", "\"stream\":true", StringComparison.Ordinal));

        status.ShouldBe(200);
        Text(whole).ShouldBe(json);
        ((string?)whole["choices"]![0]!["finish_reason"]).ShouldBe("stop");
        string.Concat(events[..^1].Select(chunk => (string?)JsonNode.Parse(chunk)!["choices"]![0]!["delta"]!["content"])).ShouldBe(json);
    }

    private static string? Text(JsonNode body) => (string?)body["choices"]![0]!["message"]!["content"];

    private static string Masked(string json)
    {
        json = Ids().Replace(json, "cmpl-ID\"");
        json = Created().Replace(json, "\"created\":0");
        json = Fingerprint().Replace(json, "0-HASH\"");
        return Texts().Replace(json, "\"$1\":\"TEXT\"");
    }

    [GeneratedRegex("cmpl-[0-9a-f]{32}\"")]
    private static partial Regex Ids();

    [GeneratedRegex("\"created\":\\d{10}")]
    private static partial Regex Created();

    [GeneratedRegex("0-[0-9a-f]{8}\"")]
    private static partial Regex Fingerprint();

    [GeneratedRegex("\"(content|text)\":\"[^\"]+\"")]
    private static partial Regex Texts();
}
