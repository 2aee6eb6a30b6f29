namespace ModelHost.Core.Galleries;

/// <summary>What a list of models does with files in the models folder that no configuration is about.</summary>
public enum LooseFilePolicy
{
    /// <summary>Such files only.</summary>
    LooseOnly,
    /// <summary>Configured models, and files that none of them names.</summary>
    SkipIfConfigured,
    /// <summary>Configured models only.</summary>
    SkipAlways,
    /// <summary>Configured models, and all files.</summary>
    AlwaysInclude,
}

/// <summary>A model that is configured.</summary>
/// <param name="Name">Its name.</param>
/// <param name="File">The file that its configuration names; empty: none.</param>
public sealed record ConfiguredModel(string Name, string File);

/// <summary>Lists models, as LocalAI does.</summary>
public static class LooseFiles
{
    private static readonly string[] SkippedNames = ["MODEL_CARD", "README", "README.md"];

    private static readonly string[] SkippedEndings =
        [".tmpl", ".keep", ".yaml", ".yml", ".json", ".txt", ".md", ".DS_Store", ".", ".safetensors", ".partial", ".tar.gz"];

    /// <summary>Whether a file in the models folder looks like a model.</summary>
    public static bool IsModel(string file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return !SkippedNames.Contains(file, StringComparer.Ordinal) && file[0] != '.' && !SkippedEndings.Any(ending => file.EndsWith(ending, StringComparison.OrdinalIgnoreCase));
    }

    /// <summary>Lists models.</summary>
    /// <param name="configured">Those that are configured.</param>
    /// <param name="files">Names of files in the models folder.</param>
    /// <param name="policy">What becomes of the files.</param>
    /// <param name="filter">Which names are wanted.</param>
    /// <returns>The configured ones in their order, then files.</returns>
    public static IReadOnlyList<string> List(IEnumerable<ConfiguredModel> configured, IEnumerable<string> files, LooseFilePolicy policy, Predicate<string> filter)
    {
        var wanted = configured.Where(model => filter(model.Name)).ToArray();
        var skipped = policy is LooseFilePolicy.SkipIfConfigured or LooseFilePolicy.LooseOnly ? wanted.Select(model => model.File).ToHashSet() : [];
        var loose = policy == LooseFilePolicy.SkipAlways ? [] : files.Where(file => IsModel(file) && !skipped.Contains(file) && filter(file));
        return [.. policy == LooseFilePolicy.LooseOnly ? [] : wanted.Select(model => model.Name), .. loose];
    }
}
