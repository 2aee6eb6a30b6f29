using System.Globalization;
using System.Text.RegularExpressions;

namespace ModelHost.Core.Engines;

/// <summary>Which image serves a version of an engine.</summary>
public static partial class EngineImage
{
    /// <summary>The registry of images that name none.</summary>
    public const string DockerHub = "docker.io";

    /// <summary>
    /// The tag for a version: <c>nightly</c> and <c>latest</c> as they are, a full commit hash as <c>nightly-HASH</c>, a version number
    /// with <c>v</c> before it, anything else literally.
    /// </summary>
    public static string Tag(string version)
    {
        ArgumentNullException.ThrowIfNull(version);
        version = version.Trim();
        return version.Equals("nightly", StringComparison.OrdinalIgnoreCase) ? "nightly"
            : Commit().IsMatch(version) ? "nightly-" + version
            : VersionStart().IsMatch(version) ? "v" + version
            : version;
    }

    /// <summary>Whether the registry may give another image under the same tag tomorrow.</summary>
    public static bool IsMoving(string tag) => tag is "nightly" or "latest";

    /// <summary>Whether a text can be a tag or version; 1 to 128 characters of letters, digits, <c>_ . -</c>.</summary>
    public static bool IsValidVersion(string version) => ValidTag().IsMatch(version);

    /// <summary>
    /// Whether a text can name a repository to pull from: <c>[host[:port]/]path</c> in lower case, without scheme, tag, digest or login; at most 255
    /// characters. The grammar is that of the distribution project's references.
    /// </summary>
    public static bool IsValidRepository(string repository)
    {
        ArgumentNullException.ThrowIfNull(repository);
        return repository.Length <= 255 && Repository().IsMatch(repository);
    }

    /// <summary>Repository and tag of an image's name; null: it is not these two.</summary>
    public static (string Repository, string Tag)? Split(string image)
    {
        ArgumentNullException.ThrowIfNull(image);
        var colon = image.LastIndexOf(':');
        return colon > 0 && IsValidRepository(image[..colon]) && IsValidVersion(image[(colon + 1)..]) ? (image[..colon], image[(colon + 1)..]) : null;
    }

    /// <summary>The registry that an image comes from: what stands before the first slash if that is a host, else Docker Hub.</summary>
    public static string RegistryOf(string image)
    {
        ArgumentNullException.ThrowIfNull(image);
        var first = image.Split('/')[0];
        return first.Length < image.Length && (first.AsSpan().ContainsAny('.', ':') || first == "localhost") ? first : DockerHub;
    }

    /// <summary>The tag with the highest release version among local images; null when there is none.</summary>
    public static string? Newest(IEnumerable<string> tags) =>
        tags.Select(tag => (tag, Match: Release().Match(tag))).Where(t => t.Match.Success)
            .OrderByDescending(t => Version.Parse(t.Match.Groups["v"].Value))
            .ThenBy(t => t.tag.Length)
            .Select(t => t.tag).FirstOrDefault();

    /// <summary>The version in a tag, as the API shows it: without the <c>v</c>.</summary>
    public static string VersionOf(string tag)
    {
        ArgumentNullException.ThrowIfNull(tag);
        return tag.Length > 1 && tag[0] == 'v' && char.IsAsciiDigit(tag[1]) ? tag[1..] : tag;
    }

    /// <summary>
    /// The release that a version or tag stands for; null where that is not to be seen: <c>latest</c>, <c>nightly</c>, a commit, a tag of
    /// somebody's own. Pre-releases and variants (<c>0.18.0rc1</c>, <c>v0.18.0-cu129</c>) count as their release.
    /// </summary>
    public static Version? ReleaseOf(string version)
    {
        ArgumentNullException.ThrowIfNull(version);
        var match = AnyRelease().Match(version);
        return match.Success ? new Version(Number("major"), Number("minor"), Number("patch")) : null;

        int Number(string part) => match.Groups[part].Success ? int.Parse(match.Groups[part].ValueSpan, CultureInfo.InvariantCulture) : 0;
    }

    [GeneratedRegex(@"\A[0-9a-f]{40}\z")]
    private static partial Regex Commit();

    [GeneratedRegex(@"\A[0-9]+\.")]
    private static partial Regex VersionStart();

    [GeneratedRegex(@"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\z")]
    private static partial Regex ValidTag();

    [GeneratedRegex(@"\A(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]{2,39}\])(?::[0-9]{1,5})?/)?"
        + @"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*\z", RegexOptions.NonBacktracking)]
    private static partial Regex Repository();

    [GeneratedRegex(@"\Av?(?<major>[0-9]{1,6})\.(?<minor>[0-9]{1,6})(\.(?<patch>[0-9]{1,6}))?(\.?(post|rc|a|b)[0-9]{1,3})?(-(cu[0-9]{2,4}|x86_64|amd64|arm64|aarch64))?\z")]
    private static partial Regex AnyRelease();

    [GeneratedRegex(@"\Av(?<v>[0-9]{1,6}\.[0-9]{1,6}(\.[0-9]{1,6})?)(-[a-z0-9]+)?\z")]
    private static partial Regex Release();
}
