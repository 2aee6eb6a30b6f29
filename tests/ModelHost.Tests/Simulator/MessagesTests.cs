using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace ModelHost.Tests.Simulator;

public sealed partial class MessagesTests
{
    private const string Messages = "/v1/messages";

    private const string Hello = """{"model":"m","max_tokens":3,"messages":[{"role":"user","content":"Hello"}],"stream":false}""";

    private const string Weather = """
        {"model":"m","max_tokens":100,"messages":[{"role":"user","content":[{"type":"text","text":"Hello"}]}],"stream":false,"tool_choice":{"type":"auto"},
        "tools":[{"name":"weather","input_schema":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}}}}]}
        """;

    [Fact]
    public async Task A_whole_message_leaves_out_what_nobody_set()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (status, body) = await simulator.SendAsync(Messages, Hello);

        status.ShouldBe(200);
        Masked(body.ToJsonString()).ShouldBe("""
            {"id":"chatcmpl-ID","type":"message","role":"assistant","content":[{"type":"text","text":"TEXT"}],"model":"m","stop_reason":"max_tokens","usage":{"input_tokens":10,"output_tokens":3}}
            """.Trim());
    }

    [Fact]
    public async Task A_stream_has_the_events_of_one_block_in_order()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var events = await simulator.EventsAsync(Messages, Hello.Replace("false", "true", StringComparison.Ordinal).Replace(":3", ":2", StringComparison.Ordinal));

        events.Select(entry => (entry.Name, Masked(entry.Data))).ShouldBe(
        [
            ("message_start", """{"type":"message_start","message":{"id":"chatcmpl-ID","content":[],"model":"m","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":0}}}"""),
            ("content_block_start", """{"type":"content_block_start","content_block":{"type":"text","text":""},"index":0}"""),
            ("content_block_delta", """{"type":"content_block_delta","delta":{"type":"text_delta","text":"TEXT"},"index":0}"""),
            ("content_block_delta", """{"type":"content_block_delta","delta":{"type":"text_delta","text":"TEXT"},"index":0}"""),
            ("content_block_stop", """{"type":"content_block_stop","index":0}"""),
            ("message_delta", """{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"input_tokens":10,"output_tokens":2}}"""),
            ("message_stop", """{"type":"message_stop"}"""),
        ]);
    }

    [Fact]
    public async Task Thinking_is_a_signed_block_before_the_text()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--reasoning-parser", "qwen3");

        var whole = (await simulator.SendAsync(Messages, Hello)).Body["content"]!;
        var events = await simulator.EventsAsync(Messages, Hello.Replace("false", "true", StringComparison.Ordinal));

        whole.AsArray().Select(block => string.Join(',', block!.AsObject().Select(member => member.Key))).ShouldBe(["type,thinking,signature", "type,text"]);
        events.Where(entry => entry.Name is "content_block_start" or "content_block_stop").Select(entry => Masked(entry.Data)).ShouldBe(
        [
            """{"type":"content_block_start","content_block":{"type":"thinking","thinking":""},"index":0}""",
            """{"type":"content_block_stop","index":0}""",
            """{"type":"content_block_start","content_block":{"type":"text","text":""},"index":1}""",
            """{"type":"content_block_stop","index":1}""",
        ]);
        var deltas = events.Where(entry => entry.Name == "content_block_delta").Select(entry => JsonNode.Parse(entry.Data)!["delta"]!).ToArray();
        deltas.Select(delta => (string?)delta["type"]).Distinct().ShouldBe(["thinking_delta", "signature_delta", "text_delta"]);
        string.Concat(deltas.Select(delta => (string?)delta["thinking"])).ShouldBe((string?)whole[0]!["thinking"]);
        string.Concat(deltas.Select(delta => (string?)delta["text"])).ShouldBe((string?)whole[1]!["text"]);
    }

    [Fact]
    public async Task A_tool_is_used_with_its_input_whole_and_in_pieces()
    {
        await using var simulator = await StartWithToolsAsync("2");

        var (_, body) = await simulator.SendAsync(Messages, Weather);
        var events = await simulator.EventsAsync(Messages, Weather.Replace("false", "true", StringComparison.Ordinal));

        ((string?)body["stop_reason"]).ShouldBe("tool_use");
        body["content"]!.AsArray().Count.ShouldBe(2);
        body["content"]![0]!.AsObject().Select(member => member.Key).ShouldBe(["type", "id", "name", "input"]);
        body["content"]![0]!["input"]!.ToJsonString().ShouldBe("""{"city":"value","days":1}""");
        events.Where(entry => entry.Name == "content_block_start").Select(entry => JsonNode.Parse(entry.Data)!)
            .Select(start => ((int)start["index"]!, (string?)start["content_block"]!["name"], start["content_block"]!["input"]!.ToJsonString()))
            .ShouldBe([(0, "weather", "{}"), (1, "weather", "{}")]);
        string.Concat(events.Where(entry => entry.Name == "content_block_delta").Select(entry => JsonNode.Parse(entry.Data)!)
            .Where(delta => (int)delta["index"]! == 1).Select(delta => (string?)delta["delta"]!["partial_json"])).ShouldBe("""{"city":"value","days":1}""");
        ((string?)JsonNode.Parse(events[^2].Data)!["delta"]!["stop_reason"]).ShouldBe("tool_use");
    }

    [Fact]
    public async Task A_tool_result_is_answered_in_text()
    {
        await using var simulator = await StartWithToolsAsync("1");

        var (_, body) = await simulator.SendAsync(Messages, Weather.Replace("[{\"type\":\"text\",\"text\":\"Hello\"}]",
            """[{"type":"tool_result","tool_use_id":"x","content":[{"type":"text","text":"sunny"}]}]""", StringComparison.Ordinal));

        ((string?)body["stop_reason"]).ShouldBe("end_turn");
        ((string?)body["content"]![0]!["type"]).ShouldBe("text");
    }

    [Fact]
    public async Task Tokens_are_counted_as_the_answer_counts_them()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (status, body) = await simulator.SendAsync("/v1/messages/count_tokens", """{"model":"m","system":"Be brief.","messages":[{"role":"user","content":"Hello"}]}""");
        var (_, message) = await simulator.SendAsync(Messages, Hello.Replace("\"stream\"", "\"system\":\"Be brief.\",\"stream\"", StringComparison.Ordinal));

        status.ShouldBe(200);
        var tokens = (int)message["usage"]!["input_tokens"]!;
        body.ToJsonString().ShouldBe($$$"""{"input_tokens":{{{tokens}}},"context_management":{"original_input_tokens":{{{tokens}}}}}""");
        (await simulator.MetricAsync("vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"m\"}")).ShouldBe(1);
    }

    [Theory]
    [InlineData("""{"model":"other","max_tokens":3,"messages":[]}""", 404, """{"type":"error","error":{"type":"NotFoundError","message":"The model `other` does not exist."}}""")]
    [InlineData("""{"model":"m","max_tokens":99999,"messages":[]}""", 400, """{"type":"error","error":{"type":"BadRequestError",""")]
    [InlineData("""{"model":"m","max_tokens":3,"messages":[],"tools":[{"name":"a","input_schema":{}}]}""", 400, "requires --enable-auto-tool-choice")]
    [InlineData("""{"model":"m","messages":[]}""", 400, "\"param\":\"body.max_tokens\"")]
    [InlineData("""{"model":"m","max_tokens":0,"messages":[]}""", 400, "\"param\":\"body.max_tokens\"")]
    [InlineData("""{"max_tokens":3,"messages":[]}""", 400, "\"param\":\"body.model\"")]
    [InlineData("""{"model":"m","max_tokens":3}""", 400, "\"param\":\"body.messages\"")]
    [InlineData("""{"model":"m","max_tokens":3,"messages":[{"role":"tool","content":"x"}]}""", 400, "\"param\":\"body.messages.0.role\"")]
    [InlineData("""{"model":"m","max_tokens":3,"messages":[{"role":"user","content":[{"type":"film"}]}]}""", 400, "\"param\":\"body.messages.0.content.type\"")]
    [InlineData("""{"model":"m","max_tokens":3,"messages":[],"tool_choice":{"type":"tool"}}""", 400, "\"param\":\"body.tool_choice\"")]
    public async Task What_the_api_refuses_has_its_error_and_a_wrong_shape_the_common_one(string request, int status, string part)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--max-model-len", "64");

        using var response = await simulator.PostAsync(Messages, request);

        ((int)response.StatusCode).ShouldBe(status);
        (await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)).ShouldContain(part);
    }

    [Fact]
    public async Task An_engine_failure_ends_a_stream_with_an_error_event()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_REQUEST_FAIL"] = "error", ["VLLM_SIM_REQUEST_FAIL_AFTER"] = "1" }, "m");

        var events = await simulator.EventsAsync(Messages, Hello.Replace("false", "true", StringComparison.Ordinal));
        var (status, whole) = await simulator.SendAsync(Messages, Hello);

        events[^1].ShouldBe(("error", """{"type":"error","error":{"type":"internal_error","message":"Internal server error"}}"""));
        status.ShouldBe(500);
        whole.ToJsonString().ShouldBe("""{"type":"error","error":{"type":"InternalServerError","message":"Internal server error"}}""");
    }

    private static Task<RunningSimulator> StartWithToolsAsync(string calls) => RunningSimulator.StartWithAsync(
        new() { ["VLLM_SIM_TOOL_CALLS"] = calls }, "m", "--enable-auto-tool-choice", "--tool-call-parser", "hermes");

    private static string Masked(string json) => Texts().Replace(Ids().Replace(json, "\"chatcmpl-ID\""), "\"text\":\"TEXT\"");

    [GeneratedRegex("\"chatcmpl-[0-9a-f]{32}\"")]
    private static partial Regex Ids();

    [GeneratedRegex("\"text\":\"[^\"]+\"")]
    private static partial Regex Texts();
}
