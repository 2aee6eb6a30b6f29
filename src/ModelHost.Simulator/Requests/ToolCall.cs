using System.Text.Json;
using System.Text.Json.Nodes;

namespace ModelHost.Simulator.Requests;

/// <summary>One call that the model makes.</summary>
/// <param name="Name">The function.</param>
/// <param name="Arguments">JSON that fits its schema.</param>
/// <param name="Named">The client chose the function: the answer then ends with <c>stop</c>, and not with <c>tool_calls</c>.</param>
/// <param name="Chosen">The model was free to answer in text: <c>content</c> is null then, and empty otherwise.</param>
internal sealed record ToolCall(string Name, string Arguments, bool Named, bool Chosen)
{
    /// <summary>An id for a call in an answer of the chat family.</summary>
    public static string NewId() => $"chatcmpl-tool-{Guid.NewGuid():N}";

    /// <summary>The smallest arguments that have every property of the schema.</summary>
    public static string ArgumentsFor(JsonElement? schema)
    {
        var values = new JsonObject();
        if (schema is { ValueKind: JsonValueKind.Object } given && given.Field("properties") is { ValueKind: JsonValueKind.Object } properties)
            foreach (var property in properties.EnumerateObject())
                values[property.Name] = Value(property.Value);
        return values.ToJsonString();
    }

    /// <summary>The smallest value that fits the schema; an object where it does not say of which type.</summary>
    public static string JsonFor(JsonElement? schema) => schema is { ValueKind: JsonValueKind.Object } given && given.Field("type") is not null
        ? Value(given)?.ToJsonString() ?? "null" : ArgumentsFor(schema);

    private static JsonNode? Value(JsonElement schema)
    {
        if (schema.ValueKind != JsonValueKind.Object)
            return "value";
        if (schema.Field("enum") is { ValueKind: JsonValueKind.Array } choices && choices.GetArrayLength() > 0)
            return JsonNode.Parse(choices[0].GetRawText());
        return schema.Field("type") is { ValueKind: JsonValueKind.String } type ? type.GetString() switch
        {
            "integer" => 1,
            "number" => 1.5,
            "boolean" => true,
            "array" => new JsonArray(),
            "object" => JsonNode.Parse(ArgumentsFor(schema)),
            "null" => null,
            _ => "value",
        } : "value";
    }
}
