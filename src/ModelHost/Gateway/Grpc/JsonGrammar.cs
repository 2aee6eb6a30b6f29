using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace ModelHost.Gateway.Grpc;

/// <summary>
/// Writes grammars, in the form of llama.cpp (GBNF), under which a model can write nothing but JSON of a schema. What a schema says beyond the kind of
/// its values (lengths, patterns, formats, <c>not</c>) is not held.
/// </summary>
internal sealed class JsonGrammar
{
    /// <summary>Longest grammar in characters; a schema that needs a longer one is refused.</summary>
    public const int Longest = 256 * 1024;

    private const int Deepest = 64;
    private const string Open = "\"{\" space", Close = "\"}\" space", Colon = "\":\" space", Comma = "\",\" space";
    private static readonly JsonSerializerOptions Readable = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    // by name; further ones are written when something uses them
    private static readonly (string Name, string Text)[] Common =
    [
        ("space", "\" \"?"),
        ("string", """ "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]) )* "\"" space """.Trim()),
        ("number", """ ("-"? ([0-9] | [1-9] [0-9]*)) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? space """.Trim()),
        ("integer", """ ("-"? ([0-9] | [1-9] [0-9]*)) space """.Trim()),
        ("boolean", """ ("true" | "false") space """.Trim()),
        ("null", """ "null" space """.Trim()),
        ("value", "object | array | string | number | boolean | null"),
        ("object", """ "{" space ( string ":" space value ("," space string ":" space value)* )? "}" space """.Trim()),
        ("array", """ "[" space ( value ("," space value)* )? "]" space """.Trim()),
    ];

    private readonly JsonElement _schema;
    private readonly string _field;
    private readonly string _prefix;
    private readonly StringBuilder _text = new();
    private readonly Dictionary<string, string> _references = [];
    private int _rules;

    private JsonGrammar(JsonElement schema, string field, string prefix = "") => (_schema, _field, _prefix) = (schema, field, prefix);

    /// <summary>The grammar of any object.</summary>
    public static string AnyObject { get; } = new JsonGrammar(default, "").Whole("object");

    /// <summary>The grammar of a schema.</summary>
    /// <param name="schema">The schema.</param>
    /// <param name="field">The field that has it, for refusals.</param>
    public static string Of(JsonElement schema, string field)
    {
        var grammar = new JsonGrammar(schema, field);
        return grammar.Whole(grammar.Rule(schema, 0));
    }

    /// <summary>The grammar of calls of functions: <c>{"name": …, "arguments": …}</c>, or a list of them.</summary>
    /// <param name="functions">What may be called.</param>
    /// <param name="several">Whether several at once.</param>
    public static string OfCalls(IReadOnlyList<ToolFunction> functions, bool several)
    {
        var whole = new JsonGrammar(default, "tools");
        var calls = new List<string>();
        foreach (var function in functions)
        {
            // each schema refers to its own definitions; the rules of all stand in one text
            var name = $"call-{calls.Count}";
            var one = new JsonGrammar(function.Parameters, function.Path, name + "-");
            var arguments = function.Parameters.ValueKind == JsonValueKind.Object ? one.Rule(function.Parameters, 0) : "object";
            one.Add(name, string.Join(" ", Open, Literal(Quoted("name")), Colon, Literal(Quoted(function.Name)), Comma, Literal(Quoted("arguments")), Colon, arguments, Close));
            whole._text.Append(one._text);
            if (whole._text.Length > Longest)
                throw whole.TooLarge();
            calls.Add(name);
        }
        whole.Add("call", string.Join(" | ", calls));
        return whole.Whole(several ? $"call | \"[\" space call ({Comma} call)* \"]\" space" : "call");
    }

    private string Whole(string root)
    {
        _text.Insert(0, $"root ::= {root}\n");
        foreach (var (name, text) in Common)
            _text.Append(CultureInfo.InvariantCulture, $"{name} ::= {text}\n");
        return _text.ToString();
    }

    /// <summary>What stands for a schema: the name of a rule.</summary>
    private string Rule(JsonElement schema, int depth)
    {
        if (depth > Deepest)
            throw RefusedRequestException.Field(_field, "is nested too deeply");
        if (schema.ValueKind == JsonValueKind.True)
            return "value";
        if (schema.ValueKind != JsonValueKind.Object)
            throw RefusedRequestException.Field(_field, "is no JSON schema");
        if (schema.TryGetProperty("$ref", out var reference))
            return Reference(reference, depth);
        if (schema.TryGetProperty("const", out var constant))
            return New(Constant(constant));
        if (schema.TryGetProperty("enum", out var values) && values is { ValueKind: JsonValueKind.Array } && values.GetArrayLength() > 0)
            return New($"({string.Join(" | ", values.EnumerateArray().Select(value => Literal(value)))}) space");
        foreach (var name in (string[])["anyOf", "oneOf"])
        {
            if (schema.TryGetProperty(name, out var choices) && choices is { ValueKind: JsonValueKind.Array } && choices.GetArrayLength() > 0)
                return New(string.Join(" | ", choices.EnumerateArray().Select(choice => Rule(choice, depth + 1)).ToArray()));
        }
        if (schema.TryGetProperty("allOf", out var all) && all is { ValueKind: JsonValueKind.Array } && all.GetArrayLength() == 1)
            return Rule(all[0], depth + 1);
        if (!schema.TryGetProperty("type", out var type))
            return schema.TryGetProperty("properties", out _) ? OfType("object", schema, depth) : schema.TryGetProperty("items", out _) ? OfType("array", schema, depth) : "value";
        if (type.ValueKind == JsonValueKind.Array && type.GetArrayLength() > 0)
            return New(string.Join(" | ", type.EnumerateArray().Select(one => OfType(RequestFields.TextOf(one, _field), schema, depth)).ToArray()));
        return OfType(RequestFields.TextOf(type, _field), schema, depth);
    }

