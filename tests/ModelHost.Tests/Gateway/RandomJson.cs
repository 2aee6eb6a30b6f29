using System.Text;
using System.Text.Json;

namespace ModelHost.Tests.Gateway;

/// <summary>Random JSON objects in which the word model turns up everywhere, in many spellings.</summary>
internal sealed class RandomJson(int seed)
{
    private static readonly string[] Texts =
    [
        "model", "mod\\u0065l", "\\u006D\\u006f\\u0064\\u0065\\u006c", "Model", "model ", "\\\\model", "\\\"model\\\":", "mode", "modell", "", "{", "}]", "ü", "日本", "\\ud83d\\ude00",
        "a\\\\", "\\\\\\\"", ",", "\\n", "messages", "model\\u0000",
    ];

    private readonly Random _random = new(seed);

    public Random Random => _random;

    public string Object(int depth = 0)
    {
        var text = new StringBuilder("{").Append(Blank());
        var count = _random.Next(0, depth == 0 ? 6 : 3);
        for (var i = 0; i < count; i++)
            text.Append(i > 0 ? "," : "").Append(Blank()).Append('"').Append(Text()).Append('"').Append(Blank()).Append(':').Append(Blank()).Append(Value(depth + 1)).Append(Blank());
        return text.Append('}').ToString();
    }

    /// <summary>Values of the fields named <c>model</c> of the outermost object, in order.</summary>
    public static IReadOnlyList<JsonElement> Models(string json) =>
        [.. JsonDocument.Parse(json).RootElement.EnumerateObject().Where(property => property.NameEquals("model")).Select(property => property.Value)];

    private string Value(int depth) => _random.Next(depth > 4 ? 4 : 7) switch
    {
        0 or 1 => $"\"{Text()}{Text()}\"",
        2 => _random.Next(-1000, 1000).ToString(System.Globalization.CultureInfo.InvariantCulture) + (_random.Next(2) == 0 ? "" : ".5e3"),
        3 => _random.Next(3) switch { 0 => "true", 1 => "false", _ => "null" },
        4 => $"[{Blank()}{string.Join(",", Enumerable.Range(0, _random.Next(3)).Select(_ => Value(depth + 1)))}{Blank()}]",
        5 => $"[\"model\",{Object(depth + 1)}]",
        _ => Object(depth + 1),
    };

    private string Text() => Texts[_random.Next(3) == 0 ? _random.Next(3) : _random.Next(Texts.Length)];

    private string Blank() => _random.Next(4) switch { 0 => " ", 1 => "\n\t", _ => "" };
}
