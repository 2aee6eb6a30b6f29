using System.Globalization;
using System.Text.Json.Nodes;
using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace ModelHost.Core.Galleries;

/// <summary>A text is no gallery, or costs too much to read; the message says where, and quotes nothing of it.</summary>
public sealed class GalleryFormatException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>A mapping in the order of its text.</summary>
internal sealed class YamlMap
{
    public Dictionary<string, object> Fields { get; } = new(StringComparer.Ordinal);
}

/// <summary>A value that is neither a mapping nor a list.</summary>
/// <param name="Text">As it stands.</param>
/// <param name="IsPlain">Whether it stands without quotes, and so may be a number, a truth value or nothing.</param>
internal sealed record YamlScalar(string Text, bool IsPlain);

/// <summary>
/// Reads YAML of unknown origin in bounded time and memory. Aliases point to what they stand for and are never copied, so a text that grows without end
/// when its aliases are written out is as small here as it is on disk; writing them out is counted (<see cref="ToJson(object)"/>).
/// </summary>
internal sealed class BoundedYaml
{
    /// <summary>Levels of nesting.</summary>
    public const int MaxDepth = 64;

    /// <summary>Values that a text may have, and again that may be written out of it; the largest known gallery has some 60,000.</summary>
    public const int MaxNodes = 500_000;

    /// <summary>Characters that may be written out of a text.</summary>
    public const long MaxCharacters = 128L * 1024 * 1024;

    private const string MergeKey = "<<";
    private readonly Dictionary<AnchorName, object> _anchors = [];
    private readonly Parser _parser;
    private readonly Spent _spent;

    private BoundedYaml(TextReader text, Spent spent) => (_parser, _spent) = (new Parser(new Scanner(text)), spent);

    /// <summary>Reads the first document of a text: a <see cref="YamlMap"/>, a list of objects, or a <see cref="YamlScalar"/>; null: there is none.</summary>
    /// <param name="text">The text.</param>
    /// <param name="reader">Counts what is written out of the document.</param>
    /// <exception cref="GalleryFormatException">It is no YAML, or too deep, or too much.</exception>
    public static object? Read(TextReader text, out BoundedYaml reader) => Read(reader = new BoundedYaml(text, new Spent()));

    /// <summary>Reads a text that stands within this one, at the expense of the same limits; null: it is no mapping, or an empty one.</summary>
    public JsonObject? ReadInner(string text)
    {
        var inner = new BoundedYaml(new StringReader(text), _spent);
        return Read(inner) is YamlMap { Fields.Count: > 0 } fields ? (JsonObject)inner.ToJson(fields)! : null;
    }

    private static object? Read(BoundedYaml reader)
    {
        try
        {
            return reader.ReadDocument();
        }
        catch (YamlException e)
        {
            throw new GalleryFormatException($"line {e.Start.Line}: this is no YAML", e);
        }
    }

    /// <summary>Writes a value out as JSON, aliases and all.</summary>
    /// <exception cref="GalleryFormatException">It is too much.</exception>
    public JsonNode? ToJson(object value)
    {
        Count(ref _spent.Written);
        switch (value)
        {
            case YamlMap map:
                var fields = new JsonObject();
                foreach (var (key, field) in map.Fields)
                {
                    CountCharacters(key.Length);
                    fields[key] = ToJson(field);
                }
                return fields;
            case List<object> list:
                var items = new JsonArray();
                foreach (var item in list)
                    items.Add(ToJson(item));
                return items;
            default:
                var scalar = (YamlScalar)value;
                CountCharacters(scalar.Text.Length);
                return ToJson(scalar);
        }
    }

    /// <summary>The texts of a list; what is none in it is left out.</summary>
    public IReadOnlyList<string> ToTexts(object? value)
    {
        if (value is not List<object> { Count: > 0 } list)
            return [];
        var texts = new List<string>();
        foreach (var item in list.OfType<YamlScalar>())
        {
            Count(ref _spent.Written);
            texts.Add(item.Text);
        }
        return texts;
    }

    /// <summary>Counts one more value that is written out.</summary>
    public void Count() => Count(ref _spent.Written);

