using System.Text.Json;
using ModelHost.Simulator.Flags;

namespace ModelHost.Simulator.Options;

/// <summary>An adapter given with <c>--lora-modules</c>, as <c>name=path</c> or as a JSON object.</summary>
internal sealed record LoraModule(string Name, string Path, string? BaseModelName)
{
    public static LoraModule Parse(string text)
    {
        if (!text.TrimStart().StartsWith('{'))
        {
            var equals = text.IndexOf('=', StringComparison.Ordinal);
            return equals > 0 ? new(text[..equals], text[(equals + 1)..], null)
                : throw new UsageException("argument --lora-modules: Invalid fields: expected name=path or a JSON object");
        }
        try
        {
            using var document = JsonDocument.Parse(text);
            var root = document.RootElement;
            return new(
                root.GetProperty("name").GetString() ?? "",
                root.GetProperty("path").GetString() ?? "",
                root.TryGetProperty("base_model_name", out var parent) ? parent.GetString() : null);
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new UsageException($"argument --lora-modules: Invalid JSON format for --lora-modules: {text}");
        }
    }
}
