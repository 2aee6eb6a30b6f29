using System.Collections.Frozen;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;
using YamlDotNet.Serialization;
using YamlDotNet.Serialization.NamingConventions;

namespace ModelHost.Core.Backends;

/// <summary>The recipes that this build ships.</summary>
public static class BackendCatalogue
{
    private static readonly string[] BuiltInNames = ["vllm", "simulator"];

    private static readonly Lazy<FrozenDictionary<string, BackendRecipe>> Recipes = new(ReadBuiltIn);

    /// <summary>All recipes by name.</summary>
    public static IReadOnlyDictionary<string, BackendRecipe> BuiltIn => Recipes.Value;

    /// <summary>Reads a recipe that may extend one of those that this build ships, from YAML text, and so from JSON.</summary>
    /// <param name="yaml">The text; unknown keys are errors.</param>
    /// <exception cref="YamlException">The text is no recipe.</exception>
    public static BackendRecipe Parse(string yaml) => Parse(yaml, name => BuiltInNames.Contains(name) ? Resource(name) : throw new YamlException($"there is no recipe '{name}'"));

    /// <summary>Reads a recipe from YAML text.</summary>
    /// <param name="yaml">The text; unknown keys are errors.</param>
    /// <param name="parent">Finds the text of the recipe that this one extends.</param>
    /// <exception cref="YamlException">The text is no recipe.</exception>
    public static BackendRecipe Parse(string yaml, Func<string, string> parent)
    {
        ArgumentNullException.ThrowIfNull(parent);
        var node = Root(yaml);
        if (node.Children.TryGetValue("extends", out var extends))
        {
            var merged = Root(parent((extends as YamlScalarNode)?.Value ?? throw new YamlException("'extends' names one recipe")));
            foreach (var (key, value) in node.Children)
            {
                if (!key.Equals(new YamlScalarNode("extends")))
                    merged.Children[key] = value;
            }
            node = merged;
        }
        var deserializer = new DeserializerBuilder().WithNamingConvention(UnderscoredNamingConvention.Instance).Build();
        return deserializer.Deserialize<BackendRecipe>(new YamlStream(new YamlDocument(node)).ToParser());
    }

    private static FrozenDictionary<string, BackendRecipe> ReadBuiltIn() =>
        BuiltInNames.Select(name => Parse(Resource(name), Resource)).ToFrozenDictionary(recipe => recipe.Name);

    private static string Resource(string name)
    {
        using var stream = typeof(BackendCatalogue).Assembly.GetManifestResourceStream($"backends/{name}.yaml")
            ?? throw new YamlException($"there is no recipe '{name}'");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }

    private static YamlMappingNode Root(string yaml)
    {
        var stream = new YamlStream();
        stream.Load(new StringReader(yaml));
        return stream.Documents is [{ RootNode: YamlMappingNode mapping }] ? mapping : throw new YamlException("a recipe is one YAML mapping");
    }

    private static Parser ToParser(this YamlStream stream)
    {
        var text = new StringWriter();
        stream.Save(text, assignAnchors: false);
        return new Parser(new StringReader(text.ToString()));
    }
}
