using System.Text.Json;

namespace ModelHost.Gateway.Grpc;

/// <summary>A call that a model wrote.</summary>
/// <param name="Name">The function.</param>
/// <param name="Arguments">Its arguments as JSON.</param>
internal sealed record WrittenCall(string Name, string Arguments);

/// <summary>Reads calls out of text, for backends that do not do it themselves: JSON as the grammar of calls has it, or between <c>tool_call</c> tags.</summary>
internal static class ToolText
{
    /// <summary>The action of the grammar that calls nothing.</summary>
    public const string Answer = "answer";

    private const string Open = "<tool_call>", Close = "</tool_call>";

    /// <summary>Whether a text may become a call, as far as it is known.</summary>
    public static bool MayBeCall(ReadOnlySpan<char> text)
    {
        var start = text.TrimStart();
        return start.Length == 0 || start[0] is '{' or '[' || start.StartsWith(Open) || Open.StartsWith(start, StringComparison.Ordinal);
    }

    /// <summary>Reads the calls of a text.</summary>
    /// <param name="text">The text, whole.</param>
    /// <param name="functions">What could be called; a call of anything else is none.</param>
    /// <param name="content">What is said beside them: the text itself when it is no call.</param>
    /// <returns>The calls; empty: it is none.</returns>
    public static IReadOnlyList<WrittenCall> Read(string text, IReadOnlyList<ToolFunction> functions, out string content)
    {
        content = text;
        var calls = new List<WrittenCall>();
        string? answer = null;
        foreach (var piece in Pieces(text))
        {
            if (!TryRead(piece, functions, calls, ref answer))
                return [];
        }
        if (calls.Count > 0 || answer is not null)
            content = answer ?? "";
        return calls;
    }

    private static IEnumerable<string> Pieces(string text)
    {
        var rest = text.Trim();
        if (!rest.StartsWith(Open, StringComparison.Ordinal))
        {
            yield return rest;
            yield break;
        }
        foreach (var piece in rest.Split(Open, StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
            yield return piece.EndsWith(Close, StringComparison.Ordinal) ? piece[..^Close.Length].Trim() : piece;
    }

    private static bool TryRead(string json, IReadOnlyList<ToolFunction> functions, List<WrittenCall> calls, ref string? answer)
    {
        if (json.Length == 0 || json[0] is not ('{' or '['))
            return false;
        try
        {
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { MaxDepth = 64 });
            var root = document.RootElement;
            foreach (var call in root.ValueKind == JsonValueKind.Array ? root.EnumerateArray().ToArray() : [root])
            {
                if (!TryRead(call, functions, calls, ref answer))
                    return false;
            }
            return root.ValueKind == JsonValueKind.Object || root.GetArrayLength() > 0;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            return false; // no JSON, or a text in it with half of a surrogate pair
        }
    }

    private static bool TryRead(JsonElement call, IReadOnlyList<ToolFunction> functions, List<WrittenCall> calls, ref string? answer)
    {
        if (call.ValueKind != JsonValueKind.Object || !call.TryGetProperty("name", out var named) || named.ValueKind != JsonValueKind.String
            || !call.TryGetProperty("arguments", out var arguments))
            return false;
        var name = named.GetString()!;
        if (functions.Any(function => function.Name == name))
            calls.Add(new WrittenCall(name, arguments.ValueKind == JsonValueKind.String ? arguments.GetString()! : arguments.GetRawText()));
        else if (name == Answer && arguments.ValueKind == JsonValueKind.Object && arguments.TryGetProperty("message", out var message)
            && message.ValueKind == JsonValueKind.String)
            answer += message.GetString();
        else
            return false;
        return true;
    }
}
