using System.Text.Json;

namespace ModelHost.Simulator.Requests;

/// <summary>Reads <c>response_format</c> of a chat request.</summary>
internal static class AnswerShape
{
    /// <summary>The JSON that the answer is to be; null when it is text.</summary>
    public static string? Read(JsonElement body)
    {
        if (body.Field("response_format") is not { } format)
            return null;
        if (format.ValueKind != JsonValueKind.Object)
            throw ApiException.Shape("body.response_format", "model_attributes_type", "Input should be a valid dictionary or object");
        switch (format.Text("type"))
        {
            case "text" or "structural_tag":
                return null;
            case "json_object":
                return ToolCall.ArgumentsFor(null);
            case "json_schema":
                return format.Field("json_schema") is { ValueKind: JsonValueKind.Object } named
                    ? ToolCall.JsonFor(named.Field("schema"))
                    : throw ApiException.Bad("When response_format type is 'json_schema', the 'json_schema' field must be provided.", "response_format");
            default:
                throw ApiException.Shape("body.response_format.type", "literal_error", "Input should be 'text', 'json_object', 'json_schema' or 'structural_tag'");
        }
    }
}
