using System.Text.RegularExpressions;

namespace ModelHost.Core.Galleries;

/// <summary>Chooses builds of backends for nodes, by the word for what a node can do: <c>nvidia-cuda-12</c>, <c>amd</c>, <c>default</c> and their like.</summary>
public static partial class BackendChoice
{
    /// <summary>The capability of a node without a GPU that backends are built for.</summary>
    public const string Default = "default";

    private const string Cpu = "cpu";

    // kinds of builds by what their names have in them, in the order in which they are looked for; a build that is none of these runs on any processor
    private static readonly (string[] Words, string[] Capabilities)[] Kinds =
    [
        (["darwin", "metal", "mlx"], ["metal", "darwin"]),
        (["l4t"], ["nvidia-l4t"]),
        (["cuda", "nvidia", "cublas"], ["nvidia"]),
        (["rocm", "hip", "amd"], ["amd"]),
        (["sycl", "intel"], ["intel"]),
    ];

    /// <summary>The build of a map of capabilities for a node; null: there is none for it.</summary>
    /// <param name="capabilities">Names of builds by capability.</param>
    /// <param name="capability">The node's. A more general one of the same maker does too: <c>nvidia</c> for <c>nvidia-cuda-13</c>, but not for <c>nvidia-l4t</c>, which is another processor.</param>
    public static string? Resolve(IReadOnlyDictionary<string, string> capabilities, string capability)
    {
        ArgumentNullException.ThrowIfNull(capabilities);
        foreach (var wanted in Wider(capability).Append(Default).Append(Cpu))
        {
            if (capabilities.FirstOrDefault(one => one.Key.Equals(wanted, StringComparison.OrdinalIgnoreCase)).Value is { Length: > 0 } build)
                return build;
        }
        return null;
    }

    /// <summary>Whether an entry has something for a node: as it stands, or one of its builds.</summary>
    public static bool IsFor(GalleryEntry entry, string capability)
    {
        ArgumentNullException.ThrowIfNull(entry);
        if (entry.IsMeta)
            return Resolve(entry.Capabilities, capability) is not null;
        var words = Word().Matches($"{entry.Name} {entry.Uri}").Select(match => match.Value.ToLowerInvariant()).ToHashSet();
        foreach (var (kind, capabilities) in Kinds)
        {
            if (words.Any(word => kind.Any(start => word.StartsWith(start, StringComparison.Ordinal) && word is not "amd64")))
                return capabilities.Any(start => capability.StartsWith(start, StringComparison.OrdinalIgnoreCase));
        }
        return true;
    }

    private static IEnumerable<string> Wider(string capability)
    {
        for (var word = capability; ; word = word[..word.LastIndexOf('-')])
        {
            yield return word;
            // what is left of nvidia-l4t-cuda-12 without its end is no kind of its own, and nothing is wider than nvidia-l4t
            if (word.LastIndexOf('-') < 0 || word.Equals("nvidia-l4t", StringComparison.OrdinalIgnoreCase))
                yield break;
        }
    }

    [GeneratedRegex("[A-Za-z0-9]+", RegexOptions.NonBacktracking)]
    private static partial Regex Word();
}
