using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>The members that stand in every answer to one request.</summary>
internal readonly record struct AnswerHead(string Id, long Created, string? Fingerprint, bool PromptTokensDetails);

/// <summary>How one kind of request (chat, completion) is answered, whole and in chunks.</summary>
internal abstract class GenerationFormat
{
    public abstract string IdPrefix { get; }

    protected abstract ReadOnlySpan<byte> WholeObject { get; }

    protected abstract ReadOnlySpan<byte> ChunkObject { get; }

    public abstract GenerationRequest Read(RequestParser parser, JsonElement body);

    /// <summary>The answer to a request without stream. Members that are null stay.</summary>
    public void Whole(Utf8JsonWriter json, in AnswerHead head, Generation generation)
    {
        json.WriteStartObject();
        Head(json, head, generation, WholeObject);
        foreach (var sequence in generation.Sequences)
            WholeChoice(json, generation, sequence);
        json.WriteEndArray();
        json.WriteNull("service_tier"u8);
        json.WriteString("system_fingerprint"u8, head.Fingerprint);
        json.WriteStartObject("usage"u8);
        Usage(json, head, generation, generation.CompletionTokens);
        if (!head.PromptTokensDetails)
            json.WriteNull("prompt_tokens_details"u8);
        json.WriteEndObject();
        WholeTail(json);
        json.WriteEndObject();
    }

    /// <summary>What comes just before the first token of a stream.</summary>
    public virtual void Opening(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
    }

    /// <summary>New text of one choice, or its end.</summary>
    public abstract void Chunk(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, int start, string text, FinishReason? finish);

    /// <summary>The chunk without choices that ends a stream when the client asked for usage.</summary>
    public void UsageChunk(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        BeginEvent(buffer);
        Head(buffer.Json, head, generation, ChunkObject);
        buffer.Json.WriteEndArray();
        if (head.Fingerprint is not null)
            buffer.Json.WriteString("system_fingerprint"u8, head.Fingerprint);
        buffer.Json.WriteStartObject("usage"u8);
        Usage(buffer.Json, head, generation, generation.CompletionTokens);
        buffer.Json.WriteEndObject();
        EndEvent(buffer);
    }

    protected abstract void WholeChoice(Utf8JsonWriter json, Generation generation, Sequence sequence);

    protected abstract void WholeTail(Utf8JsonWriter json);

    protected static void Head(Utf8JsonWriter json, in AnswerHead head, Generation generation, ReadOnlySpan<byte> kind)
    {
        json.WriteString("id"u8, head.Id);
        json.WriteString("object"u8, kind);
        json.WriteNumber("created"u8, head.Created);
        json.WriteString("model"u8, generation.Request.Model);
        json.WriteStartArray("choices"u8);
    }

    protected static void Usage(Utf8JsonWriter json, in AnswerHead head, Generation generation, int completion)
    {
        var prompt = generation.Request.PromptTokens;
        json.WriteNumber("prompt_tokens"u8, prompt);
        json.WriteNumber("total_tokens"u8, prompt + completion);
        json.WriteNumber("completion_tokens"u8, completion);
        if (!head.PromptTokensDetails)
            return;
        json.WriteStartObject("prompt_tokens_details"u8);
        json.WriteNumber("cached_tokens"u8, generation.CachedTokens);
        json.WriteEndObject();
    }

    protected static void ContinuousUsage(Utf8JsonWriter json, in AnswerHead head, Generation generation, int completion)
    {
        json.WriteStartObject("usage"u8);
        Usage(json, head, generation, completion);
        json.WriteEndObject();
    }

    protected static void Finish(Utf8JsonWriter json, FinishReason? finish)
    {
        switch (finish)
        {
            case null: json.WriteNull("finish_reason"u8); break;
            case FinishReason.Stop: json.WriteString("finish_reason"u8, "stop"u8); break;
            case FinishReason.Length: json.WriteString("finish_reason"u8, "length"u8); break;
            case FinishReason.Abort: json.WriteString("finish_reason"u8, "abort"u8); break;
            case FinishReason.Error: json.WriteString("finish_reason"u8, "error"u8); break;
            case FinishReason.Repetition: json.WriteString("finish_reason"u8, "repetition"u8); break;
        }
    }

    protected static void BeginEvent(ResponseBuffer buffer)
    {
        buffer.Raw("data: "u8);
        buffer.Json.WriteStartObject();
    }

    protected static void EndEvent(ResponseBuffer buffer)
    {
        buffer.Json.WriteEndObject();
        buffer.EndJson();
        buffer.Raw("\n\n"u8);
    }
}
