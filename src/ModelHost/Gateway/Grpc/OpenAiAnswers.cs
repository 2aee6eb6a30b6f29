using System.Buffers.Binary;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace ModelHost.Gateway.Grpc;

/// <summary>Tokens of an answer.</summary>
internal sealed record AnswerUsage(long PromptTokens, long CompletionTokens, long TotalTokens)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? TimingPromptProcessing { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? TimingTokenGeneration { get; init; }
}

/// <summary>A chat completion.</summary>
internal sealed record ChatAnswer(long Created, string Object, string Id, string Model, IReadOnlyList<ChatAnswerChoice> Choices, AnswerUsage Usage);

internal sealed record ChatAnswerChoice(int Index, string FinishReason, ChatAnswerMessage Message)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public JsonElement? Logprobs { get; init; }
}

/// <summary>What was said; <paramref name="Content"/> is always there.</summary>
internal sealed record ChatAnswerMessage(string Role, string? Content)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Reasoning { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<AnswerCall>? ToolCalls { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public AnswerFunction? FunctionCall { get; init; }
}

internal sealed record AnswerCall(int Index, string Id, string Type, AnswerFunction Function);

internal sealed record AnswerFunction(string Name, string Arguments);

/// <summary>A text completion.</summary>
internal sealed record TextAnswer(long Created, string Object, string Id, string Model, IReadOnlyList<TextAnswerChoice> Choices, AnswerUsage Usage);

internal sealed record TextAnswerChoice(int Index, string FinishReason, string Text)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public JsonElement? Logprobs { get; init; }
}

/// <summary>Embeddings; each is a list of numbers, or their bytes in base64.</summary>
internal sealed record EmbeddingAnswer(string Object, string Model, IReadOnlyList<EmbeddingItem> Data, EmbeddingUsage Usage);

internal sealed record EmbeddingItem(string Object, int Index, EmbeddingVector Embedding);

/// <summary>An embedding as it is asked for: numbers, or their 32 bits each in base64.</summary>
[JsonConverter(typeof(EmbeddingVectorConverter))]
internal sealed record EmbeddingVector(IReadOnlyList<float> Numbers, bool IsBase64);

internal sealed class EmbeddingVectorConverter : JsonConverter<EmbeddingVector>
{
    public override EmbeddingVector Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => throw new NotSupportedException("it is only written");

    public override void Write(Utf8JsonWriter writer, EmbeddingVector value, JsonSerializerOptions options)
    {
        if (value.IsBase64)
        {
            var bytes = new byte[sizeof(float) * value.Numbers.Count];
            for (var i = 0; i < value.Numbers.Count; i++)
                BinaryPrimitives.WriteSingleLittleEndian(bytes.AsSpan(sizeof(float) * i), value.Numbers[i]);
            writer.WriteBase64StringValue(bytes);
            return;
        }
        writer.WriteStartArray();
        foreach (var number in value.Numbers)
            writer.WriteNumberValue(number);
        writer.WriteEndArray();
    }
}

internal sealed record EmbeddingUsage(long PromptTokens, long TotalTokens);

/// <summary>Documents in order, as LocalAI and Jina tell them.</summary>
internal sealed record RerankAnswer(string Model, RerankUsage Usage, IReadOnlyList<RerankItem> Results);

internal sealed record RerankUsage(long TotalTokens, long PromptTokens);

internal sealed record RerankItem(int Index, RerankDocument Document, float RelevanceScore);

internal sealed record RerankDocument(string Text);

/// <summary>Tokens of a text.</summary>
internal sealed record TokenizeAnswer(IReadOnlyList<int> Tokens);

/// <summary>The text of tokens.</summary>
internal sealed record DetokenizeAnswer(string Content);

/// <summary>What was spoken.</summary>
internal sealed record TranscriptAnswer(string Text);

/// <summary>What was spoken, with times in seconds.</summary>
internal sealed record VerboseTranscript(string Task, string Language, double Duration, string Text, IReadOnlyList<TranscriptPart> Segments)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<TranscriptWordPart>? Words { get; init; }
}

internal sealed record TranscriptPart(int Id, double Start, double End, string Text, IReadOnlyList<int> Tokens)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Speaker { get; init; }
}

internal sealed record TranscriptWordPart(string Word, double Start, double End);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(ChatAnswer))]
[JsonSerializable(typeof(TextAnswer))]
[JsonSerializable(typeof(EmbeddingAnswer))]
[JsonSerializable(typeof(RerankAnswer))]
[JsonSerializable(typeof(TokenizeAnswer))]
[JsonSerializable(typeof(DetokenizeAnswer))]
[JsonSerializable(typeof(TranscriptAnswer))]
[JsonSerializable(typeof(VerboseTranscript))]
internal sealed partial class OpenAiAnswerJson : JsonSerializerContext
{
    /// <summary>Leaves letters of all languages as they are: the answers are JSON and never part of a page.</summary>
    public static OpenAiAnswerJson Readable => field ??= new(new JsonSerializerOptions
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    });
}
