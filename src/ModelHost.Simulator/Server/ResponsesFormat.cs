using System.Buffers;
using System.Text;
using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Answers of <c>/v1/responses</c>; one object answers one request.</summary>
/// <param name="request">The request, whose members stand in the answer.</param>
/// <param name="finished">Gets every response that came to its end, with the text it says.</param>
internal sealed class ResponsesFormat(ResponsesRequest request, Action<byte[], string>? finished) : GenerationFormat
{
    private readonly Dictionary<int, string> _callIds = [];
    private int _events;
    private int _item;
    private string _itemId = "";
    private AnswerPart? _open;
    private readonly StringBuilder _said = new();

    /// <summary>Unused: the id is the request's.</summary>
    public override string IdPrefix => "";

    public override void Whole(Utf8JsonWriter json, in AnswerHead head, Generation generation)
    {
        json.WriteRawValue(Finished(head, generation), skipInputValidation: true);
    }

    /// <summary>A response without output in this state.</summary>
    public byte[] Empty(in AnswerHead head, Generation generation, string status) => Render(head, generation, status, output: false);

    /// <summary>The response at its end, which is also reported.</summary>
    public byte[] Finished(in AnswerHead head, Generation generation)
    {
        var json = Render(head, generation, Status(generation), output: true);
        var sequence = generation.Sequences[0];
        finished?.Invoke(json, string.Concat(sequence.Pieces(0, generation.Done(sequence), null)
            .Where(piece => piece.Part.Kind == PartKind.Text).Select(piece => piece.Text)));
        return json;
    }

    public override void Accepted(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        var response = Empty(head, generation, "in_progress");
        Response(buffer, "response.created"u8, response);
        Response(buffer, "response.in_progress"u8, response);
    }

    public override void Chunk(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, in Piece piece)
    {
        if (piece.Text.Length == 0)
            return;
        if (_open != piece.Part)
        {
            Close(buffer);
            Open(buffer, piece.Part);
        }
        _said.Append(piece.Text);
        Begin(buffer, piece.Part.Kind switch
        {
            PartKind.Reasoning => "response.reasoning_text.delta"u8,
            PartKind.Text => "response.output_text.delta"u8,
            PartKind.Call => "response.function_call_arguments.delta"u8,
        });
        var json = buffer.Json;
        if (piece.Part.Kind != PartKind.Call)
            json.WriteNumber("content_index"u8, 0);
        json.WriteString("delta"u8, piece.Text);
        if (piece.Part.Kind == PartKind.Text)
        {
            json.WriteStartArray("logprobs"u8);
            if (generation.Request.Logprobs is { } top)
                Logprobs.Tokens(json, top, sequence, piece.Start, piece.End, withBytes: false);
            json.WriteEndArray();
        }
        End(buffer);
    }

    public override void Closing(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        Close(buffer);
        Response(buffer, "response.completed"u8, Finished(head, generation));
    }

    /// <summary>The server has no event for this, fails at making one, and the stream breaks.</summary>
    public override bool Failed(ResponseBuffer buffer, ApiException error, bool flat) => false;

