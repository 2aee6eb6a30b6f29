using System.ClientModel;
using System.ClientModel.Primitives;
using System.Diagnostics;
using System.Text.Json.Nodes;
using ModelHost.TestKit;
using OpenAI;
using OpenAI.Chat;

namespace ModelHost.IntegrationTests.Sdk;

/// <summary>The OpenAI SDK for .NET, as published, against a control plane.</summary>
public sealed class OpenAiDotNetTests
{
    private static readonly ChatMessage[] s_hello = [new UserChatMessage("Say something.")];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Models_are_listed()
    {
        await using var served = await ServedModel.StartAsync();

        var models = await Client(served).GetOpenAIModelClient().GetModelsAsync(Ct);

        var model = models.Value.ShouldHaveSingleItem();
        model.Id.ShouldBe(ServedModel.Chat);
        model.OwnedBy.ShouldBe("tests");
        model.CreatedAt.ShouldBe(DateTimeOffset.UtcNow, TimeSpan.FromMinutes(5));
    }

    [Fact]
    public async Task Chat_is_answered()
    {
        await using var served = await ServedModel.StartAsync();

        var answer = await Client(served).GetChatClient(ServedModel.Chat).CompleteChatAsync(s_hello, new ChatCompletionOptions { MaxOutputTokenCount = 7 }, Ct);

        answer.Value.Model.ShouldBe(ServedModel.Chat);
        answer.Value.Content.ShouldHaveSingleItem().Text.ShouldNotBeEmpty();
        answer.Value.FinishReason.ShouldBe(ChatFinishReason.Length);
        answer.Value.Usage.OutputTokenCount.ShouldBe(7);
    }

    [Fact]
    public async Task Streamed_chat_comes_piece_by_piece_and_ends_with_its_usage()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_ITL_MS=1000"]);
        var began = Stopwatch.StartNew();
        var seen = new List<TimeSpan>();
        ChatTokenUsage? usage = null;

        await foreach (var update in Client(served).GetChatClient(ServedModel.Chat)
            .CompleteChatStreamingAsync(s_hello, new ChatCompletionOptions { MaxOutputTokenCount = 10 }, Ct))
        {
            usage = update.Usage ?? usage;
            if (update.ContentUpdate.Count > 0 && update.ContentUpdate[0].Text.Length > 0)
                seen.Add(began.Elapsed);
        }

