using System.Text.RegularExpressions;
using ModelHost.Core.Engines;

namespace ModelHost.Core.Artifacts;

/// <summary>Where a model or backend comes from, as galleries write it.</summary>
public abstract partial record ArtifactUri
{
    private const int MaxLength = 4096;

    private ArtifactUri()
    {
    }

    /// <summary>The name that the file has if nothing else is said; empty: it is a folder.</summary>
    public abstract string FileName { get; }

    /// <summary>A file of any web server.</summary>
    /// <param name="Url">http or https, without login.</param>
    public sealed record Web(Uri Url) : ArtifactUri
    {
        /// <inheritdoc/>
        public override string FileName => Last(Uri.UnescapeDataString(Url.AbsolutePath));
    }

    /// <summary>A file of a repository of Hugging Face, or all of them.</summary>
    /// <param name="Repository"><c>OWNER/NAME</c>.</param>
    /// <param name="Path">Path in it; empty: all files.</param>
    /// <param name="Revision">Branch, tag or commit.</param>
    public sealed record HuggingFace(string Repository, string Path, string Revision) : ArtifactUri
    {
        /// <inheritdoc/>
        public override string FileName => Last(Path);
    }

    /// <summary>A file of a repository of GitHub.</summary>
    /// <param name="Repository"><c>OWNER/NAME</c>.</param>
    /// <param name="Path">Path in it.</param>
    /// <param name="Revision">Branch, tag or commit.</param>
    public sealed record GitHub(string Repository, string Path, string Revision) : ArtifactUri
    {
        /// <inheritdoc/>
        public override string FileName => Last(Path);
    }

    /// <summary>An image of a registry, to be unpacked.</summary>
    /// <param name="Registry">Host, with port if need be.</param>
    /// <param name="Repository">Path in it.</param>
    /// <param name="Reference">Tag, or digest.</param>
    public sealed record Image(string Registry, string Repository, string Reference) : ArtifactUri
    {
        /// <inheritdoc/>
        public override string FileName => "";
    }

    /// <summary>The weights of a model of an Ollama registry.</summary>
    /// <param name="Repository"><c>library/NAME</c> or <c>OWNER/NAME</c>.</param>
    /// <param name="Tag">Tag.</param>
    public sealed record Ollama(string Repository, string Tag) : ArtifactUri
    {
        /// <inheritdoc/>
        public override string FileName => $"{Last(Repository)}-{Tag}.gguf";
    }

    /// <summary>A file or folder of the node's data folder.</summary>
    /// <param name="Path">Absolute, or below the data folder.</param>
    public sealed record Local(string Path) : ArtifactUri
    {
        /// <inheritdoc/>
        public override string FileName => Last(Path.TrimEnd('/'));
    }

    /// <summary>An image that was saved to a file of the node's data folder, to be unpacked.</summary>
    /// <param name="Path">Absolute, or below the data folder.</param>
    public sealed record SavedImage(string Path) : ArtifactUri
    {
        /// <inheritdoc/>
        public override string FileName => Last(Path.TrimEnd('/'));
    }

