using System.ClientModel;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using OpenAI;
using OpenAI.Audio;
using OpenAI.Chat;
using OpenAI.Responses;

namespace ModelHost.IntegrationTests.Sdk;

/// <summary>Every route that the simulator serves, with keys on, by the SDKs that have it; what each used is counted as the engine counts it.</summary>
public sealed class KeyedRouteTests(NodeScripts scripts)
{
    private const string Embedder = "demo/bge-small", Reranker = "BAAI/bge-reranker-base", Whisper = "openai/whisper-small";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task JavaScript_chats_in_every_form()
    {
        await using var served = await ServedModel.StartAsync();
        var key = await served.MakeKeyAsync(request => request["deployment_ids"] = new JsonArray(served.Id));

        Value(await UseAsync(served, "models", key))[0].GetProperty("id").GetString().ShouldBe(ServedModel.Chat);
        Value(await UseAsync(served, "chat", key)).GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(7);
        Value(await UseAsync(served, "stream", key)).GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(10);
        var plain = Value(await UseAsync(served, "plainStream", key));
        plain.GetProperty("text").GetString().ShouldNotBeNullOrEmpty();
        plain.GetProperty("usages").GetInt32().ShouldBe(0);
        Value(await UseAsync(served, "completion", key)).GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(5);
        Value(await UseAsync(served, "completionStream", key)).GetArrayLength().ShouldBe(5);
        Value(await UseAsync(served, "responses", key)).GetProperty("usage").GetProperty("output_tokens").GetInt32().ShouldBe(7);
        Value(await UseAsync(served, "responsesStream", key)).GetProperty("final").GetProperty("usage").GetProperty("output_tokens").GetInt32().ShouldBe(7);
        foreach (var use in (string[])["chat", "stream", "completion", "responses", "models"])
            (await UseAsync(served, use, "none")).GetProperty("error").GetProperty("code").GetString().ShouldBe("invalid_api_key", use);

        var used = await served.CountedAsync(await served.EngineTokensAsync());
        used.Completion.ShouldBe(7 + 10 + 10 + 5 + 5 + 7 + 7);
    }

#pragma warning disable OPENAI001 // the Responses client is marked as one that may change
    [Fact]
    public async Task DotNet_chats_in_every_form()
    {
        await using var served = await ServedModel.StartAsync();
        var key = await served.MakeKeyAsync(request => request["models"] = new JsonArray(ServedModel.Chat));
        var client = Client(served, key);
        var responses = new ResponsesClient(new ApiKeyCredential(key), new ResponsesClientOptions { Endpoint = served.BaseUrl });
        CreateResponseOptions Request(bool stream) => new()
        {
            Model = ServedModel.Chat,
            InputItems = { ResponseItem.CreateUserMessageItem("Say something.") },
            MaxOutputTokenCount = 7,
            StreamingEnabled = stream,
        };
        ChatMessage[] hello = [new UserChatMessage("Say something.")];
        var limit = new ChatCompletionOptions { MaxOutputTokenCount = 7 };

        (await client.GetOpenAIModelClient().GetModelsAsync(Ct)).Value.ShouldHaveSingleItem().Id.ShouldBe(ServedModel.Chat);
        var whole = (await client.GetChatClient(ServedModel.Chat).CompleteChatAsync(hello, limit, Ct)).Value;
        var (text, usage) = ("", (ChatTokenUsage?)null);
        await foreach (var update in client.GetChatClient(ServedModel.Chat).CompleteChatStreamingAsync(hello, limit, Ct))
        {
            text += string.Concat(update.ContentUpdate.Select(part => part.Text));
            usage = update.Usage ?? usage;
        }
        var response = (await responses.CreateResponseAsync(Request(false), Ct)).Value;
        var completed = (ResponseResult?)null;
        await foreach (var update in responses.CreateResponseStreamingAsync(Request(true), Ct))
            completed = (update as StreamingResponseCompletedUpdate)?.Response ?? completed;

        text.ShouldBe(whole.Content[0].Text);
        (whole.Usage.OutputTokenCount, usage!.OutputTokenCount, response.Usage.OutputTokenCount, completed!.Usage.OutputTokenCount).ShouldBe((7, 7, 7, 7));
        (await Should.ThrowAsync<ClientResultException>(() => new ResponsesClient(new ApiKeyCredential("none"), new ResponsesClientOptions { Endpoint = served.BaseUrl })
            .CreateResponseAsync(Request(false), Ct))).Status.ShouldBe(401);
        await served.CountedAsync(await served.EngineTokensAsync());
    }
#pragma warning restore OPENAI001

