using System.Text;

namespace ModelHost.Core.Artifacts;

/// <summary>Which names of models and backends, and which paths of files in them, may become names of folders and files.</summary>
public static class ArtifactNames
{
    /// <summary>The longest name of a model or backend.</summary>
    public const int MaxNameLength = 200;

    private const int MaxPathBytes = 4096, MaxPartBytes = 255, MaxParts = 64;
    // of the data folder's models/: the cache that engines fill themselves
    private const string ReservedModel = "huggingface";

    /// <summary>What is wrong with the name of a model or backend; null: nothing.</summary>
    public static string? NameFault(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (name.Length is 0 or > MaxNameLength || !char.IsAsciiLetterOrDigit(name[0]) || !name.All(c => char.IsAsciiLetterOrDigit(c) || "._+@-".Contains(c, StringComparison.Ordinal)))
            return $"a name is 1 to {MaxNameLength} letters, digits and . _ + @ -, and begins with a letter or digit";
        return name == ReservedModel ? $"the name '{ReservedModel}' is taken by the cache of the engines" : null;
    }

    /// <summary>What is wrong with the path of a file below its folder; null: nothing.</summary>
    public static string? PathFault(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        if (path.Length == 0)
            return "the path is empty";
        if (path[0] == '/')
            return "the path is absolute";
        if (Encoding.UTF8.GetByteCount(path) > MaxPathBytes)
            return "the path is too long";
        if (path.Any(char.IsControl) || path.Contains('\\', StringComparison.Ordinal))
            return "the path has control characters or backslashes in it";
        var parts = path.Split('/');
        if (parts.Length > MaxParts)
            return "the path is too deep";
        if (parts.Any(part => part is "" or "." or ".."))
            return "the path has empty parts, '.' or '..' in it";
        return parts.Any(part => Encoding.UTF8.GetByteCount(part) > MaxPartBytes) ? "a part of the path is too long" : null;
    }
}
