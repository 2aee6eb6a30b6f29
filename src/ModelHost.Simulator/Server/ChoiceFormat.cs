using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Answers that consist of choices: those of chat and completions.</summary>
internal abstract class ChoiceFormat : GenerationFormat
{
    protected abstract ReadOnlySpan<byte> WholeObject { get; }

    protected abstract ReadOnlySpan<byte> ChunkObject { get; }

    /// <inheritdoc/>
    /// <remarks>Members that are null stay.</remarks>
    public override void Whole(Utf8JsonWriter json, in AnswerHead head, Generation generation)
    {
        json.WriteStartObject();
        Head(json, head, generation, WholeObject);
        foreach (var sequence in generation.Sequences)
            WholeChoice(json, generation, sequence);
        json.WriteEndArray();
        json.WriteNull("service_tier"u8);
        json.WriteString("system_fingerprint"u8, head.Fingerprint);
        json.WriteStartObject("usage"u8);
        Usage(json, head, generation, generation.CompletionTokens, nulls: true);
        json.WriteEndObject();
        WholeTail(json, generation);
        json.WriteEndObject();
    }

    /// <summary>The chunk without choices, when the client asked for usage, and the mark of the end.</summary>
    public override void Closing(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        if (generation.Request.IncludeUsage)
        {
            buffer.BeginEvent();
            Head(buffer.Json, head, generation, ChunkObject);
            buffer.Json.WriteEndArray();
            if (head.Fingerprint is not null)
                buffer.Json.WriteString("system_fingerprint"u8, head.Fingerprint);
            buffer.Json.WriteStartObject("usage"u8);
            Usage(buffer.Json, head, generation, generation.CompletionTokens);
            buffer.Json.WriteEndObject();
            buffer.EndEvent();
        }
        buffer.Done();
    }

    public override bool Failed(ResponseBuffer buffer, ApiException error, bool flat) => Answers.FailureEvent(buffer, error, flat);

    protected abstract void WholeChoice(Utf8JsonWriter json, Generation generation, Sequence sequence);

    protected abstract void WholeTail(Utf8JsonWriter json, Generation generation);

    protected static void Head(Utf8JsonWriter json, in AnswerHead head, Generation generation, ReadOnlySpan<byte> kind)
    {
        json.WriteString("id"u8, head.Id);
        json.WriteString("object"u8, kind);
        json.WriteNumber("created"u8, head.Created);
        json.WriteString("model"u8, generation.Request.Model);
        json.WriteStartArray("choices"u8);
    }

    /// <param name="json">Takes the members.</param>
    /// <param name="head">Says which there are.</param>
    /// <param name="generation">The request.</param>
    /// <param name="completion">Tokens of the answer so far.</param>
    /// <param name="nulls">Those that nobody set are there too.</param>
    protected static void Usage(Utf8JsonWriter json, in AnswerHead head, Generation generation, int completion, bool nulls = false)
    {
        var prompt = generation.Request.PromptTokens;
        json.WriteNumber("prompt_tokens"u8, prompt);
        json.WriteNumber("total_tokens"u8, prompt + completion);
        json.WriteNumber("completion_tokens"u8, completion);
        if (head.PromptTokensDetails)
            Detail(json, "prompt_tokens_details"u8, "cached_tokens"u8, generation.CachedTokens);
        else if (nulls)
            json.WriteNull("prompt_tokens_details"u8);
        if (!head.CompletionTokensDetails)
            return;
        if (generation.Request.Reasons)
            Detail(json, "completion_tokens_details"u8, "reasoning_tokens"u8,
                generation.Sequences.Sum(sequence => Math.Min(sequence.ReasoningTokens, generation.Done(sequence))));
        else if (nulls)
            json.WriteNull("completion_tokens_details"u8);
    }

    private static void Detail(Utf8JsonWriter json, ReadOnlySpan<byte> details, ReadOnlySpan<byte> name, int tokens)
    {
        json.WriteStartObject(details);
        json.WriteNumber(name, tokens);
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
}
