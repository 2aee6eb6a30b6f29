using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Answers of <c>/v1/chat/completions</c>.</summary>
internal sealed class ChatFormat(string role, Release release) : ChoiceFormat
{
    public override string IdPrefix => "chatcmpl-";

    public override bool TakesComments => true;

    protected override ReadOnlySpan<byte> WholeObject => "chat.completion"u8;

    protected override ReadOnlySpan<byte> ChunkObject => "chat.completion.chunk"u8;

    /// <summary>The role chunks of all choices, sent together with the first token and not on admission.</summary>
    public override void Opening(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        foreach (var sequence in generation.Sequences)
        {
            var json = buffer.Json;
            buffer.BeginEvent();
            Head(json, head, generation, ChunkObject);
            json.WriteStartObject();
            json.WriteNumber("index"u8, sequence.Index);
            json.WriteStartObject("delta"u8);
            json.WriteString("role"u8, role);
            json.WriteString("content"u8, ""u8);
            json.WriteEndObject();
            json.WriteNull("logprobs"u8);
            json.WriteNull("finish_reason"u8);
            json.WriteEndObject();
            json.WriteEndArray();
            if (generation.Request.ContinuousUsage)
                ContinuousUsage(json, head, generation, 0);
            json.WriteNull("prompt_token_ids"u8);
            if (release.Has(Traits.TellsOfExpertsAndPrompt))
                json.WriteNull("prompt_text"u8);
            buffer.EndEvent();
        }
    }

    public override void Chunk(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, in Piece piece)
    {
        var json = buffer.Json;
        var reasoning = piece.Part.Kind == PartKind.Reasoning;
        // withheld reasoning has no chunks; the end of the answer has one whatever it is
        if (reasoning && !generation.Request.ShowReasoning && piece.Finish is null)
            return;
        if (piece.Part.Call is { } call && piece.Opens)
            CallName(buffer, head, generation, sequence, call, piece.Part.CallIndex);
        buffer.BeginEvent();
        Head(json, head, generation, ChunkObject);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteStartObject("delta"u8);
        if (reasoning)
            Reasoning(json, generation.Request.ShowReasoning ? piece.Text : "");
        else if (piece.Part.Call is null || piece.Text.Length == 0)
            json.WriteString("content"u8, piece.Text);
        else
            CallFragment(json, piece.Text, piece.Part.CallIndex);
        json.WriteEndObject();
        Logprobs.Chat(json, Told(generation), sequence, piece.Start, piece.End);
        Finish(json, generation, piece.Finish);
        if (piece.Finish is not null)
            json.WriteString("stop_reason"u8, piece.Finish == FinishReason.Stop ? sequence.StopReason : null);
        json.WriteNull("token_ids"u8);
        json.WriteEndObject();
        json.WriteEndArray();
        if (piece.Finish is not null && !generation.Request.IncludeUsage && head.Fingerprint is not null)
            json.WriteString("system_fingerprint"u8, head.Fingerprint);
        if (generation.Request.ContinuousUsage)
            ContinuousUsage(json, head, generation, generation.Done(sequence));
        buffer.EndEvent();
    }

    /// <summary>The first chunk of a call has its id and name, the later ones pieces of the arguments.</summary>
    private void CallName(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, ToolCall call, int index)
    {
        var json = buffer.Json;
        buffer.BeginEvent();
        Head(json, head, generation, ChunkObject);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteStartObject("delta"u8);
        json.WriteStartArray("tool_calls"u8);
        json.WriteStartObject();
        json.WriteString("id"u8, ToolCall.NewId());
        json.WriteString("type"u8, "function"u8);
        json.WriteNumber("index"u8, index);
        json.WriteStartObject("function"u8);
        json.WriteString("name"u8, call.Name);
        json.WriteEndObject();
        json.WriteEndObject();
        json.WriteEndArray();
        json.WriteEndObject();
        json.WriteNull("logprobs"u8);
        json.WriteNull("finish_reason"u8);
        json.WriteNull("token_ids"u8);
        json.WriteEndObject();
        json.WriteEndArray();
        buffer.EndEvent();
    }

