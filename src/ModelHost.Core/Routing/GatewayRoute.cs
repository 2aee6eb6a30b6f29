namespace ModelHost.Core.Routing;

/// <summary>How the request of a route carries its model.</summary>
public enum BodyKind
{
    /// <summary>A JSON object.</summary>
    Json,
    /// <summary>A form with a file.</summary>
    Multipart,
}

/// <summary>How an answer of a route is written, as far as streams of it differ.</summary>
public enum AnswerShape
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

/// <summary>A route that is forwarded to an engine.</summary>
/// <param name="Path">Its path below <c>/v1</c>, or the whole where <paramref name="IsAtRoot"/>.</param>
/// <param name="EnginePath">The path that an engine has for it.</param>
/// <param name="Body">How its request carries the model.</param>
/// <param name="Shape">How its answer is written.</param>
/// <param name="IsAtRoot">Whether it stands beside <c>/v1</c>.</param>
public sealed record GatewayRoute(string Path, string EnginePath, BodyKind Body, AnswerShape Shape, bool IsAtRoot = false)
{
    /// <summary>A route that engines have under the same path.</summary>
    public GatewayRoute(string path, AnswerShape shape = AnswerShape.Other, BodyKind body = BodyKind.Json) : this(path, "/v1" + path, body, shape)
    {
    }

    /// <summary>The path that clients ask for.</summary>
    public string PublicPath => IsAtRoot ? Path : "/v1" + Path;

    /// <summary>Whether a stream tells its count of tokens only to those who ask for it.</summary>
    public bool CountsOnRequest => Shape is AnswerShape.Chat or AnswerShape.Completion && Body == BodyKind.Json;

    /// <summary>Whether LocalAI's clients call the text to split <c>content</c>, which engines call <c>prompt</c>.</summary>
    public bool TakesContent => EnginePath == "/tokenize";

    /// <summary>What stands once in every event of a stream that carries output: an engine sends one for each token, or few.</summary>
    public ReadOnlySpan<byte> OutputMark => Shape == AnswerShape.Completion ? "\"text\":"u8 : "\"delta\":"u8;

    /// <summary>Events with the mark that carry none: the first of a chat tells the role.</summary>
    public int EventsWithoutOutput => Shape == AnswerShape.Chat ? 1 : 0;
}

/// <summary>
/// All routes that are forwarded to engines: what the gateway maps, and all that the node proxy lets through but the list of models. Everything
/// else of an engine is for its node alone.
/// </summary>
public static class GatewayRoutes
{
    /// <summary>Largest body of a request in bytes where nothing else is said: 256 MiB.</summary>
    public const long DefaultMaxRequestBytes = 256L * 1024 * 1024;

    /// <summary>The list of models that an engine serves; read, not posted to.</summary>
    public const string Models = "/v1/models";

    /// <summary>Chats.</summary>
    public static GatewayRoute ChatCompletions { get; } = new("/chat/completions", AnswerShape.Chat);

    /// <summary>Texts to go on with.</summary>
    public static GatewayRoute Completions { get; } = new("/completions", AnswerShape.Completion);

    /// <summary>Embeddings.</summary>
    public static GatewayRoute Embeddings { get; } = new("/embeddings");

    /// <summary>OpenAI's newer form of chats.</summary>
    public static GatewayRoute Responses { get; } = new("/responses", AnswerShape.Responses);

    /// <summary>Anthropic's form of chats.</summary>
    public static GatewayRoute Messages { get; } = new("/messages", AnswerShape.Messages);

    /// <summary>The length of such a chat.</summary>
    public static GatewayRoute MessageTokens { get; } = new("/messages/count_tokens");

    /// <summary>Order documents.</summary>
    public static GatewayRoute Rerank { get; } = new("/rerank");

    /// <summary>Score pairs.</summary>
    public static GatewayRoute Score { get; } = new("/score");

    /// <summary>Classify texts.</summary>
    public static GatewayRoute Classify { get; } = new("/classify", "/classify", BodyKind.Json, AnswerShape.Other);

    /// <summary>Hidden states.</summary>
    public static GatewayRoute Pooling { get; } = new("/pooling", "/pooling", BodyKind.Json, AnswerShape.Other);

    /// <summary>A text to tokens.</summary>
    public static GatewayRoute Tokenize { get; } = new("/tokenize", "/tokenize", BodyKind.Json, AnswerShape.Other);

    /// <summary>Tokens to a text.</summary>
    public static GatewayRoute Detokenize { get; } = new("/detokenize", "/detokenize", BodyKind.Json, AnswerShape.Other);

    /// <summary>Speak a text.</summary>
    public static GatewayRoute Speech { get; } = new("/audio/speech");

    /// <summary>Write down speech.</summary>
    public static GatewayRoute Transcriptions { get; } = new("/audio/transcriptions", AnswerShape.Chat, BodyKind.Multipart);

    /// <summary>Translate speech.</summary>
    public static GatewayRoute Translations { get; } = new("/audio/translations", AnswerShape.Chat, BodyKind.Multipart);

    /// <summary>Create images.</summary>
    public static GatewayRoute ImageGenerations { get; } = new("/images/generations");

    /// <summary>Change images.</summary>
    public static GatewayRoute ImageEdits { get; } = new("/images/edits", AnswerShape.Other, BodyKind.Multipart);

    /// <summary>Vary images.</summary>
    public static GatewayRoute ImageVariations { get; } = new("/images/variations", AnswerShape.Other, BodyKind.Multipart);

    /// <summary>Speak a text, as LocalAI's clients ask.</summary>
    public static GatewayRoute TextToSpeech { get; } = new("/tts", "/v1/audio/speech", BodyKind.Json, AnswerShape.Other, IsAtRoot: true);

    /// <summary>All of them.</summary>
    public static IReadOnlyList<GatewayRoute> All { get; } =
    [
        ChatCompletions, Completions, Embeddings, Responses, Messages, MessageTokens,
        Rerank, Score, Classify, Pooling, Tokenize, Detokenize,
        Speech, Transcriptions, Translations, ImageGenerations, ImageEdits, ImageVariations,
        TextToSpeech,
    ];
}
