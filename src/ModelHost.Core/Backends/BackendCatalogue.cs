using System.Collections.Concurrent;
using System.Collections.Frozen;
using System.Text.RegularExpressions;
using ModelHost.Core.Deployments;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;
using YamlDotNet.Serialization;
using YamlDotNet.Serialization.NamingConventions;

namespace ModelHost.Core.Backends;

/// <summary>The recipes of backends: those that this build ships, and the one of every backend that is installed on a node.</summary>
public static partial class BackendCatalogue
{
    /// <summary>The protocol of backends that are asked by LocalAI's gRPC.</summary>
    public const string Grpc = "grpc";

    private static readonly string[] BuiltInNames = ["vllm", "simulator"];

    // of one text always the same: what is worked out of a recipe is kept with it
    private static readonly ConcurrentDictionary<(string Name, string Text), BackendRecipe?> Carried = new();
    private const int MostCarried = 256, MaxParents = 4;

    private static readonly Lazy<FrozenDictionary<string, BackendRecipe>> Recipes = new(ReadBuiltIn);
    private static readonly Lazy<BackendRecipe> Installed = new(() => Parse(Resource(Grpc), Resource));

    /// <summary>The recipes that this build ships, by name.</summary>
    public static IReadOnlyDictionary<string, BackendRecipe> BuiltIn => Recipes.Value;

    /// <summary>Reads a recipe that may extend one of those that this build ships, from YAML text, and so from JSON.</summary>
    /// <param name="yaml">The text; unknown keys are errors.</param>
    /// <exception cref="YamlException">The text is no recipe.</exception>
    public static BackendRecipe Parse(string yaml) => Parse(yaml, name => BuiltInNames.Contains(name) ? Resource(name) : throw new YamlException($"there is no recipe '{name}'"));

    /// <summary>The recipe by which a deployment is started and watched: the one that it carries, or that of its backend.</summary>
    /// <returns>Null: there is none, or it breaks the rules.</returns>
    public static BackendRecipe? Of(LaunchSpec? spec)
    {
        if (spec?.Recipe is not { } own)
            return Find(spec?.Backend);
        if (!IsInstallable(spec.Backend))
            return null;
        var text = own.GetRawText();
        if (text.Length > RecipeRules.MaxLength)
            return null;
        if (Carried.TryGetValue((spec.Backend, text), out var known))
            return known;
        BackendRecipe? recipe = null;
        try
        {
            recipe = RecipeRules.Read(spec.Backend, text);
        }
        catch (RecipeException)
        {
            // a node decides for itself: whoever sent it, it is not started
        }
        if (Carried.Count >= MostCarried)
            Carried.Clear();
        return Carried[(spec.Backend, text)] = recipe;
    }

    /// <summary>The recipe of a backend: its own, or that of what is installed. Whether a node has it, the node tells.</summary>
    /// <returns>Null: there can be no backend of that name.</returns>
    public static BackendRecipe? Find(string? name) =>
        name is null ? null : BuiltIn.GetValueOrDefault(name) ?? (IsInstallable(name) ? Installed.Value with { Name = name } : null);

    /// <summary>Whether a backend may be installed under a name: it is a folder's, and not one of those that this build ships.</summary>
    public static bool IsInstallable(string name) => FolderName().IsMatch(name) && !BuiltIn.ContainsKey(name);

    /// <summary>Reads a recipe from YAML text.</summary>
    /// <param name="yaml">The text; unknown keys are errors.</param>
    /// <param name="parent">Finds the text of the recipe that this one extends.</param>
    /// <exception cref="YamlException">The text is no recipe.</exception>
    public static BackendRecipe Parse(string yaml, Func<string, string> parent)
    {
        ArgumentNullException.ThrowIfNull(parent);
        var node = Merged(yaml, parent, depth: 0);
        var deserializer = new DeserializerBuilder().WithNamingConvention(UnderscoredNamingConvention.Instance).Build();
        return deserializer.Deserialize<BackendRecipe>(new YamlStream(new YamlDocument(node)).ToParser());
    }

    /// <summary>A recipe with what it does not state itself taken from the one that it extends, which may extend another.</summary>
    private static YamlMappingNode Merged(string yaml, Func<string, string> parent, int depth)
    {
        var (node, extends) = (Root(yaml), new YamlScalarNode("extends"));
        if (!node.Children.TryGetValue(extends, out var name))
            return node;
        if (depth == MaxParents)
            throw new YamlException($"a recipe extends more than {MaxParents} others");
        var merged = Merged(parent((name as YamlScalarNode)?.Value ?? throw new YamlException("'extends' names one recipe")), parent, depth + 1);
        foreach (var (key, value) in node.Children.Where(child => !child.Key.Equals(extends)))
            merged.Children[key] = value;
        return merged;
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
        if (stream.Documents is not [{ RootNode: YamlMappingNode mapping }])
            throw new YamlException("a recipe is one YAML mapping");
        // a name in quotes, as JSON has them, is not the same node as one without
        var plain = new YamlMappingNode();
        foreach (var (key, value) in mapping.Children)
            plain.Add(new YamlScalarNode((key as YamlScalarNode)?.Value ?? throw new YamlException("a name in a recipe is a text")), value);
        return plain;
    }

    private static Parser ToParser(this YamlStream stream)
    {
        var text = new StringWriter();
        stream.Save(text, assignAnchors: false);
        return new Parser(new StringReader(text.ToString()));
    }

    [GeneratedRegex(@"\A[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}\z")]
    private static partial Regex FolderName();
}
