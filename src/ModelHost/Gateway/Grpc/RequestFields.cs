using System.Text.Json;

namespace ModelHost.Gateway.Grpc;

/// <summary>
/// Reads the fields of an object in a request. A field of the wrong kind is refused by its path; one that is null counts as one that is not there.
/// </summary>
/// <param name="element">The object.</param>
/// <param name="path">Where it stands; empty: it is the request.</param>
internal readonly struct RequestFields(JsonElement element, string path = "")
{
    private const float LargestNumber = 1e6f;

    /// <summary>The object.</summary>
    public JsonElement Element => element;

    /// <summary>The path of a field.</summary>
    public string PathOf(string name) => path.Length == 0 ? name : $"{path}.{name}";

    /// <summary>The fields of a value that has to be an object.</summary>
    public static RequestFields Of(JsonElement value, string path) =>
        value.ValueKind == JsonValueKind.Object ? new(value, path) : throw RefusedRequestException.Field(path, "must be an object");

    /// <summary>A field as it is; null: it is not there.</summary>
    public JsonElement? Find(string name) =>
        element.TryGetProperty(name, out var value) && value.ValueKind is not (JsonValueKind.Null or JsonValueKind.Undefined) ? value : null;

    /// <summary>A field that has to be there.</summary>
    public JsonElement Required(string name) => Find(name) ?? throw RefusedRequestException.Field(PathOf(name), "is missing");

    /// <summary>A text; null: it is not there.</summary>
    public string? Text(string name) => Find(name) is { } value ? TextOf(value, PathOf(name)) : null;

    /// <summary>A text that has to be there.</summary>
    public string RequiredText(string name) => TextOf(Required(name), PathOf(name));

    /// <summary>A text, or several, as a list; empty: the field is not there.</summary>
    public string[] Texts(string name)
    {
        if (Find(name) is not { } value)
            return [];
        var at = PathOf(name);
        return value.ValueKind == JsonValueKind.Array ? [.. value.EnumerateArray().Select((item, i) => TextOf(item, $"{at}[{i}]"))] : [TextOf(value, at)];
    }

    /// <summary>True or false; null: it is not there.</summary>
    public bool? Flag(string name) => Find(name) switch
    {
        null => null,
        { ValueKind: JsonValueKind.True } => true,
        { ValueKind: JsonValueKind.False } => false,
        _ => throw RefusedRequestException.Field(PathOf(name), "must be true or false"),
    };

    /// <summary>A whole number; null: it is not there.</summary>
    public int? Whole(string name, int min = int.MinValue, int max = int.MaxValue)
    {
        if (Find(name) is not { } value)
            return null;
        return value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var number) && number >= min && number <= max
            ? number : throw RefusedRequestException.Field(PathOf(name), $"must be a whole number from {min} to {max}");
    }

    /// <summary>A number; null: it is not there.</summary>
    public float? Number(string name, float min = -LargestNumber, float max = LargestNumber)
    {
        if (Find(name) is not { } value)
            return null;
        return value.ValueKind == JsonValueKind.Number && value.TryGetSingle(out var number) && number >= min && number <= max
            ? number : throw RefusedRequestException.Field(PathOf(name), $"must be a number from {min} to {max}");
    }

    /// <summary>A list; empty: it is not there.</summary>
    public JsonElement[] List(string name) => Find(name) switch
    {
        null => [],
        { ValueKind: JsonValueKind.Array } value => [.. value.EnumerateArray()],
        _ => throw RefusedRequestException.Field(PathOf(name), "must be a list"),
    };

    /// <summary>The fields of an object; null: it is not there.</summary>
    public RequestFields? Fields(string name) => Find(name) is { } value ? Of(value, PathOf(name)) : null;

    /// <summary>Whole numbers in a list.</summary>
    public static int[] Wholes(JsonElement list, string at)
    {
        if (list.ValueKind != JsonValueKind.Array)
            throw RefusedRequestException.Field(at, "must be a list of whole numbers");
        return [.. list.EnumerateArray().Select((item, i) => item.ValueKind == JsonValueKind.Number && item.TryGetInt32(out var number)
            ? number : throw RefusedRequestException.Field($"{at}[{i}]", "must be a whole number"))];
    }

    /// <summary>A value that has to be a text.</summary>
    public static string TextOf(JsonElement value, string at) =>
        value.ValueKind == JsonValueKind.String ? value.GetString()! : throw RefusedRequestException.Field(at, "must be a text");
}
