using System.Globalization;
using System.Text.Json;

namespace ModelHost.Simulator.Requests;

/// <summary>Reads members of a request body; null counts as absent, and a wrong type is the client's error, not ours.</summary>
internal static class JsonFields
{
    public static JsonElement? Field(this JsonElement body, string name) =>
        body.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;

    public static string? Text(this JsonElement body, string name) => body.Field(name) switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } value => value.GetString(),
        _ => throw ApiException.Shape("body." + name, "string_type", "Input should be a valid string"),
    };

    public static int? Integer(this JsonElement body, string name)
    {
        if (body.Field(name) is not { } value)
            return null;
        // pydantic takes 3.0 and "3" for a whole number too
        if (value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out var number))
            return (int)Math.Clamp(number, int.MinValue, int.MaxValue);
        if (value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out var real) && real == Math.Floor(real) && Math.Abs(real) < int.MaxValue)
            return (int)real;
        if (value.ValueKind == JsonValueKind.String && int.TryParse(value.GetString(), NumberStyles.Integer, CultureInfo.InvariantCulture, out var parsed))
            return parsed;
        throw ApiException.Shape("body." + name, "int_parsing", "Input should be a valid integer");
    }

    public static double? Number(this JsonElement body, string name) => body.Field(name) switch
    {
        null => null,
        { ValueKind: JsonValueKind.Number } value => value.GetDouble(),
        _ => throw ApiException.Shape("body." + name, "float_type", "Input should be a valid number"),
    };

    public static bool Flag(this JsonElement body, string name, bool otherwise = false) => body.Field(name) switch
    {
        null => otherwise,
        { ValueKind: JsonValueKind.True } => true,
        { ValueKind: JsonValueKind.False } => false,
        _ => throw ApiException.Shape("body." + name, "bool_type", "Input should be a valid boolean"),
    };
}
