using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Answers of <c>/v1/chat/completions</c>.</summary>
internal sealed class ChatFormat(string role, Release release) : GenerationFormat
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
        ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, int start, string text, FinishReason? finish)
    {
        var json = buffer.Json;
        var reasoning = start < sequence.ReasoningTokens;
        // withheld reasoning has no chunks; the end of the answer has one whatever it is
        if (reasoning && !generation.Request.ShowReasoning && finish is null)
            return;
        var tool = reasoning ? null : generation.Request.Tool;
        if (tool is not null && start == sequence.ReasoningTokens)
            ToolName(buffer, head, generation, sequence, tool);
        BeginEvent(buffer);
        Head(json, head, generation, ChunkObject);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteStartObject("delta"u8);
        if (reasoning)
            Reasoning(json, generation.Request.ShowReasoning ? text : "");
        else if (tool is null || text.Length == 0)
            json.WriteString("content"u8, text);
        else
            ToolFragment(json, text);
        json.WriteEndObject();
        json.WriteNull("logprobs"u8);
        Finish(json, generation, finish);
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

    /// <summary>The first chunk of a call has its id and name, the later ones pieces of the arguments.</summary>
    private void ToolName(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, ToolCall tool)
    {
        var json = buffer.Json;
        BeginEvent(buffer);
        Head(json, head, generation, ChunkObject);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteStartObject("delta"u8);
        json.WriteStartArray("tool_calls"u8);
        json.WriteStartObject();
        json.WriteString("id"u8, $"chatcmpl-tool-{Guid.NewGuid():N}");
        json.WriteString("type"u8, "function"u8);
        json.WriteNumber("index"u8, 0);
        json.WriteStartObject("function"u8);
        json.WriteString("name"u8, tool.Name);
        json.WriteEndObject();
        json.WriteEndObject();
        json.WriteEndArray();
        json.WriteEndObject();
        json.WriteNull("logprobs"u8);
        json.WriteNull("finish_reason"u8);
        json.WriteNull("token_ids"u8);
        json.WriteEndObject();
        json.WriteEndArray();
        EndEvent(buffer);
    }

    private static void ToolFragment(Utf8JsonWriter json, string text)
    {
        json.WriteStartArray("tool_calls"u8);
        json.WriteStartObject();
        json.WriteNumber("index"u8, 0);
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

    /// <summary>A call that the model chose, or had to make, ends with tool_calls; one that the client named with stop.</summary>
    private static void Finish(Utf8JsonWriter json, Generation generation, FinishReason? finish)
    {
        if (finish == FinishReason.Stop && generation.Request.Tool is { Named: false })
            json.WriteString("finish_reason"u8, "tool_calls"u8);
        else
            Finish(json, finish);
    }

    protected override void WholeChoice(Utf8JsonWriter json, Generation generation, Sequence sequence)
    {
        var finish = generation.FinishOf(sequence);
        var (tool, done) = (generation.Request.Tool, generation.Done(sequence));
        var reasoned = Math.Min(sequence.ReasoningTokens, done);
        json.WriteStartObject();
        json.WriteNumber("index"u8, sequence.Index);
        json.WriteStartObject("message"u8);
        json.WriteString("role"u8, role);
        if (tool is null)
            json.WriteString("content"u8, sequence.Text(reasoned, done));
        else
            json.WriteString("content"u8, tool.Chosen ? null : "");
        json.WriteNull("refusal"u8);
        json.WriteNull("annotations"u8);
        json.WriteNull("audio"u8);
        json.WriteNull("function_call"u8);
        if (tool is not null)
        {
            json.WriteStartArray("tool_calls"u8);
            json.WriteStartObject();
            json.WriteString("id"u8, $"chatcmpl-tool-{Guid.NewGuid():N}");
            json.WriteString("type"u8, "function"u8);
            json.WriteStartObject("function"u8);
            json.WriteString("name"u8, tool.Name);
            json.WriteString("arguments"u8, sequence.Text(reasoned, done));
            json.WriteEndObject();
            json.WriteEndObject();
            json.WriteEndArray();
        }
        else if (release.Has(Traits.EmptyToolCalls))
        {
            json.WriteStartArray("tool_calls"u8);
            json.WriteEndArray();
        }
        Reasoning(json, reasoned > 0 && generation.Request.ShowReasoning ? sequence.Text(0, reasoned) : null);
        json.WriteEndObject();
        json.WriteNull("logprobs"u8);
        Finish(json, generation, finish);
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
