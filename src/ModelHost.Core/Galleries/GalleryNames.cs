using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using ModelHost.Core.Artifacts;

namespace ModelHost.Core.Galleries;

/// <summary>What names and paths of installed things look like: nothing that leads out of the folder they are kept in.</summary>
public static partial class GalleryNames
{
    private const int MaxName = 128;

    /// <summary>The name under which an entry is installed if nothing else is said: separators of paths are no part of it.</summary>
    public static string ToInstalled(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return name.Replace("/", "__", StringComparison.Ordinal).Replace("\\", "__", StringComparison.Ordinal);
    }

    /// <summary>What is wrong with the name of something installed; null: nothing.</summary>
    public static string? NameFault(string name) => string.IsNullOrWhiteSpace(name) ? "is empty"
        : name.Length > MaxName ? $"is longer than {MaxName} characters"
        : name[0] is '.' or '-' || name.Contains("..", StringComparison.Ordinal) || !Name().IsMatch(name)
            ? "holds something other than letters, digits and . _ - : @ + ( ), or begins with '.' or '-', or has '..' in it" : null;

    /// <summary>The name of the folder of something installed: of a name that cannot be one, the nearest that can, and what tells it from others.</summary>
    public static string ToFolder(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (ArtifactNames.NameFault(name) is null)
            return name;
        var plain = string.Concat(name.Select(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-' ? c : '_')).TrimStart('.', '_', '-');
        return $"{(plain.Length == 0 ? "model" : plain)}-{Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(name)))[..8]}";
    }

    /// <summary>Whether a text is a SHA-256 in hexadecimal digits.</summary>
    public static bool IsSha256(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return text.Length == 64 && text.All(char.IsAsciiHexDigit);
    }

    /// <summary>Whether a text can be the name of a backend.</summary>
    public static bool IsBackend(string text) => Backend().IsMatch(text);

    [GeneratedRegex(@"\A[\p{L}\p{Nd}][\p{L}\p{Nd}._:@+()-]*\z", RegexOptions.NonBacktracking)]
    private static partial Regex Name();

    [GeneratedRegex(@"\A[A-Za-z0-9_-]{1,64}\z", RegexOptions.NonBacktracking)]
    private static partial Regex Backend();
}