    /// <summary>Reads one.</summary>
    public static Result<ArtifactUri> Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        if (text.Length is 0 or > MaxLength || text.Any(c => char.IsControl(c) || char.IsWhiteSpace(c)))
            return Invalid($"an address has 1 to {MaxLength} characters, and no blanks");
        if (After(text, "huggingface://") is { } face)
            return OfHuggingFace(face);
        if (After(text, "hf://") is { } short1)
            return OfHuggingFace(short1);
        if (After(text, "hf.co/") is { } short2)
            return OfHuggingFace(short2);
        if (After(text, "github://") is { } hub)
            return OfGitHub(hub);
        if (After(text, "github:") is { } shortHub)
            return OfGitHub(shortHub);
        if (After(text, "oci://") is { } image)
            return OfImage(image);
        if (After(text, "ollama://") is { } ollama)
            return OfOllama(ollama);
        if (After(text, "file://") is { } path)
            return OfPath(path) is { } plain ? new Local(plain) : Invalid("a file:// address is a plain path, without '.' and '..'");
        if (After(text, "ocifile://") is { } saved)
            return OfPath(saved) is { } plain ? new SavedImage(plain) : Invalid("an ocifile:// address is a plain path, without '.' and '..'");
        if (BareRegistryRule().IsMatch(text))
            return OfImage(text);
        if (Uri.TryCreate(text, UriKind.Absolute, out var url) && url.Scheme is "http" or "https")
            return url.UserInfo.Length == 0 ? new Web(url) : Invalid("an address must not have a login in it");
        return Invalid("the address is of no known scheme: http(s)://, huggingface://, hf://, github:, oci://, ocifile://, ollama:// or file://");
    }

    private static Result<ArtifactUri> OfHuggingFace(string text)
    {
        var (repository, path, revision) = Split(text);
        return repository is not null && (path.Length == 0 || ArtifactNames.PathFault(path) is null) && RevisionRule().IsMatch(revision)
            ? new HuggingFace(repository, path, revision) : Invalid("an address of Hugging Face is huggingface://OWNER/REPO[/PATH][@REVISION]");
    }

    private static Result<ArtifactUri> OfGitHub(string text)
    {
        var (repository, path, revision) = Split(text);
        return repository is not null && ArtifactNames.PathFault(path) is null && RevisionRule().IsMatch(revision)
            ? new GitHub(repository, path, revision) : Invalid("an address of GitHub is github:OWNER/REPO/PATH[@REF]");
    }

    private static (string? Repository, string Path, string Revision) Split(string text)
    {
        var at = text.LastIndexOf('@');
        var revision = at < 0 ? "main" : text[(at + 1)..];
        var parts = (at < 0 ? text : text[..at]).Split('/', 3);
        return parts.Length >= 2 && PartRule().IsMatch(parts[0]) && PartRule().IsMatch(parts[1])
            ? ($"{parts[0]}/{parts[1]}", parts.Length == 3 ? parts[2].TrimEnd('/') : "", revision) : (null, "", "");
    }

    private static Result<ArtifactUri> OfImage(string text)
    {
        var match = ReferenceRule().Match(text);
        if (!match.Success)
            return Invalid("an image is oci://[HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST]");
        var path = match.Groups["path"].Value;
        var registry = EngineImage.DockerHub;
        var slash = path.IndexOf('/', StringComparison.Ordinal);
        if (match.Groups["host"].Success)
            registry = match.Groups["host"].Value.ToLowerInvariant();
        else if (slash < 0)
            path = "library/" + path;
        return new Image(registry, path, match.Groups["digest"].Success ? match.Groups["digest"].Value : match.Groups["tag"].Success ? match.Groups["tag"].Value : "latest");
    }

    private static Result<ArtifactUri> OfOllama(string text)
    {
        var match = OllamaRule().Match(text);
        return match.Success
            ? new Ollama(match.Groups["owner"].Success ? match.Groups["name"].Value : "library/" + match.Groups["name"].Value, match.Groups["tag"].Success ? match.Groups["tag"].Value : "latest")
            : Invalid("a model of Ollama is ollama://[OWNER/]NAME[:TAG]");
    }

    private static string? OfPath(string path) => path.Length > 0 && ArtifactNames.PathFault(path.Trim('/')) is null ? path : null;

    private static string? After(string text, string scheme) => text.StartsWith(scheme, StringComparison.OrdinalIgnoreCase) ? text[scheme.Length..] : null;

    private static string Last(string path) => path[(path.LastIndexOf('/') + 1)..];

    private static Failure Invalid(string detail) => Failure.Invalid("uri", detail);

    [GeneratedRegex(@"^(?!\.+\z)[A-Za-z0-9._-]{1,96}\z")]
    private static partial Regex PartRule();

    [GeneratedRegex(@"^(?!.*\.\.)[A-Za-z0-9._][A-Za-z0-9._/+-]{0,254}\z")]
    private static partial Regex RevisionRule();

    [GeneratedRegex(@"^(quay\.io|ghcr\.io|docker\.io)/", RegexOptions.IgnoreCase)]
    private static partial Regex BareRegistryRule();

    // the first part is a host when it has a dot or a port, or is localhost (distribution/reference)
    [GeneratedRegex(@"^(?:(?<host>(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)(?::[0-9]{1,5})?|[A-Za-z0-9-]+:[0-9]{1,5}|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?)/)?(?<path>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*){0,20})(?::(?<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?<digest>sha256:[0-9a-f]{64}))?\z",
        RegexOptions.NonBacktracking)]
    private static partial Regex ReferenceRule();

    [GeneratedRegex(@"^(?<name>(?:(?<owner>[A-Za-z0-9][A-Za-z0-9._-]{0,95})/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95})(?::(?<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?\z")]
    private static partial Regex OllamaRule();
}