    private string OfType(string type, JsonElement schema, int depth) => type switch
    {
        "object" => Object(schema, depth),
        "array" => Array(schema, depth),
        "string" or "number" or "integer" or "boolean" or "null" => type,
        _ => throw RefusedRequestException.Field(_field, $"has the unknown type '{type}'"),
    };

    private string Object(JsonElement schema, int depth)
    {
        if (!schema.TryGetProperty("properties", out var properties) || properties.ValueKind != JsonValueKind.Object || !properties.EnumerateObject().Any())
            return "object";
        var required = schema.TryGetProperty("required", out var names) && names.ValueKind == JsonValueKind.Array
            ? names.EnumerateArray().Where(name => name.ValueKind == JsonValueKind.String).Select(name => name.GetString()!).ToHashSet() : [];
        string Member(JsonProperty property) => $"{Literal(Quoted(property.Name))} {Colon} {Rule(property.Value, depth + 1)}";
        var must = properties.EnumerateObject().Where(property => required.Contains(property.Name)).Select(Member).ToArray();
        var may = properties.EnumerateObject().Where(property => !required.Contains(property.Name)).Select(Member).ToArray();
        var members = string.Join($" {Comma} ", must);
        if (must.Length > 0)
            return New($"{Open} {members}{string.Concat(may.Select(member => $" ( {Comma} {member} )?"))} {Close}");
        // of members that may all be left out, any may be the first; what can follow a member is a rule, so that it is written once
        var follows = "";
        var firsts = new List<string>();
        foreach (var member in may.Reverse())
        {
            var one = New(member);
            firsts.Add(follows.Length == 0 ? one : $"{one} {follows}");
            follows = New($"( {Comma} {one} )?{(follows.Length == 0 ? "" : " " + follows)}");
        }
        firsts.Reverse();
        return New($"{Open} ( {string.Join(" | ", firsts)} )? {Close}");
    }

    private string Array(JsonElement schema, int depth)
    {
        var item = schema.TryGetProperty("items", out var items) && items.ValueKind is JsonValueKind.Object or JsonValueKind.True ? Rule(items, depth + 1) : "value";
        var isFilled = schema.TryGetProperty("minItems", out var least) && least.ValueKind == JsonValueKind.Number && least.TryGetInt32(out var count) && count > 0;
        return New($"\"[\" space ( {item} ({Comma} {item})* ){(isFilled ? "" : "?")} \"]\" space");
    }

    /// <summary>A rule for a definition, which may use itself.</summary>
    private string Reference(JsonElement reference, int depth)
    {
        var path = RequestFields.TextOf(reference, _field);
        if (_references.TryGetValue(path, out var known))
            return known;
        if (path != "#" && !path.StartsWith("#/", StringComparison.Ordinal))
            throw RefusedRequestException.Field(_field, "refers to something outside of itself");
        var found = _schema;
        foreach (var part in path.Split('/').Skip(1))
        {
            var name = part.Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal);
            if (found.ValueKind != JsonValueKind.Object || !found.TryGetProperty(name, out found))
                throw RefusedRequestException.Field(_field, "refers to something that it does not define");
        }
        var rule = _references[path] = NextName();
        Add(rule, Rule(found, depth + 1));
        return rule;
    }

    private string New(string text)
    {
        var name = NextName();
        Add(name, text);
        return name;
    }

    private string NextName() => $"{_prefix}rule-{_rules++}";

    private void Add(string name, string text)
    {
        _text.Append(CultureInfo.InvariantCulture, $"{name} ::= {text}\n");
        if (_text.Length > Longest)
            throw TooLarge();
    }

    private RefusedRequestException TooLarge() => RefusedRequestException.Field(_field, "is too large a schema");

    private static string Constant(JsonElement value) => $"{Literal(value)} space";

    private static string Literal(JsonElement value) => Literal(JsonSerializer.Serialize(value, Readable));

    private static string Quoted(string text) => JsonSerializer.Serialize(text, Readable);

    /// <summary>Text that is written as it is; JSON has no control characters.</summary>
    private static string Literal(string text) => $"\"{text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal)}\"";
}