    private object? ReadDocument()
    {
        while (_parser.MoveNext())
        {
            if (_parser.Current is StreamStart or DocumentStart)
                continue;
            return _parser.Current is DocumentEnd or StreamEnd ? null : ReadNode(0);
        }
        return null;
    }

    private object ReadNode(int depth)
    {
        Count(ref _spent.Nodes);
        if (depth > MaxDepth)
            throw new GalleryFormatException($"line {_parser.Current!.Start.Line}: more than {MaxDepth} levels of nesting");
        switch (_parser.Current)
        {
            case AnchorAlias alias:
                return _anchors.GetValueOrDefault(alias.Value) ?? throw new GalleryFormatException($"line {alias.Start.Line}: an alias of nothing that stands before it");
            case Scalar scalar:
                return Anchored(scalar, new YamlScalar(scalar.Value, scalar.IsPlainImplicit && scalar.Style == ScalarStyle.Plain));
            case SequenceStart start:
                var list = new List<object>();
                while (Next() is not SequenceEnd)
                    list.Add(ReadNode(depth + 1));
                return Anchored(start, list);
            case MappingStart start:
                return Anchored(start, ReadMap(depth));
            default:
                throw new GalleryFormatException($"line {_parser.Current!.Start.Line}: this is no YAML");
        }
    }

    private YamlMap ReadMap(int depth)
    {
        var map = new YamlMap();
        List<object>? merged = null;
        while (Next() is not MappingEnd)
        {
            if (_parser.Current is not Scalar key)
                throw new GalleryFormatException($"line {_parser.Current!.Start.Line}: a key is no text");
            Next();
            var value = ReadNode(depth + 1);
            if (key is { Value: MergeKey, Style: ScalarStyle.Plain })
                (merged ??= []).AddRange(value as List<object> ?? [value]);
            else
                map.Fields[key.Value] = value; // of a key given twice, the last one counts
        }
        foreach (var other in merged ?? [])
        {
            if (other is not YamlMap from)
                throw new GalleryFormatException("a merge key stands before something that is no mapping");
            foreach (var (key, value) in from.Fields)
            {
                Count(ref _spent.Nodes);
                map.Fields.TryAdd(key, value);
            }
        }
        return map;
    }

    private ParsingEvent Next() =>
        _parser.MoveNext() ? _parser.Current! : throw new GalleryFormatException("the text ends in the middle");

    // only now: what holds an alias of itself would have no end
    private T Anchored<T>(NodeEvent start, T value) where T : class
    {
        if (!start.Anchor.IsEmpty)
            _anchors[start.Anchor] = value;
        return value;
    }

    private static void Count(ref int nodes)
    {
        if (++nodes > MaxNodes)
            throw new GalleryFormatException($"more than {MaxNodes} values");
    }

    private void CountCharacters(int characters)
    {
        if ((_spent.Characters += characters) > MaxCharacters)
            throw new GalleryFormatException($"more than {MaxCharacters} characters once its aliases are written out");
    }

    // the core schema of YAML 1.2
    private static JsonValue? ToJson(YamlScalar scalar)
    {
        var text = scalar.Text;
        if (!scalar.IsPlain)
            return JsonValue.Create(text);
        switch (text)
        {
            case "" or "~" or "null" or "Null" or "NULL":
                return null;
            case "true" or "True" or "TRUE":
                return JsonValue.Create(true);
            case "false" or "False" or "FALSE":
                return JsonValue.Create(false);
            default:
                break;
        }
        if (text[0] is not ((>= '0' and <= '9') or '-' or '+' or '.'))
            return JsonValue.Create(text);
        if (long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var whole))
            return JsonValue.Create(whole);
        if (text.StartsWith("0x", StringComparison.Ordinal) && long.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var hex))
            return JsonValue.Create(hex);
        return double.TryParse(text, NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out var real)
            && double.IsFinite(real) ? JsonValue.Create(real) : JsonValue.Create(text);
    }

    private sealed class Spent
    {
        public int Nodes, Written;
        public long Characters;
    }
}
