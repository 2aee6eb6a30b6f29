using System.ClientModel;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;
using OpenAI;
using OpenAI.Chat;

namespace ModelHost.IntegrationTests.Backends;

/// <summary>Backends of others behind <c>/v1</c>, asked by OpenAI's own SDK and by plain HTTP: on this machine and behind an agent.</summary>
public sealed class AdapterSdkTests(NodeScripts scripts)
{
    private const string Node = "node-backend", Python = "python-backend";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(Node, false)]
    [InlineData(Python, false)]
    [InlineData(Python, true)]
    public async Task The_SDK_chats_streams_embeds_and_speaks(string backend, bool remote)
    {
        await using var place = await Place.StartAsync(scripts, remote, backend);
        var id = await place.Host.Client.ServeAsync(TestBackends.Request(place.Node, backend));

        var chat = await UseAsync(place, "chat");
        Content(chat).ShouldBe("user: Say something.");
        chat.GetProperty("choices")[0].GetProperty("finish_reason").GetString().ShouldBe("stop");
        var stream = await UseAsync(place, "stream");
        stream.GetProperty("seen").GetArrayLength().ShouldBe(2, "a piece for each word");
        stream.GetProperty("finish").GetString().ShouldBe("stop");
        stream.GetProperty("usage").ToString().ShouldBe("""{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4}""");
        (await UseAsync(place, "plainStream")).ToString().ShouldBe("""{"text":"Say something. ","usages":0}""");
        Text(await UseAsync(place, "completion")).ShouldBe("echo Once upon a time");
        (await UseAsync(place, "completionStream")).ToString().ShouldBe("""["Once ","upon ","a ","time ",""]""");
        (await UseAsync(place, "embeddings")).ToString().ShouldBe("[4,4]");
        (await UseAsync(place, "speech")).GetString().ShouldBe("RIFFhelloalloy");
        (await UseAsync(place, "transcription", file: Convert.ToBase64String(new byte[1234]))).GetString().ShouldBe("heard 1234 bytes");

        // the last of them is counted when its answer has gone out
        var usage = (await Deadline.UntilAsync(() => place.Host.Client.JsonAsync("/api/usage"), read => read.GetProperty("total").GetProperty("requests").GetInt64() >= 8, what: "all to be counted")).GetProperty("total");
        (usage.GetProperty("requests").GetInt64(), usage.GetProperty("aborted_requests").GetInt64(), usage.GetProperty("failed_requests").GetInt64()).ShouldBe((8, 0, 0));
        // chat 3, stream and plainStream 2 each, text 5 (echo and four words), its stream 4
        usage.GetProperty("completion_tokens").GetInt64().ShouldBe(3 + 2 + 2 + 5 + 4);
        await place.Host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task The_SDK_gets_calls_whole_and_in_pieces()
    {
        await using var place = await Place.StartAsync(scripts, remote: false, Python);
        await place.Host.Client.ServeAsync(TestBackends.Request(place.Node, Python));

        foreach (var use in (string[])["tools", "toolsStream"])
        {
            var choice = (await UseAsync(place, use)).GetProperty("choices")[0];
            choice.GetProperty("finish_reason").GetString().ShouldBe("tool_calls", use);
            var call = choice.GetProperty("message").GetProperty("tool_calls")[0];
            call.GetProperty("id").GetString().ShouldBe("call-1", use);
            call.GetProperty("function").GetProperty("name").GetString().ShouldBe("weather", use);
            call.GetProperty("function").GetProperty("arguments").GetString().ShouldBe("""{"city": "Oslo"}""", use);
        }
    }

    [Fact]
    public async Task The_SDK_for_dotnet_chats_calls_and_embeds()
    {
        await using var place = await Place.StartAsync(scripts, remote: false, Python);
        await place.Host.Client.ServeAsync(TestBackends.Request(place.Node, Python));
        var client = new OpenAIClient(new ApiKeyCredential("none"), new OpenAIClientOptions { Endpoint = new Uri(place.Host.Url, "v1") });
        var options = new ChatCompletionOptions { Tools = { ChatTool.CreateFunctionTool("weather") } };

        var chat = await client.GetChatClient("tiny").CompleteChatAsync([new UserChatMessage("Say something.")], cancellationToken: Ct);
        var text = "";
        ChatTokenUsage? usage = null;
        await foreach (var update in client.GetChatClient("tiny").CompleteChatStreamingAsync([new UserChatMessage("one two three")], cancellationToken: Ct))
        {
            text += string.Concat(update.ContentUpdate.Select(part => part.Text));
            usage = update.Usage ?? usage;
        }
        var call = await client.GetChatClient("tiny").CompleteChatAsync([new UserChatMessage("call")], options, Ct);
        var embeddings = await client.GetEmbeddingClient("tiny").GenerateEmbeddingsAsync(["one", "three"], cancellationToken: Ct);

        (chat.Value.Content[0].Text, chat.Value.FinishReason, chat.Value.Usage.OutputTokenCount).ShouldBe(("user: Say something.", ChatFinishReason.Stop, 3));
        (text, usage?.OutputTokenCount).ShouldBe(("one two three ", 3));
        call.Value.FinishReason.ShouldBe(ChatFinishReason.ToolCalls);
        (call.Value.ToolCalls[0].FunctionName, call.Value.ToolCalls[0].FunctionArguments.ToString()).ShouldBe(("weather", """{"city": "Oslo"}"""));
        embeddings.Value.Select(one => one.ToFloats().ToArray()).ShouldBe([[3, 0, 0.5f, -1], [5, 0, 0.5f, -1]]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Backends_in_trouble_are_told_as_errors_of_v1(bool remote)
    {
        await using var place = await Place.StartAsync(scripts, remote, Python);
        await place.Host.Client.ServeAsync(TestBackends.Request(place.Node, Python));

        (await ErrorAsync(place, Chat("fail 3 the prompt is odd"))).ShouldBe((400, "backend_refused"));
        (await ErrorAsync(place, Chat("fail 2 Traceback in /opt/secret"))).ShouldBe((502, "backend_failed"));
        (await ErrorAsync(place, Chat("fail 12 none"))).ShouldBe((501, "not_supported"));
        (await ErrorAsync(place, Chat($"long {55_000_000}"))).ShouldBe((502, "backend_failed"));
        (await ErrorAsync(place, """{"model":"tiny","text_1":"a","text_2":["b"]}""", "/v1/score")).ShouldBe((501, "not_supported"));
        var broken = await PostAsync(place, Chat("one fail", stream: true));
        broken.Body.ShouldContain("\"content\":\"one \"");
        broken.Body.ShouldContain("\"code\":\"backend_failed\"");
        broken.Body.ShouldNotContain("the stream broke");
        var end = await DiesAsync(place);
        end.ShouldContain("\"error\"");
        end.ShouldEndWith("data: [DONE]\n\n");
        // its node starts it again
        await Deadline.UntilAsync(async () => (await PostAsync(place, Chat("hello"))).Status, status => status == HttpStatusCode.OK);
        (await ErrorAsync(place, Chat("die"))).ShouldBe((502, "deployment_unreachable"));
    }

    [Theory]
    [InlineData(Node, false)]
    [InlineData(Python, true)]
    public async Task A_client_that_leaves_ends_the_backends_work(string backend, bool remote)
    {
        await using var place = await Place.StartAsync(scripts, remote, backend);
        var id = await place.Host.Client.ServeAsync(TestBackends.Request(place.Node, backend));
        using (var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct))
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = Json(Chat("forever", stream: true)) };
            using var answer = await place.Host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, leave.Token);
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(leave.Token));
            while (await reader.ReadLineAsync(leave.Token) is { } line && !line.Contains("again", StringComparison.Ordinal))
            {
            }
            await leave.CancelAsync();
        }

        await Deadline.UntilAsync(() => place.Host.Client.LogAsync(id), log => log.Contains($"{backend} cancelled", StringComparison.Ordinal));
        var usage = await Deadline.UntilAsync(() => place.Host.Client.JsonAsync("/api/usage"), usage => usage.GetProperty("total").GetProperty("aborted_requests").GetInt64() == 1);
        usage.GetProperty("total").GetProperty("completion_tokens").GetInt64().ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task LocalAIs_routes_have_its_answers()
    {
        await using var place = await Place.StartAsync(scripts, remote: false, Python);
        await place.Host.Client.ServeAsync(TestBackends.Request(place.Node, Python));

        (await PostAsync(place, """{"model":"tiny","content":"hi"}""", "/v1/tokenize")).Body.ShouldBe("""{"tokens":[104,105]}""");
        (await PostAsync(place, """{"model":"tiny","tokens":[104,105]}""", "/v1/detokenize")).Body.ShouldBe("""{"content":"hi"}""");
        (await PostAsync(place, """{"model":"tiny","query":"red apples","documents":["blue","red","red apples"],"top_n":2}""", "/v1/rerank")).Body.ShouldBe(
            """{"model":"tiny","usage":{"total_tokens":9,"prompt_tokens":9},"results":[{"index":2,"document":{"text":"red apples"},"relevance_score":2},{"index":1,"document":{"text":"red"},"relevance_score":1}]}""");
        (await PostAsync(place, """{"model":"tiny","input":"hello","voice":"v"}""", "/tts")).Body.ShouldBe("RIFFhellov");
        (await PostAsync(place, """{"model":"tiny","input":"hello you","stream":true}""", "/v1/audio/speech")).Body.ShouldEndWith("helloyou");
    }

    /// <summary>Opens a stream, and kills its backend when a piece of it has come.</summary>
    /// <returns>What comes after that.</returns>
    private static async Task<string> DiesAsync(Place place)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = Json(Chat("forever", stream: true)) };
        using var answer = await place.Host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
        using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
        // no sooner: what is still to be read when a connection breaks is lost with it
        while (!(await reader.ReadLineAsync(Ct)).ShouldNotBeNull().Contains("\"content\":\"again \"", StringComparison.Ordinal))
        {
        }
        TestBackends.Kill(place.Data);
        return await reader.ReadToEndAsync(Ct);
    }

    private static string Chat(string text, bool stream = false) =>
        new JsonObject { ["model"] = "tiny", ["messages"] = new JsonArray(new JsonObject { ["role"] = "user", ["content"] = text }), ["stream"] = stream }.ToJsonString();

    private static string? Content(JsonElement answer) => answer.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString();

    private static string? Text(JsonElement answer) => answer.GetProperty("choices")[0].GetProperty("text").GetString();

    private async Task<JsonElement> UseAsync(Place place, string use, string file = "")
    {
        var outcome = await scripts.RunAsync("sdk.mjs", new Dictionary<string, object>
        {
            ["use"] = use,
            ["baseURL"] = new Uri(place.Host.Url, "v1"),
            ["model"] = "tiny",
            ["file"] = file,
            ["retries"] = 0,
        });
        return outcome.TryGetProperty("value", out var value) ? value : throw new InvalidOperationException($"the SDK threw {outcome}");
    }

    private static async Task<(HttpStatusCode Status, string Body)> PostAsync(Place place, string body, string path = "/v1/chat/completions")
    {
        using var content = Json(body);
        using var answer = await place.Host.Client.PostAsync(new Uri(path, UriKind.Relative), content, Ct);
        return (answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct));
    }

    private static async Task<(int Status, string? Code)> ErrorAsync(Place place, string body, string path = "/v1/chat/completions")
    {
        var (status, answer) = await PostAsync(place, body, path);
        answer.ShouldNotContain("secret");
        return ((int)status, JsonDocument.Parse(answer).RootElement.GetProperty("error").GetProperty("code").GetString());
    }

    private static StringContent Json(string text) => new(text, Encoding.UTF8, new MediaTypeHeaderValue("application/json"));
}
