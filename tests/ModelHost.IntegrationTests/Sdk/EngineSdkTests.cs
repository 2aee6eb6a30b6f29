using System.ClientModel;
using System.Text.Json;
using OpenAI.Responses;

namespace ModelHost.IntegrationTests.Sdk;

/// <summary>The OpenAI SDKs, as published, against the simulated engine itself.</summary>
public sealed class EngineSdkTests(NodeScripts scripts)
{
    private static readonly string[] TextEvents =
    [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ];

    [Fact]
    public async Task JavaScript_reads_responses_whole_and_streamed()
    {
        await using var served = await ServedModel.StartAsync();

        var whole = await UseAsync(served, "responses");
        var streamed = await UseAsync(served, "responsesStream");

        whole.GetProperty("status").GetString().ShouldBe("incomplete");
        var text = whole.GetProperty("output_text").GetString();
        text.ShouldNotBeNullOrEmpty();
        streamed.GetProperty("types").EnumerateArray().Select(type => type.GetString()!).Distinct().ShouldBe(TextEvents);
        streamed.GetProperty("text").GetString().ShouldBe(text);
        streamed.GetProperty("final").GetProperty("usage").GetProperty("output_tokens").GetInt32().ShouldBe(7);
    }

#pragma warning disable OPENAI001 // the Responses client is marked as one that may change
    [Fact]
    public async Task DotNet_reads_responses_whole_and_streamed()
    {
        await using var served = await ServedModel.StartAsync();
        var client = new ResponsesClient(new ApiKeyCredential(served.EngineKey), new ResponsesClientOptions { Endpoint = new Uri(served.EngineUrl!, "v1") });
        CreateResponseOptions Request(bool stream) => new()
        {
            Model = ServedModel.Chat,
            InputItems = { ResponseItem.CreateUserMessageItem("Say something.") },
            MaxOutputTokenCount = 7,
            StreamingEnabled = stream,
        };

        var whole = (await client.CreateResponseAsync(Request(false), TestContext.Current.CancellationToken)).Value;
        var (text, completed) = ("", (ResponseResult?)null);
        await foreach (var update in client.CreateResponseStreamingAsync(Request(true), TestContext.Current.CancellationToken))
        {
            text += (update as StreamingResponseOutputTextDeltaUpdate)?.Delta;
            completed = (update as StreamingResponseCompletedUpdate)?.Response ?? completed;
        }

        whole.Status.ShouldBe(ResponseStatus.Incomplete);
        whole.GetOutputText().ShouldBe(text);
        completed.ShouldNotBeNull().Usage.OutputTokenCount.ShouldBe(7);
    }
#pragma warning restore OPENAI001

    private async Task<JsonElement> UseAsync(ServedModel served, string use)
    {
        var outcome = await scripts.RunAsync("sdk.mjs",
            new Dictionary<string, object> { ["use"] = use, ["baseURL"] = new Uri(served.EngineUrl!, "v1"), ["model"] = ServedModel.Chat, ["key"] = served.EngineKey });
        return outcome.TryGetProperty("value", out var value) ? value : throw new InvalidOperationException($"the SDK threw {outcome}");
    }
}
