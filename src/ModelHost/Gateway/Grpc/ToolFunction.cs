using System.Text.Json;

namespace ModelHost.Gateway.Grpc;

/// <summary>A function that a model may call.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Description">What it is for; empty: that is not said.</param>
/// <param name="Parameters">JSON schema of its arguments; undefined: any object.</param>
/// <param name="Path">The field that has its schema, for refusals.</param>
internal sealed record ToolFunction(string Name, string Description, JsonElement Parameters, string Path);

/// <summary>What a chat may call, and whether it has to.</summary>
internal sealed record ToolUse
{
    private const int Most = 256;
    private const int LongestName = 256;

    /// <summary>The functions.</summary>
    public required IReadOnlyList<ToolFunction> Functions { get; init; }

    /// <summary>The tools as JSON, in the form of now, whichever form they came in.</summary>
    public required string Json { get; init; }

    /// <summary>The choice as JSON; empty: none was made.</summary>
    public required string ChoiceJson { get; init; }

    /// <summary>Whether one has to be called.</summary>
    public bool IsForced { get; init; }

    /// <summary>Whether several may be called at once.</summary>
    public bool AllowsSeveral { get; init; }

    /// <summary>Whether the request has the older form, whose answers have one <c>function_call</c>.</summary>
    public bool IsLegacy { get; init; }

    /// <summary>Those that may be called as the choice has it.</summary>
    public IReadOnlyList<ToolFunction> Callable { get; init; } = [];

    /// <summary>Reads them; null: the request has none, or may not call any.</summary>
    public static ToolUse? Read(RequestFields request)
    {
        var (tools, isLegacy) = (request.List("tools"), false);
        var field = "tools";
        if (tools.Length == 0)
            (tools, isLegacy, field) = (request.List("functions"), true, "functions");
        if (tools.Length == 0)
            return null;
        if (tools.Length > Most)
            throw RefusedRequestException.Field(field, $"has more than {Most} functions");
        var functions = tools.Select((tool, i) => ReadFunction(tool, $"{field}[{i}]", isLegacy)).ToArray();
        var choice = request.Find(isLegacy ? "function_call" : "tool_choice");
        var json = isLegacy
            ? $"[{string.Join(',', tools.Select(tool => $$"""{"type":"function","function":{{tool.GetRawText()}}}"""))}]"
            : request.Required("tools").GetRawText();
        return WithChoice(
            new ToolUse
            {
                Functions = functions,
                Callable = functions,
                Json = json,
                ChoiceJson = choice?.GetRawText() ?? "",
                IsLegacy = isLegacy,
                AllowsSeveral = !isLegacy && request.Flag("parallel_tool_calls") != false,
            }, choice, request.PathOf(isLegacy ? "function_call" : "tool_choice"));
    }

    private static ToolFunction ReadFunction(JsonElement tool, string at, bool isLegacy)
    {
        var fields = RequestFields.Of(tool, at);
        if (!isLegacy)
        {
            if (fields.Text("type") is { } type and not "function")
                throw RefusedRequestException.Field($"{at}.type", $"must be 'function', and not '{type}'");
            fields = RequestFields.Of(fields.Required("function"), $"{at}.function");
        }
        var name = fields.RequiredText("name");
        if (name.Length is 0 or > LongestName)
            throw RefusedRequestException.Field(fields.PathOf("name"), $"must have 1 to {LongestName} characters");
        var parameters = fields.Fields("parameters")?.Element ?? default;
        return new ToolFunction(name, fields.Text("description") ?? "", parameters, fields.PathOf("parameters"));
    }

    private static ToolUse? WithChoice(ToolUse use, JsonElement? choice, string at)
    {
        switch (choice)
        {
            case null:
                return use;
            case { ValueKind: JsonValueKind.String }:
                return choice.Value.GetString() switch
                {
                    "none" => null,
                    "auto" => use,
                    "required" when !use.IsLegacy => use with { IsForced = true },
                    _ => throw RefusedRequestException.Field(at, "must be none, auto, required or a function"),
                };
            default:
                var fields = RequestFields.Of(choice.Value, at);
                if (!use.IsLegacy)
                    fields = RequestFields.Of(fields.Required("function"), $"{at}.function");
                var name = fields.RequiredText("name");
                var chosen = use.Functions.Where(function => function.Name == name).ToArray();
                return chosen.Length > 0 ? use with { IsForced = true, AllowsSeveral = false, Callable = chosen[..1] }
                    : throw RefusedRequestException.Field(fields.PathOf("name"), "names no function of the request");
        }
    }
}
