using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace ModelHost.Core.Packages;

/// <summary>A wheel that goes into an image.</summary>
/// <param name="FileName">Its name, which says what is in it.</param>
/// <param name="Sha256">Hash of its bytes, lower-case hexadecimal.</param>
public sealed record WheelFile(string FileName, string Sha256);

/// <summary>
/// An engine's image with packages installed into it. Everything that decides what is in it decides its name, so that deployments that ask for the
/// same share one.
/// </summary>
public sealed record PackageImage
{
    /// <summary>Repository of all such images; none is ever pulled or pushed.</summary>
    public const string Repository = "modelhost/packages";

    /// <summary>Label of all such images; its value is <see cref="Key"/>.</summary>
    public const string Label = "modelhost.packages";

    /// <summary>Folder of the build context with the wheels.</summary>
    public const string WheelFolder = "wheels";

    // of the recipe below: with another one the images are others
    private const string RecipeVersion = "1";
    private const string Inside = "/tmp/modelhost-wheels";

    /// <summary>Id of the image to build on, <c>sha256:…</c>.</summary>
    public required string BaseId { get; init; }

    /// <summary>The program that installs, and its first arguments.</summary>
    public required IReadOnlyList<string> Installer { get; init; }

    /// <summary>What to install, sorted.</summary>
    public required IReadOnlyList<PackageSpec> Packages { get; init; }

    /// <summary>The wheels named, and those that may be needed with them.</summary>
    public IReadOnlyList<WheelFile> Wheels { get; init; } = [];

    /// <summary>Whether the wheels are all there is.</summary>
    public bool NoIndex { get; init; }

    /// <summary>Where packages are looked up; empty: where the installer does by itself.</summary>
    public string IndexUrl { get; init; } = "";

    /// <summary>SHA-256 over everything that decides what is in the image, lower-case hexadecimal.</summary>
    public string Key => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(JsonSerializer.Serialize(
        (string[])[RecipeVersion, BaseId, .. Command, .. Wheels.OrderBy(wheel => wheel.FileName, StringComparer.Ordinal).SelectMany(wheel => (string[])[wheel.FileName, wheel.Sha256])]))));

    /// <summary>The image's tag within <see cref="Repository"/>.</summary>
    public string Tag => Key[..32];

    /// <summary>The image's name.</summary>
    public string Name => $"{Repository}:{Tag}";

    /// <summary>What installs the packages, argument by argument.</summary>
    public IReadOnlyList<string> Command =>
    [
        .. Installer,
        .. NoIndex ? ["--no-index"] : IndexUrl.Length > 0 ? ["--index-url", IndexUrl] : Array.Empty<string>(),
        .. Wheels.Count > 0 ? ["--find-links", Inside] : Array.Empty<string>(),
        .. Packages.Select(package => package.IsWheel ? $"{Inside}/{package.Text}" : package.Text),
    ];

    /// <summary>How it is built. The command is an array: no shell reads it.</summary>
    public string Dockerfile => string.Concat(
        $"FROM {BaseId}\n",
        // for the build only, and unknown to pips that do not need it: the image is ours to change, and nobody else manages it
        "ARG PIP_BREAK_SYSTEM_PACKAGES=1\nARG PIP_ROOT_USER_ACTION=ignore\n",
        Wheels.Count > 0 ? $"COPY {WheelFolder}/ {Inside}/\n" : "",
        $"RUN {JsonSerializer.Serialize(Command)}\n");
}
