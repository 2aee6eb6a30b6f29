using System.Text.RegularExpressions;
using ModelHost.Core.Engines;

namespace ModelHost.Core.Packages;

/// <summary>Why packages could not be installed.</summary>
public static partial class PackageFailures
{
    private const string Code = "packages_failed";
    private const int ShownLines = 3;
    private const int ShownLength = 500;

    /// <summary>Classifies a build that failed.</summary>
    /// <param name="baseImage">The image that was built on.</param>
    /// <param name="lines">What the build said; the installer's own errors among it are the cause.</param>
    /// <param name="engineMessage">What the container engine said at last.</param>
    /// <returns>Code <c>disk_full</c>, or <c>packages_failed</c>.</returns>
    public static EngineFailure Classify(string baseImage, IReadOnlyCollection<string> lines, string engineMessage)
    {
        // the engine's builder colours what comes on the standard error, a piece at a time
        var errors = lines.Select(line => Colour().Replace(line, "")).Where(line => line.StartsWith("ERROR: ", StringComparison.Ordinal) || line.Contains(": No module named ", StringComparison.Ordinal))
            .TakeLast(ShownLines).ToArray();
        var said = string.Join(' ', (errors.Length > 0 ? errors : [engineMessage]).Select(line => line.Length <= ShownLength ? line : line[..ShownLength] + "…"));
        return errors.Append(engineMessage).Any(DiskFull().IsMatch)
            ? new EngineFailure("disk_full", $"There is no room on the node's disk for extra_packages. ({said})", IsFinal: true)
            : new EngineFailure(Code, $"extra_packages could not be installed into {baseImage}: {said}", IsFinal: true);
    }

    /// <summary>The failure of a build that took too long.</summary>
    public static EngineFailure TookTooLong(TimeSpan limit) =>
        new(Code, $"extra_packages were not installed within {limit.TotalSeconds:0.#} s (Node:PackageTimeout). Is the package index reached from the node's containers?");

    /// <summary>The failure of a build that could not begin.</summary>
    public static EngineFailure Because(string reason) => new(Code, $"extra_packages: {reason}");

    [GeneratedRegex(@"\x1b\[[0-9;]*m")]
    private static partial Regex Colour();

    [GeneratedRegex("no space left on device|disk quota exceeded", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.NonBacktracking)]
    private static partial Regex DiskFull();
}
