using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Sdk;

/// <summary>The OpenAI SDK for JavaScript, as published, against a control plane.</summary>
public sealed class OpenAiJavaScriptTests(NodeScripts scripts)
{
    [Fact]
    public async Task Models_are_listed()
    {
        await using var served = await ServedModel.StartAsync();

        var models = Value(await UseAsync(served, "models"));

        models.GetArrayLength().ShouldBe(1);
        models[0].GetProperty("id").GetString().ShouldBe(ServedModel.Chat);
        models[0].GetProperty("object").GetString().ShouldBe("model");
        models[0].GetProperty("owned_by").GetString().ShouldBe("tests");
    }

    [Fact]
    public async Task Chat_is_answered()
    {
        await using var served = await ServedModel.StartAsync();

        var answer = Value(await UseAsync(served, "chat"));

        answer.GetProperty("object").GetString().ShouldBe("chat.completion");
        answer.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString().ShouldNotBeNullOrEmpty();
        answer.GetProperty("choices")[0].GetProperty("finish_reason").GetString().ShouldBe("length");
        answer.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(7);
    }

    [Fact]
    public async Task Streamed_chat_comes_piece_by_piece_and_ends_with_its_usage()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_ITL_MS=1000"]);

        var answer = Value(await UseAsync(served, "stream"));

        var seen = answer.GetProperty("seen").EnumerateArray().Select(at => at.GetDouble()).ToArray();
        seen.Length.ShouldBe(10);
        (seen[^1] - seen[0]).ShouldBeGreaterThan(300, "nine gaps of 1 s lie between the first piece and the last");
        answer.GetProperty("finish").GetString().ShouldBe("length");
        answer.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(10);
    }

    [Fact]
    public async Task Text_is_completed_whole_and_streamed()
    {
        await using var served = await ServedModel.StartAsync();

        var whole = Value(await UseAsync(served, "completion"));
        var pieces = Value(await UseAsync(served, "completionStream"));

        whole.GetProperty("object").GetString().ShouldBe("text_completion");
        string.Concat(pieces.EnumerateArray().Select(piece => piece.GetString())).ShouldBe(whole.GetProperty("choices")[0].GetProperty("text").GetString());
        pieces.GetArrayLength().ShouldBeGreaterThanOrEqualTo(5);
    }

    [Fact]
    public async Task Embeddings_are_made()
    {
        await using var served = await ServedModel.StartAsync("demo/bge-small");

        var lengths = Value(await UseAsync(served, "embeddings", model: "demo/bge-small"));

        lengths.GetArrayLength().ShouldBe(2);
        lengths[0].GetInt32().ShouldBeGreaterThan(100);
        lengths[1].GetInt32().ShouldBe(lengths[0].GetInt32());
    }

    [Fact]
    public async Task Unknown_model_is_a_NotFoundError()
    {
        await using var served = await ServedModel.StartAsync();

        ShouldBeError(await UseAsync(served, "chat", model: "no/such"), "NotFoundError", 404, "model_not_found")
            .GetProperty("message").GetString().ShouldNotBeNull().ShouldContain(ServedModel.Chat);
    }

    [Fact]
    public async Task Loading_model_is_an_InternalServerError_that_says_when_to_come_back()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_HANG=load"], wait: false, configuration: ["Gateway:HoldTimeout=00:00:01"]);

        ShouldBeError(await UseAsync(served, "chat", retries: 0), "InternalServerError", 503, "model_loading")
            .GetProperty("retryAfter").GetString().ShouldBe("2");
    }

    [Fact]
    public async Task Loading_model_is_waited_for_by_default()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_LOAD_SECONDS=3"], wait: false);

        var answer = Value(await UseAsync(served, "chatDefault"));

        answer.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString().ShouldNotBeNullOrEmpty();
    }

    [Fact]
    public async Task Engines_refusal_of_a_request_is_a_BadRequestError()
    {
        await using var served = await ServedModel.StartAsync();

        var error = (await UseAsync(served, "badRequest")).GetProperty("error");

        error.GetProperty("type").GetString().ShouldBe("BadRequestError");
        error.GetProperty("message").GetString().ShouldNotBeNull().ShouldContain("temperature");
    }

    [Fact]
    public async Task Abandoned_stream_is_aborted_in_the_engine_within_a_second()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_ITL_MS=200"]);

        var took = Value(await UseAsync(served, "abort"));

        TimeSpan.FromMilliseconds(took.GetDouble()).ShouldBeLessThan(Deadline.Allowed(1));
    }

    [Fact]
    public async Task Beyond_loopback_a_key_is_needed_and_the_admin_key_is_one()
    {
        await using var served = await ServedModel.StartAsync(urls: "http://0.0.0.0:0");

        var refused = await UseAsync(served, "chat");
        var answer = await UseAsync(served, "chat", key: served.Host.AdminKey);

        ShouldBeError(refused, "AuthenticationError", 401, "invalid_api_key");
        Value(answer).GetProperty("model").GetString().ShouldBe(ServedModel.Chat);
    }

    [Fact]
    public async Task With_keys_on_each_key_does_what_it_is_for()
    {
        await using var served = await ServedModel.StartAsync();
        var key = await served.MakeKeyAsync(request => request["deployment_ids"] = new JsonArray(served.Id));
        var foreign = await served.MakeKeyAsync(request => request["models"] = new JsonArray("other"));
        var metrics = await served.MakeKeyAsync(request => request["roles"] = new JsonArray("metrics"));

        Value(await UseAsync(served, "models", key: key))[0].GetProperty("id").GetString().ShouldBe(ServedModel.Chat);
        Value(await UseAsync(served, "models", key: foreign)).GetArrayLength().ShouldBe(0);
        foreach (var use in (string[])["chat", "stream", "completion", "completionStream"])
            Value(await UseAsync(served, use, key: key));
        ShouldBeError(await UseAsync(served, "chat"), "AuthenticationError", 401, "invalid_api_key");
        ShouldBeError(await UseAsync(served, "stream", key: served.Host.AdminKey), "AuthenticationError", 401, "invalid_api_key");
        ShouldBeError(await UseAsync(served, "chat", key: foreign), "PermissionDeniedError", 403, "model_forbidden");
        ShouldBeError(await UseAsync(served, "models", key: metrics), "PermissionDeniedError", 403, "role_forbidden");
        ShouldBeError(await UseAsync(served, "chat", model: "no/such", key: key), "NotFoundError", 404, "model_not_found");
    }

    private Task<JsonElement> UseAsync(ServedModel served, string use, string model = ServedModel.Chat, int? retries = null, string? key = null)
    {
        var input = new Dictionary<string, object> { ["use"] = use, ["baseURL"] = served.BaseUrl, ["model"] = model, ["engine"] = served.EngineUrl?.OriginalString ?? "" };
        if (retries is { } count)
            input["retries"] = count;
        if (key is not null)
            input["key"] = key;
        return scripts.RunAsync("sdk.mjs", input);
    }

    private static JsonElement Value(JsonElement outcome) =>
        outcome.TryGetProperty("value", out var value) ? value : throw new InvalidOperationException($"the SDK threw {outcome}");

    private static JsonElement ShouldBeError(JsonElement outcome, string type, int status, string code)
    {
        var error = outcome.GetProperty("error");
        error.GetProperty("type").GetString().ShouldBe(type);
        error.GetProperty("status").GetInt32().ShouldBe(status);
        error.GetProperty("code").GetString().ShouldBe(code);
        return error;
    }
}
