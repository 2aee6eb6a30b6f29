using System.Globalization;
using System.Text.Json;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary>Answers of <c>/inference/v1/generate</c>: token ids in place of text.</summary>
internal sealed class TokensFormat : ChoiceFormat
{
    public override string IdPrefix => "generate-tokens-";

    /// <summary>Unused: these answers do not name their kind.</summary>
    protected override ReadOnlySpan<byte> WholeObject => [];

    /// <inheritdoc cref="WholeObject"/>
    protected override ReadOnlySpan<byte> ChunkObject => [];

    public override void Whole(Utf8JsonWriter json, in AnswerHead head, Generation generation)
    {
        json.WriteStartObject();
        json.WriteString("request_id"u8, head.Id);
        json.WriteStartArray("choices"u8);
        foreach (var sequence in generation.Sequences)
            WholeChoice(json, generation, sequence);
        json.WriteEndArray();
        WholeTail(json, generation);
        json.WriteEndObject();
    }

    public override void Chunk(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, in Piece piece)
    {
        buffer.BeginEvent();
        buffer.Json.WriteString("request_id"u8, head.Id);
        buffer.Json.WriteStartArray("choices"u8);
        Choice(buffer.Json, generation, sequence, piece.Start, piece.End);
        Finish(buffer.Json, piece.Finish);
        Ids(buffer.Json, sequence, piece.Start, piece.End);
        buffer.Json.WriteEndObject();
        buffer.Json.WriteEndArray();
        if (generation.Request.ContinuousUsage)
            ContinuousUsage(buffer.Json, head, generation, generation.Done(sequence));
        else
            buffer.Json.WriteNull("usage"u8);
        buffer.EndEvent();
    }

    public override void Closing(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        if (generation.Request.IncludeUsage)
        {
            buffer.BeginEvent();
            buffer.Json.WriteString("request_id"u8, head.Id);
            buffer.Json.WriteStartArray("choices"u8);
            buffer.Json.WriteEndArray();
            ContinuousUsage(buffer.Json, head, generation, generation.CompletionTokens);
            buffer.EndEvent();
        }
        buffer.Done();
    }

    protected override void WholeChoice(Utf8JsonWriter json, Generation generation, Sequence sequence)
    {
        var done = generation.Done(sequence);
        Choice(json, generation, sequence, 0, done);
        Finish(json, generation.FinishOf(sequence));
        Ids(json, sequence, 0, done);
        json.WriteEndObject();
    }

    protected override void WholeTail(Utf8JsonWriter json, Generation generation)
    {
        Logprobs.OfPrompt(json, generation.Request.PromptLogprobs, generation.Request.Prompts[0]);
        json.WriteNull("kv_transfer_params"u8);
    }

    private static void Choice(Utf8JsonWriter json, Generation generation, Sequence sequence, int start, int end)
    {
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        if (generation.Request.Logprobs is not { } top)
        {
            json.WriteNull("logprobs"u8);
            return;
        }
        json.WriteStartObject("logprobs"u8);
        json.WriteStartArray("content"u8);
        for (var at = start; at < end; at++)
        {
            var candidates = Likelihood.At(sequence.Token(at), at, top == 0 ? 1 : top).ToArray();
            json.WriteStartObject();
            Token(json, candidates[0]);
            json.WriteStartArray("top_logprobs"u8);
            foreach (var candidate in candidates)
            {
                json.WriteStartObject();
                Token(json, candidate);
                json.WriteEndObject();
            }
            json.WriteEndArray();
            json.WriteEndObject();
        }
        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static void Token(Utf8JsonWriter json, in Candidate candidate)
    {
        json.WriteString("token"u8, string.Create(CultureInfo.InvariantCulture, $"token_id:{candidate.Id}"));
        json.WriteNumber("logprob"u8, candidate.Logprob);
        json.WriteNull("bytes"u8);
    }

    private static void Ids(Utf8JsonWriter json, Sequence sequence, int start, int end)
    {
        json.WriteStartArray("token_ids"u8);
        for (var at = start; at < end; at++)
            json.WriteNumberValue(Tokenizer.Encode(sequence.Token(at) is { Length: > 0 } token ? token : Likelihood.EndOfText)[0]);
        json.WriteEndArray();
    }
}
