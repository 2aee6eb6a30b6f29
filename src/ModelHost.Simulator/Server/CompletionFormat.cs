using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Answers of <c>/v1/completions</c>.</summary>
internal sealed class CompletionFormat : ChoiceFormat
{
    public override string IdPrefix => "cmpl-";

    public override bool TakesComments => true;

    protected override ReadOnlySpan<byte> WholeObject => "text_completion"u8;

    protected override ReadOnlySpan<byte> ChunkObject => "text_completion"u8;

    public override void Chunk(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, in Piece piece)
    {
        var json = buffer.Json;
        buffer.BeginEvent();
        Head(json, head, generation, ChunkObject);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteString("text"u8, generation.Request.Echo && piece.Start == 0 ? sequence.Prompt.Text + piece.Text : piece.Text);
        Logprobs.Completion(json, generation.Request.Logprobs, sequence, piece.Start, piece.End, generation.Request.Echo);
        Finish(json, piece.Finish);
        json.WriteString("stop_reason"u8, piece.Finish == FinishReason.Stop ? sequence.StopReason : null);
        json.WriteNull("prompt_token_ids"u8);
        json.WriteNull("token_ids"u8);
        json.WriteEndObject();
        json.WriteEndArray();
        // chunks of this route, unlike those of chat, keep the members that nobody set
        if (generation.Request.ContinuousUsage)
            ContinuousUsage(json, head, generation, generation.Done(sequence));
        else
            json.WriteNull("usage"u8);
        buffer.EndEvent();
    }

    protected override void WholeChoice(Utf8JsonWriter json, Generation generation, Sequence sequence)
    {
        var finish = generation.FinishOf(sequence);
        var text = sequence.Text(0, generation.Done(sequence));
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteString("text"u8, generation.Request.Echo ? sequence.Prompt.Text + text : text);
        Logprobs.Completion(json, generation.Request.Logprobs, sequence, 0, generation.Done(sequence), generation.Request.Echo);
        Finish(json, finish);
        json.WriteString("stop_reason"u8, finish == FinishReason.Stop ? sequence.StopReason : null);
        Logprobs.OfPrompt(json, generation.Request.PromptLogprobs, sequence.Prompt);
        json.WriteNull("prompt_token_ids"u8);
        json.WriteNull("token_ids"u8);
        json.WriteEndObject();
    }

    protected override void WholeTail(Utf8JsonWriter json, Generation generation) => json.WriteNull("kv_transfer_params"u8);
}