        seen.Count.ShouldBe(10);
        (seen[^1] - seen[0]).ShouldBeGreaterThan(TimeSpan.FromMilliseconds(300), "nine gaps of 1 s lie between the first piece and the last");
        usage.ShouldNotBeNull().OutputTokenCount.ShouldBe(10);
    }

    [Fact]
    public async Task Embeddings_are_made()
    {
        await using var served = await ServedModel.StartAsync("demo/bge-small");

        var answer = await Client(served).GetEmbeddingClient("demo/bge-small").GenerateEmbeddingsAsync(["one", "two"], cancellationToken: Ct);

        answer.Value.Count.ShouldBe(2);
        answer.Value[0].ToFloats().Length.ShouldBeGreaterThan(100);
        answer.Value[1].ToFloats().ToArray().ShouldNotBe(answer.Value[0].ToFloats().ToArray());
    }

    [Fact]
    public async Task Unknown_model_is_the_sdks_404_and_names_the_ones_there_are()
    {
        await using var served = await ServedModel.StartAsync();

        var refused = await Should.ThrowAsync<ClientResultException>(() => Client(served).GetChatClient("no/such").CompleteChatAsync(s_hello, cancellationToken: Ct));

        refused.Status.ShouldBe(404);
        refused.Message.ShouldContain("model_not_found");
        refused.Message.ShouldContain(ServedModel.Chat);
    }

    [Fact]
    public async Task Loading_model_is_the_sdks_503()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_HANG=load"], wait: false, configuration: ["Gateway:HoldTimeout=00:00:01"]);

        var refused = await Should.ThrowAsync<ClientResultException>(
            () => Client(served, retries: 0).GetChatClient(ServedModel.Chat).CompleteChatAsync(s_hello, cancellationToken: Ct));

        refused.Status.ShouldBe(503);
        refused.Message.ShouldContain("model_loading");
        refused.GetRawResponse()!.Headers.TryGetValue("Retry-After", out var seconds).ShouldBeTrue();
        seconds.ShouldBe("2");
    }

    [Fact]
    public async Task Loading_model_is_waited_for_by_default()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_LOAD_SECONDS=3"], wait: false);

        var answer = await Client(served).GetChatClient(ServedModel.Chat).CompleteChatAsync(s_hello, cancellationToken: Ct);

        answer.Value.Content.ShouldHaveSingleItem().Text.ShouldNotBeEmpty();
    }

    [Fact]
    public async Task Engines_refusal_of_a_request_is_passed_on()
    {
        await using var served = await ServedModel.StartAsync();

        var refused = await Should.ThrowAsync<ClientResultException>(() => Client(served).GetChatClient(ServedModel.Chat)
            .CompleteChatAsync(s_hello, new ChatCompletionOptions { Temperature = -1 }, Ct));

        refused.Status.ShouldBe(400);
        refused.Message.ShouldContain("temperature");
    }

    [Fact]
    public async Task Abandoned_stream_is_aborted_in_the_engine_within_a_second()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_ITL_MS=200"]);
        // without this HttpClient goes on reading for two seconds after the stream is disposed of, to keep the connection
        using var client = new HttpClient(new SocketsHttpHandler { ResponseDrainTimeout = TimeSpan.Zero });
        var left = new Stopwatch();
        await foreach (var _ in Client(served, http: client).GetChatClient(ServedModel.Chat)
            .CompleteChatStreamingAsync(s_hello, new ChatCompletionOptions { MaxOutputTokenCount = 1000 }, Ct))
        {
            left.Start();
            break;
        }

        await Deadline.UntilAsync(() => served.EngineCounterAsync("vllm:request_success_total", "finished_reason=\"abort\""), count => count == 1, 60, "one abort");

        left.Elapsed.ShouldBeLessThan(Deadline.Allowed(1));
    }

    [Fact]
    public async Task Beyond_loopback_a_key_is_needed_and_the_admin_key_is_one()
    {
        await using var served = await ServedModel.StartAsync(urls: "http://0.0.0.0:0");

        var refused = await Should.ThrowAsync<ClientResultException>(() => Client(served, "wrong").GetOpenAIModelClient().GetModelsAsync(Ct));
        var models = await Client(served, served.Host.AdminKey).GetOpenAIModelClient().GetModelsAsync(Ct);

        refused.Status.ShouldBe(401);
        refused.Message.ShouldContain("invalid_api_key");
        models.Value.ShouldHaveSingleItem();
    }

    [Fact]
    public async Task With_keys_on_each_key_does_what_it_is_for()
    {
        await using var served = await ServedModel.StartAsync();
        var key = await served.MakeKeyAsync(request => request["deployment_ids"] = new JsonArray(served.Id));
        var foreign = await served.MakeKeyAsync(request => request["models"] = new JsonArray("other"));
        var metrics = await served.MakeKeyAsync(request => request["roles"] = new JsonArray("metrics"));

        (await Client(served, key).GetOpenAIModelClient().GetModelsAsync(Ct)).Value.ShouldHaveSingleItem().Id.ShouldBe(ServedModel.Chat);
        (await Client(served, key).GetChatClient(ServedModel.Chat).CompleteChatAsync(s_hello, new ChatCompletionOptions { MaxOutputTokenCount = 7 }, Ct)).Value.Usage.OutputTokenCount.ShouldBe(7);
        var pieces = 0;
        await foreach (var update in Client(served, key).GetChatClient(ServedModel.Chat).CompleteChatStreamingAsync(s_hello, new ChatCompletionOptions { MaxOutputTokenCount = 7 }, Ct))
            pieces += update.ContentUpdate.Count;
        pieces.ShouldBeGreaterThanOrEqualTo(7);
        (await Client(served, foreign).GetOpenAIModelClient().GetModelsAsync(Ct)).Value.ShouldBeEmpty();
        foreach (var (wrong, status, code) in ((string, int, string)[])
            [
                ("none", 401, "invalid_api_key"), (served.Host.AdminKey, 401, "invalid_api_key"), (key[..^1], 401, "invalid_api_key"),
                (foreign, 403, "model_forbidden"), (metrics, 403, "role_forbidden"),
            ])
        {
            var refused = await Should.ThrowAsync<ClientResultException>(() => Client(served, wrong).GetChatClient(ServedModel.Chat).CompleteChatAsync(s_hello, cancellationToken: Ct));
            (refused.Status, refused.Message.Contains(code, StringComparison.Ordinal)).ShouldBe((status, true), refused.Message);
        }
    }

    [Fact]
    public async Task With_keys_on_embeddings_are_made()
    {
        await using var served = await ServedModel.StartAsync("demo/bge-small");
        var key = await served.MakeKeyAsync(request => request["models"] = new JsonArray("demo/bge-small"));

        (await Client(served, key).GetEmbeddingClient("demo/bge-small").GenerateEmbeddingsAsync(["one", "two"], cancellationToken: Ct)).Value.Count.ShouldBe(2);
    }

    private static OpenAIClient Client(ServedModel served, string key = "none", int? retries = null, HttpClient? http = null)
    {
        var options = new OpenAIClientOptions { Endpoint = served.BaseUrl };
        if (retries is { } count)
            options.RetryPolicy = new ClientRetryPolicy(count);
        if (http is not null)
            options.Transport = new HttpClientPipelineTransport(http);
        return new OpenAIClient(new ApiKeyCredential(key), options);
    }
}
