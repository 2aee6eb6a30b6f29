using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Agent.Http;
using ModelHost.Core.Routing;

namespace ModelHost.Agent.Metering;

/// <summary>How a stream that is under way says that it failed, so that the SDKs of its API raise it.</summary>
public static class StreamErrors
{
    /// <summary>The last events of such a stream.</summary>
    public static byte[] Events(AnswerShape shape, OpenAiError error) => shape switch
    {
        AnswerShape.Messages => Event("event: error\n", new MessagesErrorEvent(new MessagesError(error.Message)), StreamErrorJson.Default.MessagesErrorEvent, ""),
        AnswerShape.Responses => Event("event: error\n", new ResponsesErrorEvent(error.Code, error.Message, error.Param), StreamErrorJson.Default.ResponsesErrorEvent, ""),
        AnswerShape.Chat or AnswerShape.Completion or AnswerShape.Other =>
            Event("", new OpenAiErrorBody(error), OpenAiErrorJson.Readable.OpenAiErrorBody, "data: [DONE]\n\n"),
    };

    private static byte[] Event<T>(string name, T body, System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type, string end) =>
        System.Text.Encoding.UTF8.GetBytes($"{name}data: {JsonSerializer.Serialize(body, type)}\n\n{end}");
}

/// <summary>As Anthropic's API ends a stream.</summary>
internal sealed record MessagesErrorEvent(MessagesError Error)
{
    [JsonPropertyOrder(-1)]
    public string Type { get; init; } = "error";
}

internal sealed record MessagesError(string Message)
{
    [JsonPropertyOrder(-1)]
    public string Type { get; init; } = "api_error";
}

/// <summary>As OpenAI's responses do.</summary>
internal sealed record ResponsesErrorEvent(string Code, string Message, string? Param)
{
    [JsonPropertyOrder(-1)]
    public string Type { get; init; } = "error";
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(MessagesErrorEvent))]
[JsonSerializable(typeof(ResponsesErrorEvent))]
internal sealed partial class StreamErrorJson : JsonSerializerContext;
