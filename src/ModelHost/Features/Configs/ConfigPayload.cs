using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Core;
using ModelHost.Features.Deployments;

namespace ModelHost.Features.Configs;

/// <summary>A payload taken apart: what may be shown, and the values that may not.</summary>
/// <param name="Shown">The payload as JSON with masks.</param>
/// <param name="Values">What each mask stands for, as JSON, by its place.</param>
internal sealed record ConfigPayload(string Shown, Dictionary<string, string> Values)
{
    private const string Field = "payload";
    private const int MaxLength = 256 * 1024;
    private const int MaxDepth = 32;
    // as long as it came: it is never part of a page
    private static readonly JsonSerializerOptions Compact = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Takes a payload apart. A mask in it stands for the value that is stored for the same place.</summary>
    /// <param name="payload">As it was sent.</param>
    /// <param name="stored">The values of the configuration that it replaces.</param>
    public static Result<ConfigPayload> Read(JsonElement payload, IReadOnlyDictionary<string, string> stored)
    {
        if (payload.ValueKind != JsonValueKind.Object)
            return Failure.Invalid(Field, "must be a JSON object");
        var text = payload.GetRawText();
        if (text.Length > MaxLength)
            return Failure.Invalid(Field, $"has {text.Length} characters; {MaxLength} are allowed");
        try
        {
            var root = JsonNode.Parse(text, documentOptions: new() { MaxDepth = MaxDepth, AllowDuplicateProperties = false })!.AsObject();
            var masker = new Masker(stored);
            masker.Search(root, "");
            return masker.Unknown is { } place
                ? Failure.Invalid(Field, $"holds {EnvironmentVariable.Mask} at {place}, where no value is stored")
                : new ConfigPayload(root.ToJsonString(Compact), masker.Values);
        }
        // the latter: half of a surrogate pair
        catch (Exception e) when (e is JsonException or InvalidOperationException or ArgumentException)
        {
            return Failure.Invalid(Field, $"is more than {MaxDepth} levels deep, names a field twice, or holds text that is not Unicode");
        }
    }

    /// <summary>Finds every <c>env_vars</c>, in whatever form, and puts masks into it; its names stay.</summary>
    private sealed class Masker(IReadOnlyDictionary<string, string> stored)
    {
        public Dictionary<string, string> Values { get; } = [];

        /// <summary>Place of a mask that stands for nothing.</summary>
        public string? Unknown { get; private set; }

        public void Search(JsonNode node, string place)
        {
            foreach (var (name, child, replace) in Children(node))
            {
                var at = $"{place}/{name}";
                if (node is JsonObject && name.Equals("env_vars", StringComparison.OrdinalIgnoreCase))
                    MaskVariables(child, at, replace);
                else if (child is JsonObject or JsonArray)
                    Search(child, at);
            }
        }

        // [{"key": K, "value": V}] as the API has it, {K: V}, or anything else
        private void MaskVariables(JsonNode? variables, string place, Action<JsonNode?> replace)
        {
            if (variables is not (JsonObject or JsonArray))
            {
                Mask(variables, place, replace);
                return;
            }
            foreach (var (name, child, set) in Children(variables))
            {
                if (variables is JsonArray && child is JsonObject variable)
                    MaskVariable(variable, $"{place}/{NameOf(variable) ?? name}");
                else
                    Mask(child, $"{place}/{name}", set);
            }
        }

        private void MaskVariable(JsonObject variable, string place)
        {
            foreach (var (name, child, set) in Children(variable))
            {
                if (!IsName(name))
                    Mask(child, $"{place}/{name}", set);
            }
        }

        private void Mask(JsonNode? value, string place, Action<JsonNode?> replace)
        {
            if (value is null)
                return;
            // a variable that is named twice has two places
            while (Values.ContainsKey(place))
                place += "'";
            if (value is JsonValue text && text.TryGetValue<string>(out var given) && given == EnvironmentVariable.Mask)
            {
                if (!stored.TryGetValue(place, out var kept))
                    Unknown ??= place;
                Values[place] = kept ?? "";
                return;
            }
            Values[place] = value.ToJsonString(Compact);
            replace(EnvironmentVariable.Mask);
        }

        private static string? NameOf(JsonObject variable) =>
            variable.FirstOrDefault(property => IsName(property.Key)).Value is JsonValue name && name.TryGetValue<string>(out var text) ? text : null;

        private static bool IsName(string property) => property is "key" or "name";

        private static IEnumerable<(string Name, JsonNode? Child, Action<JsonNode?> Replace)> Children(JsonNode node) => node is JsonObject fields
            ? fields.ToArray().Select(field => (field.Key, field.Value, (Action<JsonNode?>)(value => fields[field.Key] = value)))
            : ((JsonArray)node).ToArray().Select((item, index) => ($"{index}", item, (Action<JsonNode?>)(value => ((JsonArray)node)[index] = value)));
    }
}
