namespace ModelHost.Gateway;

/// <summary>How the request of a route carries its model.</summary>
internal enum BodyKind
{
    /// <summary>A JSON object.</summary>
    Json,
    /// <summary>A form with a file.</summary>
    Multipart,
}

/// <summary>How an answer of a route is written, as far as streams of it differ.</summary>
internal enum AnswerShape
{
    /// <summary>Chat completions: the count of tokens comes in a last chunk, if it is asked for.</summary>
    Chat,
    /// <summary>Text completions: as chats.</summary>
    Completion,
    /// <summary>OpenAI's responses: the count comes with the last event.</summary>
    Responses,
    /// <summary>Anthropic's messages: the count comes with the first and the last event.</summary>
    Messages,
    /// <summary>Everything that is answered whole, or without a count.</summary>
    Other,
}

/// <summary>A route that is forwarded to an engine; metadata of its endpoint.</summary>
/// <param name="Path">Its path in its group, which is <c>/v1</c> but for few.</param>
/// <param name="EnginePath">The path that an engine has for it.</param>
/// <param name="Body">How its request carries the model.</param>
/// <param name="Shape">How its answer is written.</param>
internal sealed record GatewayRoute(string Path, string EnginePath, BodyKind Body, AnswerShape Shape)
{
    /// <summary>A route that engines have under the same path.</summary>
    public GatewayRoute(string path, AnswerShape shape = AnswerShape.Other, BodyKind body = BodyKind.Json) : this(path, "/v1" + path, body, shape)
    {
    }

    /// <summary>Whether a stream tells its count of tokens only to those who ask for it.</summary>
    public bool CountsOnRequest => Shape is AnswerShape.Chat or AnswerShape.Completion && Body == BodyKind.Json;

    /// <summary>Whether LocalAI's clients call the text to split <c>content</c>, which engines call <c>prompt</c>.</summary>
    public bool TakesContent => EnginePath == "/tokenize";

    /// <summary>What stands once in every event of a stream that carries output: an engine sends one for each token, or few.</summary>
    public ReadOnlySpan<byte> OutputMark => Shape == AnswerShape.Completion ? "\"text\":"u8 : "\"delta\":"u8;

    /// <summary>Events with the mark that carry none: the first of a chat tells the role.</summary>
    public int EventsWithoutOutput => Shape == AnswerShape.Chat ? 1 : 0;
}