    [Fact]
    public async Task Both_embed()
    {
        await using var served = await ServedModel.StartAsync(Embedder);
        var key = await served.MakeKeyAsync();

        Value(await UseAsync(served, "embeddings", key, Embedder)).GetArrayLength().ShouldBe(2);
        (await Client(served, key).GetEmbeddingClient(Embedder).GenerateEmbeddingsAsync(["one", "two"], cancellationToken: Ct)).Value.Count.ShouldBe(2);
        using var pooled = await PostAsync(served, key, "pooling", new { model = Embedder, input = "one" });
        pooled.StatusCode.ShouldBe(HttpStatusCode.OK);

        // what the engine counts as written for a pooled text is no token of an answer
        var used = await served.CountedAsync(((await served.EngineTokensAsync()).Prompt, 0));
        used.Prompt.ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task Both_have_speech_written_down()
    {
        await using var served = await ServedModel.StartAsync(Whisper);
        var key = await served.MakeKeyAsync();
        var speech = Wave(seconds: 2);

        var script = Value(await UseAsync(served, "transcription", key, Whisper, speech)).GetString();
        using var file = new MemoryStream(speech);
        var audio = Client(served, key).GetAudioClient(Whisper);
        var dotnet = (await audio.TranscribeAudioAsync(file, "speech.wav", new AudioTranscriptionOptions { ResponseFormat = AudioTranscriptionFormat.Simple }, Ct)).Value.Text;
        using var again = new MemoryStream(speech);
        var translated = (await audio.TranslateAudioAsync(again, "speech.wav", new AudioTranslationOptions { ResponseFormat = AudioTranslationFormat.Simple }, Ct)).Value.Text;

        script.ShouldNotBeNullOrEmpty();
        dotnet.ShouldBe(script);
        translated.ShouldNotBeNullOrEmpty();
        (await UseAsync(served, "transcription", "none", Whisper, speech)).GetProperty("error").GetProperty("code").GetString().ShouldBe("invalid_api_key");
    }

    [Fact]
    public async Task Anthropics_sdk_sends_messages_with_its_own_header()
    {
        await using var served = await ServedModel.StartAsync();
        var key = await served.MakeKeyAsync();
        Task<JsonElement> AskAsync(string with) => scripts.RunAsync("anthropic.mjs", new { baseURL = served.Url, model = ServedModel.Chat, key = with });

        var answer = await AskAsync(key);
        var refused = await AskAsync("mh_sk_wrong");

        answer.TryGetProperty("text", out var text).ShouldBeTrue(answer.ToString());
        text.GetString().ShouldBe(answer.GetProperty("streamedText").GetString());
        answer.GetProperty("stop").GetString().ShouldBe("max_tokens");
        answer.GetProperty("usage").GetProperty("output_tokens").GetInt32().ShouldBe(7);
        answer.GetProperty("streamedUsage").GetProperty("output_tokens").GetInt32().ShouldBe(7);
        answer.GetProperty("count").GetInt32().ShouldBe(answer.GetProperty("usage").GetProperty("input_tokens").GetInt32());
        (refused.GetProperty("error").GetString(), refused.GetProperty("status").GetInt32()).ShouldBe(("AuthenticationError", 401));
        await served.CountedAsync(await served.EngineTokensAsync());
    }

    [Fact]
    public async Task Texts_are_scored_and_ordered()
    {
        await using var served = await ServedModel.StartAsync(Reranker);
        var key = await served.MakeKeyAsync();
        foreach (var (path, body, field) in ((string, object, string)[])
            [
                ("rerank", new { model = Reranker, query = "q", documents = (string[])["a", "b"] }, "results"),
                ("score", new { model = Reranker, text_1 = "q", text_2 = (string[])["a", "b"] }, "data"),
                ("classify", new { model = Reranker, input = "q" }, "data"),
            ])
        {
            using var answer = await PostAsync(served, key, path, body);
            using var refused = await PostAsync(served, "none", path, body);

            var text = await answer.Content.ReadAsStringAsync(Ct);
            answer.StatusCode.ShouldBe(HttpStatusCode.OK, $"{path}: {text}");
            JsonDocument.Parse(text).RootElement.GetProperty(field).GetArrayLength().ShouldBeGreaterThan(0);
            refused.StatusCode.ShouldBe(HttpStatusCode.Unauthorized, path);
        }
        // what the engine counts as written for a pooled text is no token of an answer
        var used = await served.CountedAsync(((await served.EngineTokensAsync()).Prompt, 0));
        used.Prompt.ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task Tokens_are_counted_and_put_together_again()
    {
        await using var served = await ServedModel.StartAsync();
        var key = await served.MakeKeyAsync();

        using var split = await PostAsync(served, key, "tokenize", new { model = ServedModel.Chat, prompt = "Once upon a time" });
        var tokens = (await split.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("tokens");
        using var joined = await PostAsync(served, key, "detokenize", new { model = ServedModel.Chat, tokens });
        using var refused = await PostAsync(served, "none", "tokenize", new { model = ServedModel.Chat, prompt = "x" });

        tokens.GetArrayLength().ShouldBeGreaterThan(2);
        (await joined.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("prompt").GetString().ShouldBe("Once upon a time");
        refused.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        (await served.UsageAsync()).ShouldBe((0, 0), "no model ran");
    }

    private static OpenAIClient Client(ServedModel served, string key) => new(new ApiKeyCredential(key), new OpenAIClientOptions { Endpoint = served.BaseUrl });

    private static async Task<HttpResponseMessage> PostAsync(ServedModel served, string key, string path, object body)
    {
        using var client = new HttpClient { DefaultRequestHeaders = { Authorization = new AuthenticationHeaderValue("Bearer", key) } };
        return await client.PostAsJsonAsync(new Uri(served.Url, $"/v1/{path}"), body, Ct);
    }

    private Task<JsonElement> UseAsync(ServedModel served, string use, string key, string model = ServedModel.Chat, byte[]? file = null)
    {
        var input = new Dictionary<string, object> { ["use"] = use, ["baseURL"] = served.BaseUrl, ["model"] = model, ["key"] = key, ["retries"] = 0 };
        if (file is not null)
            input["file"] = Convert.ToBase64String(file);
        return scripts.RunAsync("sdk.mjs", input);
    }

    private static JsonElement Value(JsonElement outcome) =>
        outcome.TryGetProperty("value", out var value) ? value : throw new InvalidOperationException($"the SDK threw {outcome}");

    /// <summary>Silence as a WAV file: 16 bits, mono, 8 kHz.</summary>
    private static byte[] Wave(int seconds)
    {
        const int Rate = 8000;
        var length = seconds * Rate * 2;
        using var file = new MemoryStream();
        using var writer = new BinaryWriter(file, Encoding.ASCII);
        writer.Write("RIFF"u8);
        writer.Write(36 + length);
        writer.Write("WAVEfmt "u8);
        writer.Write(16);
        writer.Write((short)1);
        writer.Write((short)1);
        writer.Write(Rate);
        writer.Write(Rate * 2);
        writer.Write((short)2);
        writer.Write((short)16);
        writer.Write("data"u8);
        writer.Write(length);
        writer.Write(new byte[length]);
        return file.ToArray();
    }
}
