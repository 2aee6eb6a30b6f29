using System.Collections.Frozen;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace ModelHost.Features.Settings;

/// <summary>One of the runtime settings: its names, and what its value may be. The properties of <see cref="RuntimeSettings"/> say it all.</summary>
internal sealed class Setting
{
    private const int ShownLength = 64;
    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        NumberHandling = JsonNumberHandling.Strict,
    };

    private readonly Type _type;
    private readonly ValidationAttribute[] _rules;

    private Setting(PropertyInfo property)
    {
        (Property, Key, _type) = (property.Name, JsonNamingPolicy.SnakeCaseLower.ConvertName(property.Name), property.PropertyType);
        _rules = [.. property.GetCustomAttributes<ValidationAttribute>()];
    }

    /// <summary>All of them by the name that they have in the API.</summary>
    public static FrozenDictionary<string, Setting> All { get; } =
        typeof(RuntimeSettings).GetProperties(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly)
            .Where(property => property.CanWrite).Select(property => new Setting(property)).ToFrozenDictionary(setting => setting.Key);

    /// <summary>Its name in the API.</summary>
    public string Key { get; }

    /// <summary>Its name in the configuration.</summary>
    public string Property { get; }

    /// <summary>Whether null is a value of it, and not the absence of one.</summary>
    public bool TakesNull => Nullable.GetUnderlyingType(_type) is not null;

    /// <summary>What is wrong with a value: the value and the rule; null: nothing.</summary>
    public string? Fault(JsonElement value)
    {
        if (value.ValueKind == JsonValueKind.Null)
            return TakesNull ? null : $"is null but must be {Kind}";
        object? typed;
        try
        {
            typed = value.Deserialize(_type, Json);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException) // the latter: half of a surrogate pair
        {
            return $"is {Shown(value)} but must be {Kind}";
        }
        return _rules.FirstOrDefault(rule => !rule.IsValid(typed)) is { } broken ? $"is {Shown(value)} but {Rule(broken)}" : null;
    }

    /// <summary>The settings with some values replaced by others, which have to be without fault.</summary>
    public static RuntimeSettings Replace(RuntimeSettings settings, IEnumerable<KeyValuePair<string, string>> values)
    {
        var all = JsonSerializer.SerializeToNode(settings, Json)!.AsObject();
        foreach (var (key, value) in values)
            all[key] = JsonNode.Parse(value);
        return all.Deserialize<RuntimeSettings>(Json)!;
    }

    private string Kind => (Nullable.GetUnderlyingType(_type) ?? _type) switch
    {
        var type when type == typeof(bool) => "true or false",
        var type when type == typeof(int) => "a whole number",
        var type when type == typeof(double) => "a number",
        _ => "text",
    };

    // "The field X must be between 1 and 20." -> "must be between 1 and 20"
    private static string Rule(ValidationAttribute rule)
    {
        var message = rule.FormatErrorMessage("").TrimEnd('.');
        return message[message.IndexOf("must", StringComparison.Ordinal)..];
    }

    private static string Shown(JsonElement value) => value.GetRawText() is var text && text.Length <= ShownLength ? text : text[..ShownLength] + "…";
}
