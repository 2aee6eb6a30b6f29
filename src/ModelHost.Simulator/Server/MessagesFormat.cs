using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>
/// Answers of <c>/v1/messages</c>. Members that nobody set are left out, in the events also the type and the role of the message.
/// One object answers one request.
/// </summary>
internal sealed class MessagesFormat : GenerationFormat
{
    private PartKind? _open;
    private int _index;
    private FinishReason _finish;

    public override string IdPrefix => "chatcmpl-";

    public override void Whole(Utf8JsonWriter json, in AnswerHead head, Generation generation)
    {
        var sequence = generation.Sequences[0];
        json.WriteStartObject();
        json.WriteString("id"u8, head.Id);
        json.WriteString("type"u8, "message"u8);
        json.WriteString("role"u8, "assistant"u8);
        json.WriteStartArray("content"u8);
        foreach (var piece in sequence.Pieces(0, generation.Done(sequence), generation.FinishOf(sequence)))
            if (piece.Text.Length > 0)
                Block(json, piece);
        json.WriteEndArray();
        json.WriteString("model"u8, generation.Request.Model);
        if (StopReason(generation, generation.FinishOf(sequence)) is { } reason)
            json.WriteString("stop_reason"u8, reason);
        Usage(json, generation, generation.CompletionTokens);
        json.WriteEndObject();
    }

    /// <summary>Comes with the first token, like the role in a chat.</summary>
    public override void Opening(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        var json = buffer.Json;
        Begin(buffer, "message_start"u8);
        json.WriteStartObject("message"u8);
        json.WriteString("id"u8, head.Id);
        json.WriteStartArray("content"u8);
        json.WriteEndArray();
        json.WriteString("model"u8, generation.Request.Model);
        json.WriteNull("stop_reason"u8);
        json.WriteNull("stop_sequence"u8);
        Usage(json, generation, 0);
        json.WriteEndObject();
        buffer.EndEvent();
    }

    public override void Chunk(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, in Piece piece)
    {
        _finish = piece.Finish ?? _finish;
        if (piece.Text.Length == 0)
            return;
        if (_open != piece.Part.Kind || (piece.Part.Call is not null && piece.Opens))
        {
            CloseBlock(buffer);
            OpenBlock(buffer, piece.Part);
        }
        Begin(buffer, "content_block_delta"u8);
        buffer.Json.WriteStartObject("delta"u8);
        var (type, member) = piece.Part.Kind switch
        {
            PartKind.Reasoning => ("thinking_delta", "thinking"),
            PartKind.Text => ("text_delta", "text"),
            PartKind.Call => ("input_json_delta", "partial_json"),
        };
        buffer.Json.WriteString("type"u8, type);
        buffer.Json.WriteString(member, piece.Text);
        buffer.Json.WriteEndObject();
        EndOfBlockEvent(buffer);
    }

    public override void Closing(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        CloseBlock(buffer);
        Begin(buffer, "message_delta"u8);
        buffer.Json.WriteStartObject("delta"u8);
        buffer.Json.WriteString("stop_reason"u8, StopReason(generation, _finish));
        buffer.Json.WriteEndObject();
        Usage(buffer.Json, generation, generation.CompletionTokens);
        buffer.EndEvent();
        Begin(buffer, "message_stop"u8);
        buffer.EndEvent();
    }

    public override bool Failed(ResponseBuffer buffer, ApiException error, bool flat)
    {
        Begin(buffer, "error"u8);
        ErrorObject(buffer.Json, "internal_error", error.Message);
        buffer.EndEvent();
        return true;
    }

    /// <summary>What the body's shape is to blame for is refused before this API sees it, with the common object.</summary>
    public override void Refusal(Utf8JsonWriter json, ApiException error, bool flat)
    {
        if (error.Type == Reasons.Of(error.Status))
        {
            base.Refusal(json, error, flat);
            return;
        }
        json.WriteString("type"u8, "error"u8);
        ErrorObject(json, error.Type, error.Message);
    }

