using System.Text.RegularExpressions;

namespace ModelHost.Core.Packages;

/// <summary>
/// A Python package to install into an engine's image: a project with extras and version clauses as PEP 508 has them
/// (<c>name[extra]&gt;=1.2,&lt;2</c>), or the file name of a wheel on the node. Addresses, markers, paths and options of pip are neither.
/// </summary>
public sealed partial class PackageSpec
{
    /// <summary>Packages of one deployment.</summary>
    public const int MaxCount = 64;

    private const int MaxLength = 256;

    private PackageSpec(string project, string text, bool isWheel) => (Project, Text, IsWheel) = (project, text, isWheel);

    /// <summary>Name of the project as PEP 503 compares it: lower case, with dashes.</summary>
    public string Project { get; }

    /// <summary>What pip is told, without blanks; for a wheel its file name. The same for all ways of writing the same.</summary>
    public string Text { get; }

    /// <summary>Whether it names a wheel.</summary>
    public bool IsWheel { get; }

    /// <summary>Reads one; null: it is none.</summary>
    public static PackageSpec? Parse(string? text)
    {
        if (text is null || text.Length > MaxLength)
            return null;
        var wheel = Wheel().Match(text);
        if (wheel.Success)
            return new PackageSpec(Normal(wheel.Groups["name"].Value), text, isWheel: true);
        var match = Requirement().Match(text);
        if (!match.Success || text.EndsWith(".whl", StringComparison.OrdinalIgnoreCase))
            return null;
        var project = Normal(match.Groups["name"].Value);
        var extras = match.Groups["extra"].Captures.Select(capture => Normal(capture.Value)).Distinct().Order(StringComparer.Ordinal);
        var clauses = match.Groups["clause"].Captures.Select(capture => Blanks().Replace(capture.Value, "")).Distinct().Order(StringComparer.Ordinal);
        return new PackageSpec(project, project + (match.Groups["extra"].Success ? $"[{string.Join(',', extras)}]" : "") + string.Join(',', clauses), isWheel: false);
    }

    /// <summary>Reads a list.</summary>
    /// <returns>The packages by name, whatever the order they were given in; or what is wrong in <c>extra_packages</c>.</returns>
    public static Result<IReadOnlyList<PackageSpec>> ParseAll(IReadOnlyList<string> texts)
    {
        ArgumentNullException.ThrowIfNull(texts);
        if (texts.Count > MaxCount)
            return Failure.Invalid("extra_packages", $"more than {MaxCount} packages");
        var packages = new List<PackageSpec>();
        foreach (var text in texts)
        {
            if (Parse(text) is not { } package)
                return Failure.Invalid("extra_packages", $"'{Shown(text)}' is neither a package such as name[extra]>=1.2 nor the file name of a wheel");
            if (packages.Exists(other => other.Project == package.Project))
                return Failure.Invalid("extra_packages", $"names '{package.Project}' twice");
            packages.Add(package);
        }
        return packages.OrderBy(package => package.Text, StringComparer.Ordinal).ToArray();
    }

    /// <summary>The project in the file name of a wheel; null: that is no such name.</summary>
    public static string? ProjectOfWheel(string fileName) => Wheel().Match(fileName) is { Success: true } match ? Normal(match.Groups["name"].Value) : null;

    /// <summary>The name of a project as PEP 503 compares it.</summary>
    public static string Normal(string project) => Separators().Replace(project, "-").ToLowerInvariant();

    private static string Shown(string? text) => text is null ? "null" : text.Length <= 64 ? text : text[..64] + "…";

    // PEP 508's name, extras and version clauses; the versions are PEP 440's, with the star of == and != at their end
    [GeneratedRegex(
        @"\A(?<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?) *(?:\[ *(?:(?<extra>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?) *(?:, *(?<extra>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?) *)*)?\])? *"
        + @"(?:(?<clause>(?:==|!=|<=|>=|<|>|~=) *[A-Za-z0-9][A-Za-z0-9.!+_-]*(?:\.\*)?) *(?:, *(?<clause>(?:==|!=|<=|>=|<|>|~=) *[A-Za-z0-9][A-Za-z0-9.!+_-]*(?:\.\*)?) *)*)?\z",
        RegexOptions.CultureInvariant)]
    private static partial Regex Requirement();

    [GeneratedRegex(
        @"\A(?<name>[A-Za-z0-9](?:[A-Za-z0-9._]*[A-Za-z0-9])?)-[A-Za-z0-9][A-Za-z0-9_.!+]*(?:-[0-9][A-Za-z0-9_.]*)?-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+\.whl\z",
        RegexOptions.CultureInvariant)]
    private static partial Regex Wheel();

    [GeneratedRegex("[-_.]+")]
    private static partial Regex Separators();

    [GeneratedRegex(" +")]
    private static partial Regex Blanks();
}
