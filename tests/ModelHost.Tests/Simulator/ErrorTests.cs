using System.Net.Http.Headers;
using System.Text.Json.Nodes;

namespace ModelHost.Tests.Simulator;

public sealed class ErrorTests
{
    private const string Chat = "/v1/chat/completions";

    [Theory]
    [InlineData(Chat, """{"model":"other","messages":[]}""", 404, "NotFoundError", "model", "The model `other` does not exist.")]
    [InlineData(Chat, """{"model":""", 400, "Bad Request", "body.9", "1 validation error:")]
    [InlineData(Chat, """{"messages":[{"role":"user","content":"\ud800"}]}""", 400, "Bad Request", "body", "1 validation error:")]
    [InlineData(Chat, "[1]", 400, "Bad Request", "body", "1 validation error:")]
    [InlineData(Chat, "", 400, "Bad Request", "body", "1 validation error:")]
    [InlineData(Chat, "{}", 400, "Bad Request", "body.messages", "1 validation error:")]
    [InlineData(Chat, """{"messages":"hi"}""", 400, "Bad Request", "body.messages", "1 validation error:")]
    [InlineData(Chat, """{"messages":[1]}""", 400, "Bad Request", "body.messages.0", "1 validation error:")]
    [InlineData(Chat, """{"messages":[{"content":"x"}]}""", 400, "Bad Request", "body.messages.0.role", "1 validation error:")]
    [InlineData(Chat, """{"messages":[{"role":"user","content":5}]}""", 400, "Bad Request", "body.messages.0.content", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"temperature":"hot"}""", 400, "Bad Request", "body.temperature", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"stream":3}""", 400, "Bad Request", "body.stream", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"max_tokens":"many"}""", 400, "Bad Request", "body.max_tokens", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"stop":[1]}""", 400, "Bad Request", "body.stop", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"tools":7}""", 400, "Bad Request", "body.tools", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"stream_options":1}""", 400, "Bad Request", "body.stream_options", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"model":1}""", 400, "Bad Request", "body.model", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"top_p":2}""", 400, "BadRequestError", "top_p", "top_p must be in (0, 1], got 2.")]
    [InlineData(Chat, """{"messages":[],"n":0}""", 400, "BadRequestError", "n", "n must be at least 1")]
    [InlineData(Chat, """{"messages":[],"max_tokens":65}""", 400, "BadRequestError", "max_tokens", "cannot be greater than")]
    [InlineData(Chat, """{"messages":[],"max_completion_tokens":65}""", 400, "BadRequestError", "max_completion_tokens", "cannot be greater than")]
    [InlineData(Chat, """{"messages":[],"max_tokens":64}""", 400, "BadRequestError", "input_tokens", "This model's maximum context length is 64 tokens")]
    [InlineData(Chat, """{"messages":[],"tools":[{}]}""", 400, "BadRequestError", null, "tool choice requires --enable-auto-tool-choice")]
    [InlineData(Chat, """{"messages":[],"priority":3}""", 400, "BadRequestError", null, "Priority scheduling is not enabled")]
    [InlineData(Chat, """{"messages":[],"stop":["a","b","c","d","e"]}""", 400, "BadRequestError", "stop", "at most 4 strings")]
    [InlineData(Chat, """{"messages":[],"response_format":"json"}""", 400, "Bad Request", "body.response_format", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"response_format":{"type":"xml"}}""", 400, "Bad Request", "body.response_format.type", "1 validation error:")]
    [InlineData(Chat, """{"messages":[],"response_format":{"type":"json_schema"}}""", 400, "BadRequestError", "response_format", "'json_schema' field must be provided")]
    [InlineData("/v1/completions", "{}", 400, "Bad Request", "body.prompt", "1 validation error:")]
    [InlineData("/v1/completions", """{"prompt":[true]}""", 400, "Bad Request", "body.prompt", "1 validation error:")]
    [InlineData("/detokenize", """{"tokens":["x",-1]}""", 400, "Bad Request", "body.tokens", "1 validation error:")]
    [InlineData("/v1/embeddings", "{}", 404, "Not Found", null, "Not Found")]
    [InlineData("/v1/nothing", "{}", 404, "Not Found", null, "Not Found")]
    [InlineData("/health", "{}", 405, "Method Not Allowed", null, "Method Not Allowed")]
    public async Task Errors_have_the_object_of_vllm(string path, string body, int status, string type, string? parameter, string message)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--max-model-len", "64");

        var (answered, json) = await simulator.SendAsync(path, body);

        answered.ShouldBe(status);
        json.AsObject().Select(member => member.Key).ShouldBe(["error"]);
        json["error"]!.AsObject().Select(member => member.Key).ShouldBe(["message", "type", "param", "code"]);
        ((string?)json["error"]!["message"])!.ShouldContain(message);
        ((string?)json["error"]!["type"]).ShouldBe(type);
        ((string?)json["error"]!["param"]).ShouldBe(parameter);
        ((int)json["error"]!["code"]!).ShouldBe(status);
    }

    [Fact]
    public async Task A_prompt_as_long_as_the_context_is_refused()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--max-model-len", "16");

        var (status, json) = await simulator.SendAsync(Chat,
            """{"messages":[{"role":"user","content":"one two three four five six seven eight nine ten eleven twelve"}]}""");

        status.ShouldBe(400);
        ((string?)json["error"]!["message"])!.ShouldStartWith("This model's maximum context length is 16 tokens. However, your request has ");
        ((string?)json["error"]!["param"]).ShouldBe("input_tokens");
    }

    [Fact]
    public async Task Another_content_type_is_refused()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        using var response = await simulator.Http.PostAsync(Chat, new StringContent("{}"), TestContext.Current.CancellationToken);

        ((int)response.StatusCode).ShouldBe(400);
        (await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)).ShouldContain("Only 'application/json' is allowed");
    }

    [Theory]
    [InlineData(null, "/v1/models", 401)]
    [InlineData("Bearer wrong", "/v1/models", 401)]
    [InlineData("Basic hush", "/v1/models", 401)]
    [InlineData("bearer hush", "/v1/models", 200)]
    [InlineData(null, "/v1/nothing", 401)]
    [InlineData(null, "/health", 200)]
    [InlineData(null, "/metrics", 200)]
    [InlineData(null, "/version", 200)]
    public async Task The_key_guards_v1_only(string? authorization, string path, int status)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_API_KEY"] = "hush" }, "m");
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        request.Headers.Authorization = authorization is null ? null : AuthenticationHeaderValue.Parse(authorization);

        using var response = await simulator.Http.SendAsync(request, TestContext.Current.CancellationToken);

        ((int)response.StatusCode).ShouldBe(status);
        if (status == 401)
            (await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)).ShouldBe("{\"error\":\"Unauthorized\"}");
    }

    [Fact]
    public async Task Model_cards_have_all_members()
    {
        await using var simulator = await RunningSimulator.StartAsync("org/repo", "--served-model-name", "a", "--max-model-len", "2k");

        var card = JsonNode.Parse(await simulator.Http.GetStringAsync("/v1/models", TestContext.Current.CancellationToken))!["data"]![0]!;

        var id = (string)card["permission"]![0]!["id"]!;
        id.ShouldStartWith("modelperm-");
        var created = (long)card["created"]!;
        card.ToJsonString().ShouldBe($$$"""
            {"id":"a","object":"model","created":{{{created}}},"owned_by":"vllm","root":"org/repo","parent":null,"max_model_len":2000,"permission":[
            {"id":"{{{id}}}","object":"model_permission","created":{{{created}}},"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,
            "allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*","group":null,"is_blocking":false}]}
            """.Replace("\n", "", StringComparison.Ordinal));
    }
}
