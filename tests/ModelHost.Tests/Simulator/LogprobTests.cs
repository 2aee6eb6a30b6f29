using System.Text;
using System.Text.Json.Nodes;

namespace ModelHost.Tests.Simulator;

public sealed class LogprobTests
{
    private const string Chat = "/v1/chat/completions";

    private const string Completions = "/v1/completions";

    [Theory]
    [InlineData("", 0)]
    [InlineData(",\"top_logprobs\":3", 3)]
    public async Task Chat_tells_of_every_token_its_bytes_and_the_likeliest_ones(string member, int top)
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        var request = $$"""{"messages":[{"role":"user","content":"Hello"}],"max_tokens":5,"logprobs":true{{member}},"stream":false}""";

        var choice = (await simulator.SendAsync(Chat, request)).Body["choices"]![0]!;
        var events = await simulator.StreamAsync(Chat, request.Replace("false", "true", StringComparison.Ordinal));

        choice["logprobs"]!.AsObject().Select(member => member.Key).ShouldBe(["content"]);
        var tokens = choice["logprobs"]!["content"]!.AsArray();
        tokens.Count.ShouldBe(5);
        string.Concat(tokens.Select(token => (string?)token!["token"])).ShouldBe((string?)choice["message"]!["content"]);
        foreach (var token in tokens)
        {
            token!.AsObject().Select(member => member.Key).ShouldBe(["token", "logprob", "bytes", "top_logprobs"]);
            Encoding.UTF8.GetString([.. token["bytes"]!.AsArray().Select(value => (byte)value!)]).ShouldBe((string?)token["token"]);
            var likeliest = token["top_logprobs"]!.AsArray();
            likeliest.Count.ShouldBe(top);
            likeliest.Select(entry => (string?)entry!["token"]).Distinct().Count().ShouldBe(top);
            likeliest.Select(entry => (double)entry!["logprob"]!).ShouldBeInOrder(SortDirection.Descending);
            likeliest.Sum(entry => Math.Exp((double)entry!["logprob"]!)).ShouldBeLessThanOrEqualTo(1);
        }
        var chunks = events[1..^1].Select(chunk => JsonNode.Parse(chunk)!["choices"]![0]!["logprobs"]!["content"]!.AsArray()).ToArray();
        JsonNode.Parse(events[0])!["choices"]![0]!["logprobs"].ShouldBeNull();
        string.Join(',', chunks.SelectMany(chunk => chunk).Select(token => token!.ToJsonString())).ShouldBe(string.Join(',', tokens.Select(token => token!.ToJsonString())));
    }

    [Fact]
    public async Task The_end_of_an_answer_is_a_token_too()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (_, body) = await simulator.SendAsync(Chat, """{"messages":[],"logprobs":true}""");

        var tokens = body["choices"]![0]!["logprobs"]!["content"]!.AsArray();
        tokens.Count.ShouldBe((int)body["usage"]!["completion_tokens"]!);
        ((string?)tokens[^1]!["token"]).ShouldBe("<|im_end|>");
    }

    [Fact]
    public async Task Completions_have_four_lists_that_go_on_in_a_stream()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        const string Request = """{"prompt":"the of and","max_tokens":4,"logprobs":2,"echo":true,"stream":false}""";

        var choice = (await simulator.SendAsync(Completions, Request)).Body["choices"]![0]!;
        var events = await simulator.StreamAsync(Completions, Request.Replace("false", "true", StringComparison.Ordinal));

        var logprobs = choice["logprobs"]!;
        logprobs.AsObject().Select(member => member.Key).ShouldBe(["text_offset", "token_logprobs", "tokens", "top_logprobs"]);
        var (tokens, offsets) = (Strings(logprobs["tokens"]!), logprobs["text_offset"]!.AsArray().Select(value => (int)value!).ToArray());
        tokens.Length.ShouldBe(7);
        string.Concat(tokens).ShouldBe((string?)choice["text"]);
        for (var i = 0; i < tokens.Length; i++)
            ((string)choice["text"]!)[offsets[i]..].ShouldStartWith(tokens[i]);
        logprobs["token_logprobs"]![0].ShouldBeNull();
        logprobs["top_logprobs"]![0].ShouldBeNull();
        logprobs["top_logprobs"]!.AsArray().Skip(1).ShouldAllBe(entry => entry!.AsObject().Count == 2);
        foreach (var list in new[] { "text_offset", "token_logprobs", "tokens", "top_logprobs" })
            string.Join(',', events[..^1].SelectMany(chunk => JsonNode.Parse(chunk)!["choices"]![0]!["logprobs"]![list]!.AsArray()).Select(Json))
                .ShouldBe(string.Join(',', logprobs[list]!.AsArray().Select(Json)));
    }

    [Theory]
    [InlineData(Chat, """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":1,"prompt_logprobs":2}""")]
    [InlineData(Completions, """{"prompt":"the of and","max_tokens":1,"prompt_logprobs":2}""")]
    public async Task Tokens_of_the_prompt_are_told_by_id_and_rank(string path, string request)
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (_, body) = await simulator.SendAsync(path, request);
        var list = (body["prompt_logprobs"] ?? body["choices"]![0]!["prompt_logprobs"])!.AsArray();
        var (_, back) = await simulator.SendAsync("/detokenize", $$"""{"tokens":[{{list[1]!.AsObject().First().Key}}]}""");

        list.Count.ShouldBe((int)body["usage"]!["prompt_tokens"]!);
        list[0].ShouldBeNull();
        list[1]!.AsObject().Select(entry => (int)entry.Value!["rank"]!).ShouldBe([1, 2]);
        var first = list[1]!.AsObject().First().Value!;
        first.AsObject().Select(member => member.Key).ShouldBe(["logprob", "rank", "decoded_token"]);
        ((string?)first["decoded_token"]).ShouldBe((string?)back["prompt"]);
    }

    [Fact]
    public async Task Responses_tell_of_tokens_when_it_is_among_what_they_include()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        const string Request = """{"input":"Hello","max_output_tokens":3,"include":["message.output_text.logprobs"],"top_logprobs":2,"stream":false}""";

        var (_, body) = await simulator.SendAsync("/v1/responses", Request);
        var events = await simulator.EventsAsync("/v1/responses", Request.Replace("false", "true", StringComparison.Ordinal));

        ((int)body["top_logprobs"]!).ShouldBe(2);
        var part = body["output"]![0]!["content"]![0]!;
        part["logprobs"]!.AsArray().Count.ShouldBe(3);
        string.Concat(part["logprobs"]!.AsArray().Select(token => (string?)token!["token"])).ShouldBe((string?)part["text"]);
        events.Where(entry => entry.Name == "response.output_text.delta").Select(entry => JsonNode.Parse(entry.Data)!["logprobs"]![0]!)
            .ShouldAllBe(token => string.Join(',', token.AsObject().Select(member => member.Key)) == "token,logprob,top_logprobs");
    }

    [Theory]
    [InlineData(Chat, """{"messages":[],"top_logprobs":2}""", "top_logprobs")]
    [InlineData(Chat, """{"messages":[],"logprobs":true,"top_logprobs":-2}""", "top_logprobs")]
    [InlineData(Chat, """{"messages":[],"logprobs":true,"top_logprobs":21}""", "logprobs")]
    [InlineData(Chat, """{"messages":[],"logprobs":true,"top_logprobs":-1}""", "logprobs")]
    [InlineData(Chat, """{"messages":[],"prompt_logprobs":1,"stream":true}""", "prompt_logprobs")]
    [InlineData(Completions, """{"prompt":"a","logprobs":21}""", "logprobs")]
    [InlineData(Completions, """{"prompt":"a","logprobs":-2}""", "logprobs")]
    [InlineData(Completions, """{"prompt":"a","prompt_logprobs":21}""", "prompt_logprobs")]
    public async Task What_cannot_be_told_is_refused(string path, string body, string parameter)
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (status, json) = await simulator.SendAsync(path, body);

        status.ShouldBe(400);
        ((string?)json["error"]!["type"]).ShouldBe("BadRequestError");
        ((string?)json["error"]!["param"]).ShouldBe(parameter);
    }

    [Fact]
    public async Task The_server_may_allow_more()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--max-logprobs", "-1");

        var (status, body) = await simulator.SendAsync(Chat, """{"messages":[],"logprobs":true,"top_logprobs":-1,"max_tokens":1}""");

        status.ShouldBe(200);
        body["choices"]![0]!["logprobs"]!["content"]![0]!["top_logprobs"]!.AsArray().Count.ShouldBeGreaterThan(100);
    }

    private static string[] Strings(JsonNode list) => [.. list.AsArray().Select(value => (string)value!)];

    private static string Json(JsonNode? node) => node?.ToJsonString() ?? "null";
}
