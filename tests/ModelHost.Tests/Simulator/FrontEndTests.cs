using System.Net;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

/// <summary>Flags and variables of the front end that change what is answered, and the members of answers that no other test looks at.</summary>
public sealed class FrontEndTests
{
    private const string Chat = "/v1/chat/completions";

    private const string Hello = """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":6,"ignore_eos":true}""";

    private static readonly string Stream = Hello.Replace("}]", "}],\"stream\":true", StringComparison.Ordinal);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("m", "/v1/completions", """{"prompt":"a","max_tokens":1}""", "id,object,created,model,choices,service_tier,system_fingerprint,usage,kv_transfer_params", "cmpl-")]
    [InlineData("BAAI/bge-m3", "/v1/embeddings", """{"input":"a"}""", "id,object,created,model,data,usage", "embd-")]
    [InlineData("m", "/tokenize", """{"prompt":"a"}""", "count,max_model_len,tokens,token_strs", null)]
    [InlineData("m", "/detokenize", """{"tokens":[]}""", "prompt", null)]
    public async Task Answers_have_the_members_that_are_published(string model, string path, string body, string members, string? idBegins)
    {
        await using var simulator = await RunningSimulator.StartAsync(model);

        var (status, answer) = await simulator.SendAsync(path, body);

        status.ShouldBe(200);
        string.Join(',', answer.AsObject().Select(member => member.Key)).ShouldBe(members);
        if (idBegins is not null)
            ((string)answer["id"]!).ShouldStartWith(idBegins);
    }

    [Fact]
    public async Task Choices_of_completions_and_entries_of_embeddings_have_the_members_that_are_published()
    {
        await using var generating = await RunningSimulator.StartAsync("m");
        await using var embedding = await RunningSimulator.StartAsync("BAAI/bge-m3");

        var choice = (await generating.SendAsync("/v1/completions", """{"prompt":"a","max_tokens":1}""")).Body["choices"]![0]!;
        var entry = (await embedding.SendAsync("/v1/embeddings", """{"input":"a"}""")).Body["data"]![0]!;
        var tokens = (await generating.SendAsync("/tokenize", """{"prompt":"a b","return_token_strs":true}""")).Body;

        string.Join(',', choice.AsObject().Select(member => member.Key)).ShouldBe("index,text,logprobs,finish_reason,stop_reason,prompt_logprobs,prompt_token_ids,token_ids");
        string.Join(',', entry.AsObject().Select(member => member.Key)).ShouldBe("index,object,embedding");
        tokens["token_strs"]!.AsArray().Count.ShouldBe((int)tokens["count"]!);
    }

    [Theory]
    [InlineData("GET", "/health", 200, "")]
    [InlineData("GET", "/ping", 200, "")]
    [InlineData("POST", "/ping", 200, "")]
    [InlineData("GET", "/version", 200, """{"version":"0.28.0"}""")]
    [InlineData("GET", "/load", 200, """{"server_load":0}""")]
    [InlineData("OPTIONS", "/v1/models", 405, """{"error":{"message":"Method Not Allowed","type":"Method Not Allowed","param":null,"code":405}}""")]
    [InlineData("GET", "/v1/models", 401, """{"error":"Unauthorized"}""")]
    public async Task Small_routes_answer_without_a_key_and_preflights_pass_it_by(string method, string path, int status, string body)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--api-key", "hush");
        using var request = new HttpRequestMessage(new(method), path);

        using var response = await simulator.Http.SendAsync(request, Ct);

        ((int)response.StatusCode).ShouldBe(status);
        (await response.Content.ReadAsStringAsync(Ct)).ShouldBe(body);
    }

    [Fact]
    public async Task Cards_are_made_anew_by_every_call_and_series_have_the_first_name()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--served-model-name", "a", "b");

        var first = JsonNode.Parse(await simulator.Http.GetStringAsync("/v1/models", Ct))!["data"]!.AsArray();
        var second = JsonNode.Parse(await simulator.Http.GetStringAsync("/v1/models", Ct))!["data"]!.AsArray();

        first.Select(card => (string?)card!["id"]).ShouldBe(["a", "b"]);
        first.Concat(second).Select(card => (string?)card!["permission"]![0]!["id"]).ShouldBeUnique();
        (await simulator.MetricAsync("vllm:num_requests_running{engine=\"0\",model_name=\"a\"}")).ShouldBe(0);
    }

    [Theory]
    [InlineData(true, 1)]
    [InlineData(false, 0)]
    public async Task Load_is_counted_only_with_its_flag(bool tracks, int load)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_HANG"] = "request" }, ["m", .. tracks ? ["--enable-server-load-tracking"] : Array.Empty<string>()]);
        using var response = await simulator.PostAsync(Chat, Stream, HttpCompletionOption.ResponseHeadersRead, Ct);

        (await simulator.Http.GetStringAsync("/load", Ct)).ShouldBe($"{{\"server_load\":{load}}}");
    }

    [Theory]
    [InlineData("/proxy/health")]
    [InlineData("/health")]
    public async Task A_root_path_is_taken_off_before_the_route_and_the_key_are_looked_at(string open)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--root-path", "/proxy", "--api-key", "hush");

        (await simulator.Http.GetAsync(open, Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
        (await simulator.Http.GetAsync("/proxy/v1/models", Ct)).StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
    }

    [Fact]
    public async Task Tokens_are_streamed_in_groups_of_the_interval()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--stream-interval", "3");

        var events = await simulator.StreamAsync(Chat, Stream);

        // the role, the first token at once, then by threes: tokens 2 to 4, and 5 and 6 with the end
        events.Length.ShouldBe(1 + 1 + 2 + 1);
        string.Concat(events[..^1].Select(chunk => (string?)JsonNode.Parse(chunk)!["choices"]![0]!["delta"]!["content"]))
            .ShouldBe((string?)(await simulator.SendAsync(Chat, Hello)).Body["choices"]![0]!["message"]!["content"]);
    }

    [Fact]
    public async Task Usage_can_be_forced_on_every_chunk()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--enable-force-include-usage");

        var events = await simulator.StreamAsync(Chat, Stream);

        events[..^1].ShouldAllBe(chunk => JsonNode.Parse(chunk)!["usage"]!["prompt_tokens"] != null);
        JsonNode.Parse(events[^2])!["choices"]!.AsArray().ShouldBeEmpty();
    }

    [Fact]
    public async Task A_request_id_is_echoed_or_made_up_only_with_its_flag()
    {
        await using var silent = await RunningSimulator.StartAsync("m");
        await using var echoing = await RunningSimulator.StartAsync("m", "--enable-request-id-headers");
        using var named = new HttpRequestMessage(HttpMethod.Get, "/version") { Headers = { { "X-Request-Id", "mine" } } };

        (await silent.Http.GetAsync("/version", Ct)).Headers.Contains("X-Request-Id").ShouldBeFalse();
        (await echoing.Http.GetAsync("/version", Ct)).Headers.GetValues("X-Request-Id").ShouldHaveSingleItem().ShouldNotBeEmpty();
        (await echoing.Http.SendAsync(named, Ct)).Headers.GetValues("X-Request-Id").ShouldBe(["mine"]);
    }

    [Fact]
    public async Task The_role_and_the_fingerprint_follow_their_flags()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--response-role", "narrator", "--fingerprint-mode", "none");

        var (_, body) = await simulator.SendAsync(Chat, Hello);

        ((string?)body["choices"]![0]!["message"]!["role"]).ShouldBe("narrator");
        body["system_fingerprint"].ShouldBeNull();
    }

    [Theory]
    [InlineData("--disable-uvicorn-access-log")]
    [InlineData("--uvicorn-log-level=warning")]
    public async Task Access_lines_can_be_switched_off(string flag)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", flag);
        await simulator.Http.GetAsync("/version", Ct);

        await simulator.StopAsync();

        simulator.Output.ShouldNotContain("GET /version");
    }

    [Fact]
    public async Task Variables_let_any_name_and_a_longer_context_pass()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SKIP_MODEL_NAME_VALIDATION"] = "1", ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1" }, "Qwen/Qwen3-0.6B", "--max-model-len", "1M");

        var (status, body) = await simulator.SendAsync(Chat, Hello.Replace("{\"mess", "{\"model\":\"other\",\"mess", StringComparison.Ordinal));

        status.ShouldBe(200);
        ((string?)body["model"]).ShouldBe("Qwen/Qwen3-0.6B");
        ((int)JsonNode.Parse(await simulator.Http.GetStringAsync("/v1/models", Ct))!["data"]![0]!["max_model_len"]!).ShouldBe(1_048_576);
    }

    [Fact]
    public async Task Throughput_is_logged_while_something_happens_and_once_more()
    {
        const string Nothing = "Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 0.0 tokens/s, ";
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_LOG_STATS_INTERVAL"] = "0.2" }, "m");
        await simulator.SendAsync(Chat, Hello);
        // a request may lie in more than one period
        await Deadline.UntilAsync(() => Lines() is [.., var last] lines && last.Contains(Nothing, StringComparison.Ordinal) && lines.Any(line => !line.Contains("Avg generation throughput: 0.0", StringComparison.Ordinal)));
        var before = Lines();

        // some periods without a line
        await Task.Delay(1000, Ct);

        var lines = Lines();
        lines.ShouldBe(before);
        lines.ShouldContain(line => Regex.IsMatch(line, @"Engine 000: Avg prompt throughput: [1-9]\d*\.\d tokens/s, Avg generation throughput: \d+\.\d tokens/s, " +
            @"Running: [01] reqs, Waiting: 0 reqs, GPU KV cache usage: \d+\.\d%, Prefix cache hit rate: 0\.0%$"));

        string[] Lines() => [.. simulator.Output.Split('\n').Where(line => line.Contains("Avg prompt throughput", StringComparison.Ordinal))];
    }
}