    private static void CallFragment(Utf8JsonWriter json, string text, int index)
    {
        json.WriteStartArray("tool_calls"u8);
        json.WriteStartObject();
        json.WriteNumber("index"u8, index);
        json.WriteStartObject("function"u8);
        json.WriteString("arguments"u8, text);
        json.WriteEndObject();
        json.WriteEndObject();
        json.WriteEndArray();
    }

    private void Reasoning(Utf8JsonWriter json, string? text)
    {
        if (release.Has(Traits.WritesReasoning))
            json.WriteString("reasoning"u8, text);
        if (release.Has(Traits.WritesReasoningContent))
            json.WriteString("reasoning_content"u8, text);
    }

    /// <summary>What is told of the tokens: nothing where reasoning is withheld, which they would give away.</summary>
    private static int? Told(Generation generation) =>
        generation.Request is { Reasons: true, ShowReasoning: false } ? null : generation.Request.Logprobs;

    /// <summary>A call that the model chose, or had to make, ends with tool_calls; one that the client named with stop.</summary>
    private static void Finish(Utf8JsonWriter json, Generation generation, FinishReason? finish)
    {
        if (finish == FinishReason.Stop && generation.Request.Calls is [{ Named: false }, ..])
            json.WriteString("finish_reason"u8, "tool_calls"u8);
        else
            Finish(json, finish);
    }

    protected override void WholeChoice(Utf8JsonWriter json, Generation generation, Sequence sequence)
    {
        var finish = generation.FinishOf(sequence);
        var (calls, done) = (generation.Request.Calls, generation.Done(sequence));
        var reasoned = Math.Min(sequence.ReasoningTokens, done);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteStartObject("message"u8);
        json.WriteString("role"u8, role);
        if (calls.Count == 0)
            json.WriteString("content"u8, sequence.Text(reasoned, done));
        else
            json.WriteString("content"u8, calls[0].Chosen ? null : "");
        json.WriteNull("refusal"u8);
        json.WriteNull("annotations"u8);
        json.WriteNull("audio"u8);
        json.WriteNull("function_call"u8);
        if (calls.Count > 0 || release.Has(Traits.EmptyToolCalls))
            Calls(json, sequence, done);
        Reasoning(json, reasoned > 0 && generation.Request.ShowReasoning ? sequence.Text(0, reasoned) : null);
        json.WriteEndObject();
        Logprobs.Chat(json, Told(generation), sequence, 0, done);
        Finish(json, generation, finish);
        json.WriteString("stop_reason"u8, finish == FinishReason.Stop ? sequence.StopReason : null);
        json.WriteNull("token_ids"u8);
        if (release.Has(Traits.TellsOfExpertsAndPrompt))
            json.WriteNull("routed_experts"u8);
        json.WriteEndObject();
    }

    private static void Calls(Utf8JsonWriter json, Sequence sequence, int done)
    {
        json.WriteStartArray("tool_calls"u8);
        foreach (var piece in sequence.Pieces(0, done, null))
        {
            if (piece.Part.Call is not { } call)
                continue;
            json.WriteStartObject();
            json.WriteString("id"u8, ToolCall.NewId());
            json.WriteString("type"u8, "function"u8);
            json.WriteStartObject("function"u8);
            json.WriteString("name"u8, call.Name);
            json.WriteString("arguments"u8, piece.Text);
            json.WriteEndObject();
            json.WriteEndObject();
        }
        json.WriteEndArray();
    }

    protected override void WholeTail(Utf8JsonWriter json, Generation generation)
    {
        Logprobs.OfPrompt(json, generation.Request.PromptLogprobs, generation.Request.Prompts[0]);
        json.WriteNull("prompt_token_ids"u8);
        json.WriteNull("kv_transfer_params"u8);
    }
}