    private byte[] Render(in AnswerHead head, Generation generation, string status, bool output)
    {
        var bytes = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(bytes, ResponseBuffer.Style))
        {
            json.WriteStartObject();
            Members(json, head, generation, status, output);
            json.WriteEndObject();
        }
        return bytes.WrittenSpan.ToArray();
    }

    private static string Status(Generation generation) =>
        generation.FinishOf(generation.Sequences[0]) == FinishReason.Length ? "incomplete" : "completed";

    /// <summary>An event about the response itself.</summary>
    private void Response(ResponseBuffer buffer, ReadOnlySpan<byte> type, byte[] response)
    {
        buffer.BeginEvent(type);
        buffer.Json.WritePropertyName("response"u8);
        buffer.Json.WriteRawValue(response, skipInputValidation: true);
        buffer.Json.WriteNumber("sequence_number"u8, _events++);
        buffer.Json.WriteString("type"u8, type);
        buffer.EndEvent();
    }

    private void Members(Utf8JsonWriter json, in AnswerHead head, Generation generation, string status, bool output)
    {
        json.WriteString("id"u8, head.Id);
        json.WriteNumber("created_at"u8, head.Created);
        if (status == "incomplete")
        {
            json.WriteStartObject("incomplete_details"u8);
            json.WriteString("reason"u8, "max_output_tokens"u8);
            json.WriteEndObject();
        }
        else
            json.WriteNull("incomplete_details"u8);
        Echo(json, "instructions", "null");
        Echo(json, "metadata", "null");
        json.WriteString("model"u8, generation.Request.Model);
        json.WriteString("object"u8, "response"u8);
        json.WriteStartArray("output"u8);
        if (output)
            Output(json, generation);
        json.WriteEndArray();
        Echo(json, "parallel_tool_calls", "true");
        Echo(json, "temperature", "1.0");
        Echo(json, "tool_choice", "\"auto\"");
        Echo(json, "tools", "[]");
        Echo(json, "top_p", "1.0");
        json.WriteBoolean("background"u8, request.Background);
        json.WriteNumber("max_output_tokens"u8, generation.Request.MaxTokens);
        Echo(json, "max_tool_calls", "null");
        Echo(json, "previous_response_id", "null");
        json.WriteNull("prompt"u8);
        Echo(json, "reasoning", "null");
        Echo(json, "service_tier", "\"auto\"");
        json.WriteString("status"u8, status);
        Echo(json, "text", "null");
        if (generation.Request.Logprobs is { } top)
            json.WriteNumber("top_logprobs"u8, top);
        else
            json.WriteNull("top_logprobs"u8);
        Echo(json, "truncation", "\"disabled\"");
        if (output)
            Usage(json, generation);
        else
            json.WriteNull("usage"u8);
        Echo(json, "user", "null");
        json.WriteNull("input_messages"u8);
        json.WriteNull("output_messages"u8);
        json.WriteNull("kv_transfer_params"u8);
    }

    /// <summary>A member as the request had it.</summary>
    private void Echo(Utf8JsonWriter json, string name, string otherwise)
    {
        json.WritePropertyName(name);
        if (request.Body.Field(name) is { } value)
            value.WriteTo(json);
        else
            json.WriteRawValue(otherwise);
    }

    private void Output(Utf8JsonWriter json, Generation generation)
    {
        var sequence = generation.Sequences[0];
        foreach (var piece in sequence.Pieces(0, generation.Done(sequence), null))
            switch (piece.Part)
            {
                case { Kind: PartKind.Reasoning }:
                    ResponseItems.ReasoningItem(json, $"rs_{Guid.NewGuid():N}", piece.Text, null);
                    break;
                case { Call: { } call }:
                    ResponseItems.CallItem(json, $"fc_{Guid.NewGuid():N}", call.Name, CallId(piece.Part), piece.Text, "completed"u8);
                    break;
                default:
                    ResponseItems.MessageItem(json, $"msg_{Guid.NewGuid():N}", piece.Text, "completed"u8,
                        generation.Request.Logprobs is { } top ? to => Logprobs.Tokens(to, top, sequence, piece.Start, piece.End) : null);
                    break;
            }
    }

    private static void Usage(Utf8JsonWriter json, Generation generation)
    {
        var sequence = generation.Sequences[0];
        json.WriteStartObject("usage"u8);
        json.WriteNumber("input_tokens"u8, generation.Request.PromptTokens);
        json.WriteStartObject("input_tokens_details"u8);
        json.WriteNumber("cached_tokens"u8, generation.CachedTokens);
        ResponseItems.EmptyArray(json, "input_tokens_per_turn"u8);
        ResponseItems.EmptyArray(json, "cached_tokens_per_turn"u8);
        json.WriteEndObject();
        json.WriteNumber("output_tokens"u8, generation.CompletionTokens);
        json.WriteStartObject("output_tokens_details"u8);
        json.WriteNumber("reasoning_tokens"u8, Math.Min(sequence.ReasoningTokens, generation.Done(sequence)));
        json.WriteNumber("tool_output_tokens"u8, 0);
        ResponseItems.EmptyArray(json, "output_tokens_per_turn"u8);
        ResponseItems.EmptyArray(json, "tool_output_tokens_per_turn"u8);
        json.WriteEndObject();
        json.WriteNumber("total_tokens"u8, generation.Request.PromptTokens + generation.CompletionTokens);
        json.WriteEndObject();
    }

    private void Open(ResponseBuffer buffer, AnswerPart part)
    {
        var json = buffer.Json;
        (_open, _itemId) = (part, Guid.NewGuid().ToString("N"));
        _said.Clear();
        BeginItem(buffer, "response.output_item.added"u8);
        Item(json, "in_progress"u8);
        End(buffer);
        if (part.Kind == PartKind.Call)
            return;
        Begin(buffer, part.Kind == PartKind.Text ? "response.content_part.added"u8 : "response.reasoning_part.added"u8);
        json.WriteNumber("content_index"u8, 0);
        ContentPart(json, part.Kind, withLogprobs: true);
        End(buffer);
    }

    private void Close(ResponseBuffer buffer)
    {
        if (_open is not { } part)
            return;
        var json = buffer.Json;
        Begin(buffer, part.Kind switch
        {
            PartKind.Reasoning => "response.reasoning_text.done"u8,
            PartKind.Text => "response.output_text.done"u8,
            PartKind.Call => "response.function_call_arguments.done"u8,
        });
        if (part.Call is { } call)
        {
            json.WriteString("arguments"u8, _said.ToString());
            json.WriteString("name"u8, call.Name);
            End(buffer);
        }
        else
        {
            json.WriteNumber("content_index"u8, 0);
            json.WriteString("text"u8, _said.ToString());
            if (part.Kind == PartKind.Text)
                ResponseItems.EmptyArray(json, "logprobs"u8);
            End(buffer);
            Begin(buffer, part.Kind == PartKind.Text ? "response.content_part.done"u8 : "response.reasoning_part.done"u8);
            json.WriteNumber("content_index"u8, 0);
            ContentPart(json, part.Kind, withLogprobs: false);
            End(buffer);
        }
        BeginItem(buffer, "response.output_item.done"u8);
        Item(json, "completed"u8);
        End(buffer);
        (_open, _item) = (null, _item + 1);
    }

    /// <summary>The item that is open, as far as it goes.</summary>
    private void Item(Utf8JsonWriter json, ReadOnlySpan<byte> status)
    {
        json.WritePropertyName("item"u8);
        switch (_open!)
        {
            case { Kind: PartKind.Reasoning }:
                ResponseItems.ReasoningItem(json, _itemId, _said.Length == 0 ? null : _said.ToString(), status);
                break;
            case { Call: { } call } part:
                ResponseItems.CallItem(json, _itemId, call.Name, CallId(part), _said.ToString(), status);
                break;
            default:
                ResponseItems.MessageItem(json, _itemId, _said.ToString(), status);
                break;
        }
    }

    private string CallId(AnswerPart part)
    {
        if (!_callIds.TryGetValue(part.CallIndex, out var id))
            _callIds[part.CallIndex] = id = $"call_{Guid.NewGuid():N}";
        return id;
    }

    private void ContentPart(Utf8JsonWriter json, PartKind kind, bool withLogprobs)
    {
        json.WritePropertyName("part"u8);
        if (kind == PartKind.Text)
        {
            ResponseItems.OutputText(json, _said.ToString(), withLogprobs ? static _ => { } : null);
            return;
        }
        json.WriteStartObject();
        json.WriteString("text"u8, _said.ToString());
        json.WriteString("type"u8, "reasoning_text"u8);
        json.WriteEndObject();
    }

    private void Begin(ResponseBuffer buffer, ReadOnlySpan<byte> type)
    {
        BeginItem(buffer, type);
        buffer.Json.WriteString("item_id"u8, _itemId);
    }

    private static void BeginItem(ResponseBuffer buffer, ReadOnlySpan<byte> type)
    {
        buffer.BeginEvent(type);
        buffer.Json.WriteString("type"u8, type);
    }

    private void End(ResponseBuffer buffer)
    {
        buffer.Json.WriteNumber("output_index"u8, _item);
        buffer.Json.WriteNumber("sequence_number"u8, _events++);
        buffer.EndEvent();
    }
}
