using System.Text.RegularExpressions;

namespace ModelHost.Core.Deployments;

/// <summary>Where weights come from: an identifier on Hugging Face, or a path on the node. Nothing that is either only at a second look passes.</summary>
public static partial class ModelSource
{
    /// <summary>Characters of the longest source.</summary>
    public const int MaxLength = 255;

    /// <summary>Whether it is a path on the node.</summary>
    public static bool IsPath(string source)
    {
        ArgumentNullException.ThrowIfNull(source);
        return source.StartsWith('/');
    }

    /// <summary>What is wrong with a source, as far as its text tells; null: nothing.</summary>
    public static string? Fault(string source) =>
        source is null || source.Length > MaxLength ? $"is missing or longer than {MaxLength} characters"
        : !IsPath(source) ? HubId().IsMatch(source) && !source.Contains("..", StringComparison.Ordinal) ? null
            : "is neither a Hugging Face identifier such as organisation/model nor an absolute path"
        : !PlainPath().IsMatch(source) ? "is no plain absolute path: between its slashes are letters, digits and . _ @ + -, and nothing is left empty"
        : source.Split('/').Any(part => part is "." or "..") ? "is a path with '.' or '..' in it"
        : null;

    /// <summary>Whether a path lies in a folder, or is it; both plain and absolute.</summary>
    public static bool IsWithin(string path, string folder)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(folder);
        return path == folder || path.StartsWith(folder + "/", StringComparison.Ordinal);
    }

    [GeneratedRegex(@"\A[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._:-]{0,95})?\z")]
    private static partial Regex HubId();

    [GeneratedRegex(@"\A(/[A-Za-z0-9._@+-]+)+\z", RegexOptions.NonBacktracking)]
    private static partial Regex PlainPath();
}
