using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace ModelHost.Tests.Simulator;

public sealed partial class ToolTests
{
    private const string Chat = "/v1/chat/completions";

    private const string Weather = """
        "messages":[{"role":"user","content":"Hello"}],"tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object",
        "properties":{"city":{"type":"string"},"days":{"type":"integer"}}}}}]
        """;

    private const string Head = """{"id":"ID","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,"delta":{""";

    [Theory]
    [InlineData("", "tool_calls", null)]
    [InlineData(",\"tool_choice\":\"auto\"", "tool_calls", null)]
    [InlineData(",\"tool_choice\":\"required\"", "tool_calls", "")]
    [InlineData(",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"weather\"}}", "stop", "")]
    public async Task A_call_ends_as_its_choice_says(string choice, string finish, string? content)
    {
        await using var simulator = await StartAsync();

        var answer = (await simulator.SendAsync(Chat, $"{{{Weather}{choice}}}")).Body["choices"]![0]!;

        ((string?)answer["finish_reason"]).ShouldBe(finish);
        ((string?)answer["message"]!["content"]).ShouldBe(content);
        var call = answer["message"]!["tool_calls"]![0]!;
        ((string?)call["id"])!.ShouldStartWith("chatcmpl-tool-");
        ((string?)call["type"]).ShouldBe("function");
        call["function"]!.ToJsonString().ShouldBe("""{"name":"weather","arguments":"{\u0022city\u0022:\u0022value\u0022,\u0022days\u0022:1}"}""");
    }

    [Fact]
    public async Task Arguments_are_streamed_in_fragments_after_the_name()
    {
        await using var simulator = await StartAsync();

        var events = await simulator.StreamAsync(Chat, $"{{{Weather},\"stream\":true}}");

        events[..4].Select(Masked).ShouldBe(
        [
            Head + "\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":null,\"prompt_text\":null}",
            Head + "\"tool_calls\":[{\"id\":\"ID\",\"type\":\"function\",\"index\":0,\"function\":{\"name\":\"weather\"}}]},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}",
            Head + "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"city\"}}]},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}",
            Head + "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\":\\\"val\"}}]},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}",
        ]);
        events[^2].ShouldContain("\"finish_reason\":\"tool_calls\"");
        string.Concat(events[2..^1].Select(chunk => (string?)JsonNode.Parse(chunk)!["choices"]![0]!["delta"]!["tool_calls"]?[0]!["function"]!["arguments"]))
            .ShouldBe("""{"city":"value","days":1}""");
    }

    [Theory]
    [InlineData("", 2)]
    [InlineData(",\"parallel_tool_calls\":true", 2)]
    [InlineData(",\"parallel_tool_calls\":false", 1)]
    [InlineData(",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"weather\"}}", 1)]
    public async Task Several_calls_are_counted_by_their_index(string member, int calls)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_TOOL_CALLS"] = "2" }, "m", "--enable-auto-tool-choice", "--tool-call-parser", "hermes");

        var whole = (await simulator.SendAsync(Chat, $"{{{Weather}{member}}}")).Body["choices"]![0]!["message"]!["tool_calls"]!.AsArray();
        var events = await simulator.StreamAsync(Chat, $"{{{Weather}{member},\"stream\":true}}");

        whole.Select(call => (string?)call!["function"]!["arguments"]).ShouldBe(Enumerable.Repeat("""{"city":"value","days":1}""", calls));
        whole.Select(call => (string?)call!["id"]).Distinct().Count().ShouldBe(calls);
        var deltas = events[1..^1].Select(chunk => JsonNode.Parse(chunk)!["choices"]![0]!["delta"]!["tool_calls"]?[0]).OfType<JsonNode>().ToArray();
        deltas.Where(delta => delta["id"] is not null).Select(delta => (int)delta["index"]!).ShouldBe(Enumerable.Range(0, calls));
        for (var index = 0; index < calls; index++)
            string.Concat(deltas.Where(delta => (int)delta["index"]! == index).Select(delta => (string?)delta["function"]!["arguments"]))
                .ShouldBe("""{"city":"value","days":1}""");
    }

    [Theory]
    [InlineData("\"tool_choice\":\"none\",")]
    [InlineData("\"x\":1,", "tool")]
    public async Task Otherwise_the_model_answers_in_text(string choice, string role = "user")
    {
        await using var simulator = await StartAsync();

        var answer = (await simulator.SendAsync(Chat, $"{{{choice}{Weather.Replace("user", role, StringComparison.Ordinal)}}}")).Body["choices"]![0]!;

        ((string?)answer["finish_reason"]).ShouldBe("stop");
        answer["message"]!["tool_calls"].ShouldBeNull();
        ((string?)answer["message"]!["content"]).ShouldNotBeNullOrEmpty();
    }

    [Theory]
    [InlineData("""{"messages":[],"tool_choice":"required"}""", "When using `tool_choice`, `tools` must be set.")]
    [InlineData("""{"messages":[],"tools":[{"function":{"name":"a"}}],"tool_choice":{"function":{"name":"b"}}}""", "does not match any of the specified `tools`")]
    [InlineData("""{"messages":[],"tools":[{"function":{"name":"a"}}],"tool_choice":"often"}""", "Invalid value for `tool_choice`")]
    public async Task A_choice_that_cannot_be_made_is_refused(string body, string message)
    {
        await using var simulator = await StartAsync();

        var (status, json) = await simulator.SendAsync(Chat, body);

        status.ShouldBe(400);
        ((string?)json["error"]!["message"])!.ShouldContain(message);
    }

    [Theory]
    [InlineData("0.28.0", "reasoning")]
    [InlineData("0.14.0", "reasoning,reasoning_content")]
    [InlineData("0.11.0", "reasoning_content")]
    public async Task Reasoning_has_the_name_of_its_release(string version, string names)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_VERSION"] = version }, "m", "--reasoning-parser", "qwen3");
        const string Body = """{"messages":[{"role":"user","content":"Hello"}],"stream":false}""";

        var message = (await simulator.SendAsync(Chat, Body)).Body["choices"]![0]!["message"]!;
        var events = await simulator.StreamAsync(Chat, Body.Replace("false", "true", StringComparison.Ordinal));

        var deltas = events[1..^1].Select(chunk => JsonNode.Parse(chunk)!["choices"]![0]!["delta"]!).ToArray();
        string.Join(',', deltas[0].AsObject().Select(member => member.Key)).ShouldBe(names);
        foreach (var name in names.Split(','))
            string.Concat(deltas.Select(delta => (string?)delta[name])).ShouldBe((string)message[name]!);
        string.Concat(deltas.Select(delta => (string?)delta["content"])).ShouldBe((string)message["content"]!);
    }

    [Fact]
    public async Task Reasoning_is_withheld_on_request()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--reasoning-parser", "qwen3");

        var events = await simulator.StreamAsync(Chat, """{"messages":[],"include_reasoning":false,"stream":true}""");

        events.ShouldAllBe(chunk => !chunk.Contains("\"reasoning\"", StringComparison.Ordinal));
    }

    private static Task<RunningSimulator> StartAsync() => RunningSimulator.StartAsync("m", "--enable-auto-tool-choice", "--tool-call-parser", "hermes");

    private static string Masked(string json) => Created().Replace(Ids().Replace(json, "\"ID\""), "\"created\":0");

    [GeneratedRegex("\"chatcmpl-[^\"]+\"")]
    private static partial Regex Ids();

    [GeneratedRegex("\"created\":\\d{10}")]
    private static partial Regex Created();
}
