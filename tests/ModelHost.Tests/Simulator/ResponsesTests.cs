using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

public sealed class ResponsesTests
{
    private const string Responses = "/v1/responses";

    private const string Hello = """{"input":"Hello","max_output_tokens":2,"stream":false}""";

    private const string Weather = """
        {"input":[{"role":"user","content":[{"type":"input_text","text":"Hello"}]}],"stream":false,
        "tools":[{"type":"function","name":"weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}]}
        """;

    private static readonly Dictionary<string, string> Storing = new() { ["VLLM_ENABLE_RESPONSES_API_STORE"] = "1" };

    [Fact]
    public async Task A_whole_response_has_every_member_and_says_again_what_was_asked()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--served-model-name", "first");

        var (status, body) = await simulator.SendAsync(Responses, """{"input":"Hello","instructions":"Be brief.","metadata":{"k":"v"},"temperature":0.5,"max_output_tokens":2}""");

        status.ShouldBe(200);
        body.AsObject().Select(member => member.Key).ShouldBe(
        [
            "id", "created_at", "incomplete_details", "instructions", "metadata", "model", "object", "output", "parallel_tool_calls", "temperature",
            "tool_choice", "tools", "top_p", "background", "max_output_tokens", "max_tool_calls", "previous_response_id", "prompt", "reasoning",
            "service_tier", "status", "text", "top_logprobs", "truncation", "usage", "user", "input_messages", "output_messages", "kv_transfer_params",
        ]);
        ((string)body["id"]!).ShouldStartWith("resp_");
        ((string?)body["object"]).ShouldBe("response");
        ((string?)body["model"]).ShouldBe("first");
        ((string?)body["instructions"]).ShouldBe("Be brief.");
        body["metadata"]!.ToJsonString().ShouldBe("""{"k":"v"}""");
        ((double)body["temperature"]!).ShouldBe(0.5);
        ((string?)body["status"]).ShouldBe("incomplete");
        body["incomplete_details"]!.ToJsonString().ShouldBe("""{"reason":"max_output_tokens"}""");
        body["output"]![0]!.AsObject().Select(member => member.Key).ShouldBe(["id", "content", "role", "status", "type"]);
        body["output"]![0]!["content"]![0]!.AsObject().Select(member => member.Key).ShouldBe(["annotations", "text", "type", "logprobs"]);
        ((int)body["usage"]!["output_tokens"]!).ShouldBe(2);
        ((int)body["usage"]!["total_tokens"]!).ShouldBe((int)body["usage"]!["input_tokens"]! + 2);
        (await simulator.MetricAsync("http_requests_total{handler=\"/v1/responses\",method=\"POST\",status=\"2xx\"}")).ShouldBe(1);
    }

    [Fact]
    public async Task A_text_stream_has_its_events_in_order_and_numbered()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var events = await simulator.EventsAsync(Responses, Hello.Replace("false", "true", StringComparison.Ordinal));

        events.Select(entry => entry.Name).ShouldBe(
        [
            "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added", "response.output_text.delta",
            "response.output_text.delta", "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
        ]);
        var data = events.Select(entry => JsonNode.Parse(entry.Data)!).ToArray();
        data.Select(entry => (string?)entry["type"]).ShouldBe(events.Select(entry => entry.Name));
        data.Select(entry => (int)entry["sequence_number"]!).ShouldBe(Enumerable.Range(0, events.Length));
        data[0]["response"]!["status"]!.GetValue<string>().ShouldBe("in_progress");
        data[0]["response"]!["output"]!.AsArray().ShouldBeEmpty();
        var text = string.Concat(data.Select(entry => (string?)entry["delta"]));
        ((string?)data[6]["text"]).ShouldBe(text);
        ((string?)data[8]["item"]!["content"]![0]!["text"]).ShouldBe(text);
        ((string?)data[9]["response"]!["output"]![0]!["content"]![0]!["text"]).ShouldBe(text);
        data[2..9].Select(entry => (string?)entry["item_id"] ?? (string?)entry["item"]!["id"]).Distinct().Count().ShouldBe(1);
    }

    [Fact]
    public async Task Function_calls_and_reasoning_are_items_of_their_own()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_TOOL_CALLS"] = "2" }, "m", "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3");

        var output = (await simulator.SendAsync(Responses, Weather)).Body["output"]!.AsArray();
        var events = await simulator.EventsAsync(Responses, Weather.Replace("false", "true", StringComparison.Ordinal));

        output.Select(item => (string?)item!["type"]).ShouldBe(["reasoning", "function_call", "function_call"]);
        ((string?)output[1]!["arguments"]).ShouldBe("""{"city":"value"}""");
        ((string)output[1]!["call_id"]!).ShouldStartWith("call_");
        events.Select(entry => entry.Name).Distinct().ShouldBe(
        [
            "response.created", "response.in_progress", "response.output_item.added", "response.reasoning_part.added", "response.reasoning_text.delta",
            "response.reasoning_text.done", "response.reasoning_part.done", "response.output_item.done", "response.function_call_arguments.delta",
            "response.function_call_arguments.done", "response.completed",
        ]);
        var items = events.Where(entry => entry.Name == "response.output_item.done").Select(entry => JsonNode.Parse(entry.Data)!).ToArray();
        items.Select(entry => (int)entry["output_index"]!).ShouldBe([0, 1, 2]);
        ((string?)items[2]["item"]!["arguments"]).ShouldBe("""{"city":"value"}""");
        ((string?)items[2]["item"]!["name"]).ShouldBe("weather");
    }

    [Fact]
    public async Task Without_a_parser_tools_are_answered_in_text_and_are_no_error()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (status, body) = await simulator.SendAsync(Responses, Weather);
        var (_, required) = await simulator.SendAsync(Responses, Weather.Replace("\"stream\"", "\"tool_choice\":\"required\",\"stream\"", StringComparison.Ordinal));

        status.ShouldBe(200);
        ((string?)body["output"]![0]!["type"]).ShouldBe("message");
        ((string?)required["output"]![0]!["type"]).ShouldBe("function_call");
    }

    [Fact]
    public async Task Responses_are_kept_only_with_the_variable()
    {
        await using var forgetful = await RunningSimulator.StartAsync("m");
        await using var storing = await RunningSimulator.StartWithAsync(Storing, "m");

        var forgotten = (string)(await forgetful.SendAsync(Responses, Hello)).Body["id"]!;
        var (_, kept) = await storing.SendAsync(Responses, Hello);
        var streamed = JsonNode.Parse((await storing.EventsAsync(Responses, Hello.Replace("false", "true", StringComparison.Ordinal)))[^1].Data)!["response"]!;
        var unstored = (string)(await storing.SendAsync(Responses, Hello.Replace("{", "{\"store\":false,", StringComparison.Ordinal))).Body["id"]!;

        (await ReadAsync(storing, (string)kept["id"]!)).ShouldBe((200, kept.ToJsonString()));
        (await ReadAsync(storing, (string)streamed["id"]!)).ShouldBe((200, streamed.ToJsonString()));
        (await ReadAsync(storing, unstored)).Status.ShouldBe(404);
        (await ReadAsync(forgetful, forgotten)).ShouldBe((404, new JsonObject
        {
            ["error"] = new JsonObject
            {
                ["message"] = $"Response with id '{forgotten}' not found.",
                ["type"] = "invalid_request_error",
                ["param"] = "response_id",
                ["code"] = 404,
            },
        }.ToJsonString()));
        (await storing.MetricsAsync()).ShouldContain(line => line.StartsWith("http_requests_total{handler=\"/v1/responses/{response_id}\"", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_response_goes_on_from_the_one_before()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Storing, "m");
        var (_, first) = await simulator.SendAsync(Responses, """{"input":"Hello","max_output_tokens":2}""");

        var (status, second) = await simulator.SendAsync(Responses, $$"""{"input":"And then?","previous_response_id":"{{first["id"]}}","max_output_tokens":2}""");
        var missing = await simulator.SendAsync(Responses, """{"input":"And then?","previous_response_id":"resp_x"}""");

        status.ShouldBe(200);
        ((string?)second["previous_response_id"]).ShouldBe((string?)first["id"]);
        ((int)second["usage"]!["input_tokens"]!).ShouldBeGreaterThan((int)first["usage"]!["input_tokens"]! + 2);
        missing.Status.ShouldBe(404);
        ((string?)missing.Body["error"]!["type"]).ShouldBe("invalid_request_error");
    }

    [Fact]
    public async Task A_background_response_is_queued_and_completes_by_itself()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Storing, "m");

        var (status, queued) = await simulator.SendAsync(Responses, """{"input":"Hello","background":true}""");

        status.ShouldBe(200);
        ((string?)queued["status"]).ShouldBe("queued");
        queued["output"]!.AsArray().ShouldBeEmpty();
        var done = await Deadline.UntilAsync(() => ReadAsync(simulator, (string)queued["id"]!), answer => answer.Body.Contains("\"status\":\"completed\",\"text\"", StringComparison.Ordinal));
        JsonNode.Parse(done.Body)!["output"]!.AsArray().Count.ShouldBe(1);
        var (refused, error) = await simulator.SendAsync($"{Responses}/{queued["id"]}/cancel", "{}");
        refused.ShouldBe(400);
        ((string?)error["error"]!["message"]).ShouldBe("Cannot cancel a synchronous response.");
    }

    [Fact]
    public async Task A_background_response_can_be_cancelled()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new(Storing) { ["VLLM_SIM_HANG"] = "request" }, "m");
        var id = (string)(await simulator.SendAsync(Responses, """{"input":"Hello","background":true}""")).Body["id"]!;

        var (status, cancelled) = await simulator.SendAsync($"{Responses}/{id}/cancel", "{}");

        status.ShouldBe(200);
        ((string?)cancelled["status"]).ShouldBe("cancelled");
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running{engine=\"0\",model_name=\"m\"}"), running => running == 0);
        (await ReadAsync(simulator, id)).Body.ShouldContain("\"status\":\"cancelled\"");
    }

    [Fact]
    public async Task The_stream_of_a_background_response_can_be_read_again_from_any_event()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Storing, "m");
        var first = await simulator.EventsAsync(Responses, """{"input":"Hello","background":true,"stream":true,"max_output_tokens":2}""");
        var id = (string)JsonNode.Parse(first[0].Data)!["response"]!["id"]!;

        using var response = await simulator.Http.GetAsync($"{Responses}/{id}?stream=true&starting_after=3", TestContext.Current.CancellationToken);

        first[^1].Name.ShouldBe("response.completed");
        (await RunningSimulator.EventsAsync(response)).ShouldBe(first[4..]);
    }

    [Theory]
    [InlineData("""{"model":"other","input":"a"}""", 404, "NotFoundError", "model")]
    [InlineData("{}", 400, "Bad Request", "body.input")]
    [InlineData("""{"input":3}""", 400, "Bad Request", "body.input")]
    [InlineData("""{"input":[{"type":"film"}]}""", 400, "Bad Request", "body.input.0")]
    [InlineData("""{"input":"a","prompt":{"id":"x"}}""", 400, "BadRequestError", "prompt")]
    [InlineData("""{"input":"a","background":true}""", 400, "invalid_request_error", "background")]
    [InlineData("""{"input":"a","background":true,"store":false}""", 400, "Bad Request", "body")]
    [InlineData("""{"input":"a","text":{"format":{"type":"json_object"}}}""", 501, "NotImplementedError", null)]
    [InlineData("""{"input":"a","temperature":-1}""", 400, "BadRequestError", "temperature")]
    [InlineData("""{"input":"a","max_output_tokens":0}""", 400, "BadRequestError", "max_tokens")]
    public async Task Refusals_name_their_field(string body, int status, string type, string? parameter)
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        var (answered, json) = await simulator.SendAsync(Responses, body);

        answered.ShouldBe(status);
        ((string?)json["error"]!["type"]).ShouldBe(type);
        ((string?)json["error"]!["param"]).ShouldBe(parameter);
    }

    [Fact]
    public async Task An_engine_failure_breaks_a_stream_and_is_a_500_without_one()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_REQUEST_FAIL"] = "error" }, "m");

        await Should.ThrowAsync<HttpRequestException>(simulator.PostAsync(Responses, """{"input":"Hello","stream":true}"""));
        (await simulator.SendAsync(Responses, Hello)).Status.ShouldBe(500);
    }

    [Fact]
    public async Task Responses_wait_for_a_place_in_the_batch_like_chats()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_HANG"] = "request" }, "m", "--max-num-seqs", "1");
        using var leave = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);

        var requests = Enumerable.Range(0, 2).Select(_ => simulator.PostAsync(Responses, Hello, HttpCompletionOption.ResponseHeadersRead, leave.Token)).ToArray();

        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"}"), waiting => waiting == 1);
        await leave.CancelAsync();
        foreach (var request in requests)
            await Should.ThrowAsync<OperationCanceledException>(request);
    }

    [Theory]
    [InlineData("/v1/responses/resp_x")]
    [InlineData("/v1/messages")]
    [InlineData("/v1/messages/count_tokens")]
    public async Task The_key_guards_them(string path)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--api-key", "hush");

        ((int)(await simulator.PostAsync(path, "{}")).StatusCode).ShouldBe(401);
    }

    private static async Task<(int Status, string Body)> ReadAsync(RunningSimulator simulator, string id)
    {
        using var response = await simulator.Http.GetAsync($"{Responses}/{id}", TestContext.Current.CancellationToken);
        return ((int)response.StatusCode, JsonNode.Parse(await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken))!.ToJsonString());
    }
}
