using System.Text.Json.Nodes;

namespace ModelHost.Core.Galleries;

/// <summary>What an index holds.</summary>
/// <param name="Entries">In its order; of a name that comes twice, the first.</param>
/// <param name="Skipped">Items that are no entries.</param>
public sealed record GalleryIndex(IReadOnlyList<GalleryEntry> Entries, int Skipped)
{
    private const int MaxName = 255;

    /// <summary>Reads an index: a YAML list of entries. An item that is none is left out, and hides no other.</summary>
    /// <exception cref="GalleryFormatException">The text is no such list, or costs too much.</exception>
    public static GalleryIndex Parse(TextReader text)
    {
        var items = BoundedYaml.Read(text, out var yaml) switch
        {
            null => [],
            List<object> list => list,
            _ => throw new GalleryFormatException("an index is a list of entries"),
        };
        var entries = new List<GalleryEntry>(items.Count);
        var names = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
        foreach (var item in items)
        {
            if (item is YamlMap map && ReadEntry(map, yaml) is { Name.Length: > 0 and <= MaxName } entry && !entry.Name.Any(char.IsControl) && names.Add(entry.Name))
                entries.Add(entry);
        }
        return new GalleryIndex(entries, items.Count - entries.Count);
    }

    /// <summary>
    /// Reads a configuration file that an entry points to: one that wraps the configuration in <c>config_file</c> and adds files, or the
    /// configuration itself.
    /// </summary>
    /// <exception cref="GalleryFormatException">The text is no mapping, or costs too much.</exception>
    public static GalleryEntry ParseConfig(TextReader text)
    {
        if (BoundedYaml.Read(text, out var yaml) is not YamlMap map)
            throw new GalleryFormatException("a configuration file is a mapping");
        var isWrapper = map.Fields.ContainsKey("config_file") || map.Fields.ContainsKey("files") || map.Fields.ContainsKey("prompt_templates");
        return isWrapper ? ReadEntry(map, yaml) : new GalleryEntry { Name = Text(map, "name"), Description = Text(map, "description"), ConfigFile = (JsonObject)yaml.ToJson(map)! };
    }

    /// <summary>Reads a list of mappings, as they stand; null in the place of an item that is none.</summary>
    /// <exception cref="GalleryFormatException">The text is no list, or costs too much.</exception>
    public static IReadOnlyList<JsonObject?> ParseItems(TextReader text) => BoundedYaml.Read(text, out var yaml) switch
    {
        null => [],
        List<object> list => [.. list.Select(item => item is YamlMap ? yaml.ToJson(item) as JsonObject : null)],
        _ => throw new GalleryFormatException("the text is no list"),
    };

    private static GalleryEntry ReadEntry(YamlMap map, BoundedYaml yaml) => new()
    {
        Name = Text(map, "name"),
        Url = Text(map, "url"),
        Description = Text(map, "description"),
        License = Text(map, "license"),
        Icon = Text(map, "icon"),
        Size = Text(map, "size"),
        Urls = yaml.ToTexts(map.Fields.GetValueOrDefault("urls")),
        Tags = yaml.ToTexts(map.Fields.GetValueOrDefault("tags")),
        Files = Each(map, "files", yaml, file => new GalleryFile(Text(file, "filename"), Text(file, "uri"), Text(file, "sha256"))),
        Overrides = Fields(map, "overrides", yaml),
        ConfigFile = Fields(map, "config_file", yaml),
        PromptTemplates = Each(map, "prompt_templates", yaml, template => new PromptTemplate(Text(template, "name"), Text(template, "content"))),
        Alias = Text(map, "alias"),
        Uri = Text(map, "uri"),
        Mirrors = yaml.ToTexts(map.Fields.GetValueOrDefault("mirrors")),
        Version = Text(map, "version"),
        Sha256 = Text(map, "sha256"),
        Capabilities = Texts(map, "capabilities", yaml),
        Recipe = Fields(map, "recipe", yaml),
    };

    // "~" and its like are no text
    private static string Text(YamlMap map, string key) =>
        map.Fields.GetValueOrDefault(key) is YamlScalar scalar && !(scalar.IsPlain && scalar.Text is "~" or "null" or "Null" or "NULL") ? scalar.Text : "";

    private static Dictionary<string, string> Texts(YamlMap map, string key, BoundedYaml yaml)
    {
        var texts = new Dictionary<string, string>();
        foreach (var (name, value) in (map.Fields.GetValueOrDefault(key) as YamlMap)?.Fields ?? [])
        {
            yaml.Count();
            if (value is YamlScalar scalar)
                texts[name] = scalar.Text;
        }
        return texts;
    }

    private static List<T> Each<T>(YamlMap map, string key, BoundedYaml yaml, Func<YamlMap, T> read)
    {
        if (map.Fields.GetValueOrDefault(key) is not List<object> { Count: > 0 } list)
            return [];
        var items = new List<T>(list.Count);
        foreach (var item in list.OfType<YamlMap>())
        {
            yaml.Count();
            items.Add(read(item));
        }
        return items;
    }

    /// <summary>A mapping, written as such or as a text that holds one; null: neither, or an empty one.</summary>
    private static JsonObject? Fields(YamlMap map, string key, BoundedYaml yaml) => map.Fields.GetValueOrDefault(key) switch
    {
        YamlMap { Fields.Count: > 0 } fields => (JsonObject)yaml.ToJson(fields)!,
        YamlScalar { Text.Length: > 0 } text => yaml.ReadInner(text.Text),
        _ => null,
    };
}
