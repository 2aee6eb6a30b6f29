using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Answers of <c>/v1/chat/completions</c>.</summary>
internal sealed class ChatFormat(string role) : GenerationFormat
{
    public override string IdPrefix => "chatcmpl-";

    protected override ReadOnlySpan<byte> WholeObject => "chat.completion"u8;

    protected override ReadOnlySpan<byte> ChunkObject => "chat.completion.chunk"u8;

    public override GenerationRequest Read(RequestParser parser, JsonElement body) => parser.Chat(body);

    /// <summary>The role chunks of all choices, sent together with the first token and not on admission.</summary>
    public override void Opening(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        foreach (var sequence in generation.Sequences)
        {
            var json = buffer.Json;
            BeginEvent(buffer);
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
            EndEvent(buffer);
        }
    }

    public override void Chunk(
        ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, string text, FinishReason? finish)
    {
        var json = buffer.Json;
        BeginEvent(buffer);
        Head(json, head, generation, ChunkObject);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteStartObject("delta"u8);
        json.WriteString("content"u8, text);
        json.WriteEndObject();
        json.WriteNull("logprobs"u8);
        Finish(json, finish);
        if (finish is not null)
            json.WriteString("stop_reason"u8, finish == FinishReason.Stop ? sequence.StopReason : null);
        json.WriteNull("token_ids"u8);
        json.WriteEndObject();
        json.WriteEndArray();
        if (finish is not null && !generation.Request.IncludeUsage && head.Fingerprint is not null)
            json.WriteString("system_fingerprint"u8, head.Fingerprint);
        if (generation.Request.ContinuousUsage)
            ContinuousUsage(json, head, generation, generation.Done(sequence));
        EndEvent(buffer);
    }

    protected override void WholeChoice(Utf8JsonWriter json, Generation generation, Sequence sequence)
    {
        var finish = generation.FinishOf(sequence);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteStartObject("message"u8);
        json.WriteString("role"u8, role);
        json.WriteString("content"u8, sequence.Text(0, generation.Done(sequence)));
        json.WriteNull("refusal"u8);
        json.WriteNull("annotations"u8);
        json.WriteNull("audio"u8);
        json.WriteNull("function_call"u8);
        json.WriteNull("reasoning"u8);
        json.WriteEndObject();
        json.WriteNull("logprobs"u8);
        Finish(json, finish);
        json.WriteString("stop_reason"u8, finish == FinishReason.Stop ? sequence.StopReason : null);
        json.WriteNull("token_ids"u8);
        json.WriteNull("routed_experts"u8);
        json.WriteEndObject();
    }

    protected override void WholeTail(Utf8JsonWriter json)
    {
        json.WriteNull("prompt_logprobs"u8);
        json.WriteNull("prompt_token_ids"u8);
        json.WriteNull("kv_transfer_params"u8);
    }
}
