using System.Text.Encodings.Web;
using System.Text.Json;

namespace ModelHost.Cli;

/// <summary>Puts what a control plane answers onto a terminal.</summary>
internal static class CommandText
{
    private const int ShortLength = 100;
    private static readonly JsonSerializerOptions s_json = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>JSON that people can read.</summary>
    public static string Json(object answer) => JsonSerializer.Serialize(answer, s_json);

    /// <summary>A text of an object; empty: there is none.</summary>
    public static string Text(JsonElement row, string name) =>
        row.ValueKind == JsonValueKind.Object && row.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "";

    /// <summary>The same without control characters: what galleries say goes to a terminal.</summary>
    public static string Clean(string text) => string.Concat(text.Select(c => char.IsControl(c) ? ' ' : c));

    /// <summary>The beginning of a text.</summary>
    public static string Short(string text) => text.Length <= ShortLength ? text : text[..(ShortLength - 1)] + "…";
}
