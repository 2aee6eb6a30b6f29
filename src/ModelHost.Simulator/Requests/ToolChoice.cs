using System.Text.Json;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>Reads <c>tools</c> and <c>tool_choice</c>, and decides what the model calls.</summary>
internal static class ToolChoice
{
    /// <summary>The calls that the answer consists of; none when it is text.</summary>
    public static IReadOnlyList<ToolCall> Read(JsonElement body, List<(string Role, string Content)> messages, ServerOptions options)
    {
        if (body.Field("tools") is { } tools && tools.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape("body.tools", "list_type", "Input should be a valid list");
        var choice = body.Field("tool_choice");
        var auto = choice is null ? body.Field("tools") is { } some && some.GetArrayLength() > 0
            : choice is { ValueKind: JsonValueKind.String } asked && asked.GetString() == "auto";
        if (auto && !CanChoose(options))
            throw ApiException.Bad("\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set");
        if (choice is { ValueKind: JsonValueKind.String } none && none.GetString() == "none")
            return [];
        var functions = Functions(body);
        if (functions.Length == 0)
            return choice is null || auto ? [] : throw ApiException.Bad("When using `tool_choice`, `tools` must be set.", "tool_choice");
        if (choice is { ValueKind: JsonValueKind.Object } named)
        {
            var name = named.Field("function")?.Text("name");
            var found = Array.FindIndex(functions, function => function.Text("name") == name);
            return found >= 0 ? [Of(functions[found], named: true, chosen: false)]
                : throw ApiException.Bad("The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice");
        }
        if (!auto && choice?.GetString() != "required")
            throw ApiException.Bad(
                $"Invalid value for `tool_choice`: {choice}! Only named tools, \"none\", \"auto\" or \"required\" are supported.", "tool_choice");
        if (auto && (options.Knobs.ToolCalls == 0 || (messages.Count > 0 && messages[^1].Role == "tool")))
            return [];
        // without parallel calls only the first one of an answer is passed on
        var count = body.Flag("parallel_tool_calls", otherwise: true) ? Math.Max(1, options.Knobs.ToolCalls) : 1;
        return [.. Enumerable.Range(0, count).Select(i => Of(functions[i % functions.Length], named: false, chosen: auto))];
    }

    /// <summary>The server recognizes a call that the model was free to make.</summary>
    public static bool CanChoose(ServerOptions options) =>
        options.Flags.Switch("enable_auto_tool_choice") && options.Flags.Text("tool_call_parser") is not null;

    private static JsonElement[] Functions(JsonElement body) =>
        body.Field("tools")?.EnumerateArray().Select(tool => tool.ValueKind == JsonValueKind.Object ? tool.Field("function") : null)
            .OfType<JsonElement>().Where(function => function.ValueKind == JsonValueKind.Object).ToArray() ?? [];

    private static ToolCall Of(JsonElement function, bool named, bool chosen) =>
        new(function.Text("name") ?? "", ToolCall.ArgumentsFor(function.Field("parameters")), named, chosen);
}