    private static void Block(Utf8JsonWriter json, in Piece piece)
    {
        json.WriteStartObject();
        switch (piece.Part)
        {
            case { Kind: PartKind.Reasoning }:
                json.WriteString("type"u8, "thinking"u8);
                json.WriteString("thinking"u8, piece.Text);
                json.WriteString("signature"u8, Guid.NewGuid().ToString("N"));
                break;
            case { Call: { } call }:
                json.WriteString("type"u8, "tool_use"u8);
                json.WriteString("id"u8, ToolCall.NewId());
                json.WriteString("name"u8, call.Name);
                // arguments that were cut short are no JSON, and the server fails at reading them
                if (piece.Text != call.Arguments)
                    throw new ApiException(500, "internal_error", "Unterminated JSON in the arguments of a tool call");
                json.WritePropertyName("input"u8);
                json.WriteRawValue(call.Arguments);
                break;
            default:
                json.WriteString("type"u8, "text"u8);
                json.WriteString("text"u8, piece.Text);
                break;
        }
        json.WriteEndObject();
    }

    private void OpenBlock(ResponseBuffer buffer, AnswerPart part)
    {
        _open = part.Kind;
        var json = buffer.Json;
        Begin(buffer, "content_block_start"u8);
        json.WriteStartObject("content_block"u8);
        switch (part)
        {
            case { Kind: PartKind.Reasoning }:
                json.WriteString("type"u8, "thinking"u8);
                json.WriteString("thinking"u8, ""u8);
                break;
            case { Call: { } call }:
                json.WriteString("type"u8, "tool_use"u8);
                json.WriteString("id"u8, ToolCall.NewId());
                json.WriteString("name"u8, call.Name);
                json.WriteStartObject("input"u8);
                json.WriteEndObject();
                break;
            default:
                json.WriteString("type"u8, "text"u8);
                json.WriteString("text"u8, ""u8);
                break;
        }
        json.WriteEndObject();
        EndOfBlockEvent(buffer);
    }

    private void CloseBlock(ResponseBuffer buffer)
    {
        if (_open is null)
            return;
        if (_open == PartKind.Reasoning)
        {
            Begin(buffer, "content_block_delta"u8);
            buffer.Json.WriteStartObject("delta"u8);
            buffer.Json.WriteString("type"u8, "signature_delta"u8);
            buffer.Json.WriteString("signature"u8, Guid.NewGuid().ToString("N"));
            buffer.Json.WriteEndObject();
            EndOfBlockEvent(buffer);
        }
        Begin(buffer, "content_block_stop"u8);
        EndOfBlockEvent(buffer);
        _open = null;
        _index++;
    }

    private static string? StopReason(Generation generation, FinishReason finish) => finish switch
    {
        FinishReason.Stop when generation.Request.Calls is [{ Named: false }, ..] => "tool_use",
        FinishReason.Stop => "end_turn",
        FinishReason.Length => "max_tokens",
        _ => null,
    };

    private static void Begin(ResponseBuffer buffer, ReadOnlySpan<byte> type)
    {
        buffer.BeginEvent(type);
        buffer.Json.WriteString("type"u8, type);
    }

    private void EndOfBlockEvent(ResponseBuffer buffer)
    {
        buffer.Json.WriteNumber("index"u8, _index);
        buffer.EndEvent();
    }

    private static void ErrorObject(Utf8JsonWriter json, string type, string message)
    {
        json.WriteStartObject("error"u8);
        json.WriteString("type"u8, type);
        json.WriteString("message"u8, message);
        json.WriteEndObject();
    }

    private static void Usage(Utf8JsonWriter json, Generation generation, int output)
    {
        json.WriteStartObject("usage"u8);
        json.WriteNumber("input_tokens"u8, generation.Request.PromptTokens);
        json.WriteNumber("output_tokens"u8, output);
        json.WriteEndObject();
    }
}
