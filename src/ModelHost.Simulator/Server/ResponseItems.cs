using System.Text.Json;

namespace ModelHost.Simulator.Server;

/// <summary>Writes the items of which the output of a response consists.</summary>
internal static class ResponseItems
{
    /// <summary>What the model thought; the text is null while there is none.</summary>
    public static void ReasoningItem(Utf8JsonWriter json, string id, string? text, ReadOnlySpan<byte> status)
    {
        json.WriteStartObject();
        json.WriteString("id"u8, id);
        EmptyArray(json, "summary"u8);
        json.WriteString("type"u8, "reasoning"u8);
        if (text is null)
            json.WriteNull("content"u8);
        else
        {
            json.WriteStartArray("content"u8);
            json.WriteStartObject();
            json.WriteString("text"u8, text);
            json.WriteString("type"u8, "reasoning_text"u8);
            json.WriteEndObject();
            json.WriteEndArray();
        }
        json.WriteNull("encrypted_content"u8);
        if (status.IsEmpty)
            json.WriteNull("status"u8);
        else
            json.WriteString("status"u8, status);
        json.WriteEndObject();
    }

    /// <summary>A call of a function of the client.</summary>
    public static void CallItem(Utf8JsonWriter json, string id, string name, string callId, string arguments, ReadOnlySpan<byte> status)
    {
        json.WriteStartObject();
        json.WriteString("arguments"u8, arguments);
        json.WriteString("call_id"u8, callId);
        json.WriteString("name"u8, name);
        json.WriteString("type"u8, "function_call"u8);
        json.WriteString("id"u8, id);
        json.WriteNull("namespace"u8);
        json.WriteString("status"u8, status);
        json.WriteEndObject();
    }

    /// <summary>What the model says.</summary>
    public static void MessageItem(Utf8JsonWriter json, string id, string text, ReadOnlySpan<byte> status, Action<Utf8JsonWriter>? logprobs = null)
    {
        json.WriteStartObject();
        json.WriteString("id"u8, id);
        json.WriteStartArray("content"u8);
        if (text.Length > 0)
            OutputText(json, text, logprobs);
        json.WriteEndArray();
        json.WriteString("role"u8, "assistant"u8);
        json.WriteString("status"u8, status);
        json.WriteString("type"u8, "message"u8);
        json.WriteEndObject();
    }

    /// <summary>The text of a message; without a writer its likelihoods are null.</summary>
    public static void OutputText(Utf8JsonWriter json, string text, Action<Utf8JsonWriter>? logprobs)
    {
        json.WriteStartObject();
        EmptyArray(json, "annotations"u8);
        json.WriteString("text"u8, text);
        json.WriteString("type"u8, "output_text"u8);
        if (logprobs is null)
            json.WriteNull("logprobs"u8);
        else
        {
            json.WriteStartArray("logprobs"u8);
            logprobs(json);
            json.WriteEndArray();
        }
        json.WriteEndObject();
    }

    public static void EmptyArray(Utf8JsonWriter json, ReadOnlySpan<byte> name)
    {
        json.WriteStartArray(name);
        json.WriteEndArray();
    }
}
