using System.Text.Json;
using ModelHost.Gateway.Grpc;

namespace ModelHost.Tests.Gateway.Grpc;

/// <summary>Grammars of JSON schemas, tried on texts by a recogniser of their form.</summary>
public sealed class JsonGrammarTests
{
    [Theory]
    [InlineData("""{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a","b"]}""",
        """{"a":1,"b":"x"}|{"a": -12, "b": "\u00e9\n"}""", """{"a":1}|{"b":"x","a":1}|{"a":"1","b":"x"}|{"a":1,"b":"x","c":2}|{"a":01,"b":"x"}|{}""")]
    [InlineData("""{"type":"object","properties":{"a":{"type":"boolean"},"b":{"type":"null"},"c":{"type":"number"}}}""",
        """{}|{"a":true}|{"b":null}|{"c":1.5e3}|{"a":true,"c":1}|{"a":false,"b":null,"c":-0.5}|{"b":null,"c":0}""", """{"c":1,"a":true}|{"a":true,}|{"a":1}|{,"b":null}""")]
    [InlineData("""{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"},"c":{"type":"integer"}},"required":["b"]}""",
        """{"b":1}|{"b":1,"a":2}|{"b":1,"a":2,"c":3}|{"b":1,"c":3}""", """{"a":1}|{"b":1,"c":1,"a":1}""")]
    [InlineData("""{"enum":["red","a \"quoted\\ word\"",3,null]}""", @"3|""red""|""a \""quoted\\ word\""""|null", @"4|""blue""|""re""|""red""x")]
    [InlineData("""{"const":{"k":[1]}}""", """{"k":[1]}""", """{"k":[2]}|{}""")]
    [InlineData("""{"type":"array","items":{"type":["integer","null"]},"minItems":1}""", "[1]|[1,null,2]", """[]|["a"]|[1,]""")]
    [InlineData("""{"type":"array","items":{"anyOf":[{"type":"string"},{"type":"array"}]}}""", """[]|["a",[1,{"x":[]}]]""", "[1]")]
    [InlineData("""{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"next":{"$ref":"#/$defs/tree"}},"required":["v"]}}}""",
        """{"v":1}|{"v":1,"next":{"v":2,"next":{"v":3}}}""", """{"v":1,"next":{}}|{"next":{"v":1}}""")]
    [InlineData("{}", """1|"x"|{"a":[true]}|null""", """{a:1}|tru""")]
    public void A_grammar_takes_what_the_schema_takes(string schema, string takes, string refuses)
    {
        using var document = JsonDocument.Parse(schema);
        var grammar = new Recogniser(JsonGrammar.Of(document.RootElement, "schema"));

        foreach (var text in takes.Split('|'))
            grammar.Takes(text).ShouldBeTrue(text);
        foreach (var text in refuses.Split('|'))
            grammar.Takes(text).ShouldBeFalse(text);
    }

    [Fact]
    public void Calls_are_those_of_the_functions_with_their_arguments()
    {
        using var one = JsonDocument.Parse("""{"type":"object","properties":{"city":{"$ref":"#/$defs/c"}},"required":["city"],"$defs":{"c":{"enum":["Oslo"]}}}""");
        using var two = JsonDocument.Parse("""{"type":"object","properties":{"n":{"$ref":"#/$defs/c"}},"required":["n"],"$defs":{"c":{"type":"integer"}}}""");
        ToolFunction[] functions = [new("weather", "", one.RootElement, "a"), new("count", "", two.RootElement, "b"), new("any", "", default, "c")];
        var several = new Recogniser(JsonGrammar.OfCalls(functions, several: true));
        var single = new Recogniser(JsonGrammar.OfCalls(functions[..1], several: false));

        const string Oslo = """{"name": "weather", "arguments": {"city": "Oslo"}}""", Three = """{"name":"count","arguments":{"n":3}}""", Any = """{"name":"any","arguments":{"x":[1]}}""";
        foreach (var text in (string[])[Oslo, Three, Any, $"[{Oslo}, {Three}]"])
            several.Takes(text).ShouldBeTrue(text);
        foreach (var text in (string[])["""{"name":"weather","arguments":{"city":3}}""", """{"name":"count","arguments":{"n":"Oslo"}}""", """{"name":"other","arguments":{}}""", "[]", "hello"])
            several.Takes(text).ShouldBeFalse(text);
        single.Takes(Oslo).ShouldBeTrue();
        single.Takes($"[{Oslo}]").ShouldBeFalse();
    }

    [Theory]
    [InlineData("""{"type":"tree"}""")]
    [InlineData("""{"$ref":"#/nowhere"}""")]
    [InlineData("""{"$ref":"other.json#/a"}""")]
    [InlineData("5")]
    [InlineData("""{"type":[1]}""")]
    public void What_is_no_schema_is_refused_by_its_field(string schema)
    {
        using var document = JsonDocument.Parse(schema);
        var refused = Should.Throw<RefusedRequestException>(() => JsonGrammar.Of(document.RootElement, "response_format.json_schema.schema"));
        (refused.Status, refused.Error.Param).ShouldBe((400, "response_format.json_schema.schema"));
    }

    [Fact]
    public void A_schema_without_end_and_one_that_is_huge_are_refused()
    {
        var chain = string.Join(',', Enumerable.Range(0, 5000).Select(i => $$$"""
            "d{{{i}}}":{"type":"array","items":{"$ref":"#/$defs/d{{{i + 1}}}"}}
            """));
        using var deep = JsonDocument.Parse($$$"""{"$ref":"#/$defs/d0","$defs":{{{{chain}}}}}""");
        using var huge = JsonDocument.Parse($$"""{"enum":[{{string.Join(',', Enumerable.Range(0, 100_000).Select(i => $"\"value {i}\""))}}]}""");

        foreach (var schema in new[] { deep, huge })
            Should.Throw<RefusedRequestException>(() => JsonGrammar.Of(schema.RootElement, "schema")).Error.Code.ShouldBe("invalid_value");
    }

    /// <summary>Says whether a text is of a grammar in the form of llama.cpp: literals, classes, groups, alternatives and repeats.</summary>
    private sealed class Recogniser
    {
        private readonly Dictionary<string, Node> _rules = [];

        public Recogniser(string grammar)
        {
            foreach (var line in grammar.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                var parts = line.Split(" ::= ", 2);
                _rules.Add(parts[0], new RuleReader(parts[1]).Read());
            }
        }

        public bool Takes(string text) => Ends(_rules["root"], text, [0]).Contains(text.Length);

        private HashSet<int> Ends(Node node, string text, HashSet<int> begins)
        {
            switch (node)
            {
                case Literal literal:
                    return [.. begins.Where(at => string.CompareOrdinal(text, at, literal.Text, 0, literal.Text.Length) == 0).Select(at => at + literal.Text.Length)];
                case Class characters:
                    return [.. begins.Where(at => at < text.Length && characters.Has(text[at])).Select(at => at + 1)];
                case Name name:
                    return begins.Count == 0 ? [] : Ends(_rules[name.Rule], text, begins);
                case Sequence sequence:
                    return sequence.Parts.Aggregate(begins, (at, part) => Ends(part, text, at));
                case Choice choice:
                    return [.. choice.Options.SelectMany(option => Ends(option, text, begins))];
                case Repeat repeat:
                    HashSet<int> all = repeat.Least == 0 ? [.. begins] : [], last = begins;
                    while ((last = [.. Ends(repeat.Part, text, last).Except(all)]).Count > 0)
                    {
                        all.UnionWith(last);
                        if (!repeat.IsMany)
                            break;
                    }
                    return all;
                default:
                    throw new InvalidOperationException();
            }
        }

        private abstract record Node;
        private sealed record Literal(string Text) : Node;
        private sealed record Class(string Members, bool IsNegated) : Node
        {
            public bool Has(char c)
            {
                var found = false;
                for (var i = 0; i < Members.Length; i++)
                {
                    if (i + 2 < Members.Length && Members[i + 1] == '-')
                    {
                        found |= c >= Members[i] && c <= Members[i + 2];
                        i += 2;
                    }
                    else
                        found |= c == Members[i];
                }
                return found != IsNegated;
            }
        }
        private sealed record Name(string Rule) : Node;
        private sealed record Sequence(IReadOnlyList<Node> Parts) : Node;
        private sealed record Choice(IReadOnlyList<Node> Options) : Node;
        private sealed record Repeat(Node Part, int Least, bool IsMany) : Node;

        private sealed class RuleReader(string text)
        {
            private int _at;

            public Node Read()
            {
                var node = ReadChoice();
                _at.ShouldBe(text.Length, $"the rule is not understood: {text}");
                return node;
            }

            private Node ReadChoice()
            {
                var options = new List<Node>();
                do
                {
                    var parts = new List<Node>();
                    while (Skip() && text[_at] is not ('|' or ')'))
                        parts.Add(ReadRepeat());
                    options.Add(new Sequence(parts));
                }
                while (_at < text.Length && text[_at] == '|' && ++_at > 0);
                return options.Count == 1 ? options[0] : new Choice(options);
            }

            private Node ReadRepeat()
            {
                var part = ReadOne();
                var sign = _at < text.Length ? text[_at] : ' ';
                if (sign is not ('?' or '*' or '+'))
                    return part;
                _at++;
                return new Repeat(part, sign == '+' ? 1 : 0, sign != '?');
            }

            private Node ReadOne()
            {
                switch (text[_at])
                {
                    case '"':
                        _at++;
                        return new Literal(ReadUntil('"'));
                    case '[':
                        var isNegated = text[++_at] == '^';
                        _at += isNegated ? 1 : 0;
                        return new Class(ReadUntil(']'), isNegated);
                    case '(':
                        _at++;
                        var node = ReadChoice();
                        text[_at++].ShouldBe(')');
                        return node;
                    default:
                        var begin = _at;
                        while (_at < text.Length && (char.IsAsciiLetterOrDigit(text[_at]) || text[_at] == '-'))
                            _at++;
                        _at.ShouldBeGreaterThan(begin, text);
                        return new Name(text[begin.._at]);
                }
            }

            private string ReadUntil(char end)
            {
                var read = new System.Text.StringBuilder();
                for (; text[_at] != end; _at++)
                {
                    if (text[_at] != '\\')
                        read.Append(text[_at]);
                    else if (text[++_at] == 'x')
                    {
                        read.Append((char)Convert.ToInt32(text.Substring(_at + 1, 2), 16));
                        _at += 2;
                    }
                    else
                        read.Append(text[_at]);
                }
                _at++;
                return read.ToString();
            }

            private bool Skip()
            {
                while (_at < text.Length && text[_at] == ' ')
                    _at++;
                return _at < text.Length;
            }
        }
    }
}
