using System.Text.RegularExpressions;

namespace ModelHost.Core.Engines;

/// <summary>
/// Finds the cause of a failed image pull in what the container engine said. Docker, with either image store, and Podman word it
/// differently. All of them are final: the container engine tries again by itself before it gives up.
/// </summary>
public static partial class PullFailures
{
    /// <summary>The registry was not reached, sent nothing for too long, or broke off.</summary>
    public const string Unreachable = "registry_unreachable";

    /// <summary>The registry wants a login, or another one.</summary>
    public const string LoginWanted = "registry_auth";

    private const int ShownLength = 1000;

    // the engine hands on what a registry says: no text must take longer for being made to hurt
    private const RegexOptions Options = RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.NonBacktracking;

    // In this order: a refusal for want of a login also says that the image "does not exist or may require" one.
    private static readonly (string Code, Regex Pattern, string Message)[] Rules =
    [
        ("disk_full", DiskFull(), "There is no room on the node's disk for image {image} of registry {registry}. Free some, or give the container engine a larger one."),
        ("registry_rate_limit", RateLimit(), "Registry {registry} does not give out image {image} for now: too much was asked of it. Wait, or use a mirror (Node:ImageRepository)."),
        (LoginWanted, Unauthorized(), "Registry {registry} does not give image {image} without a login that it knows. Give the node one (Node:Registries), or pull it there by hand."),
        ("image_not_found", Denied(), "Registry {registry} says that image {image} does not exist or needs another login. Check vllm_version, Node:ImageRepository and Node:Registries."),
        ("image_not_found", NotFound(), "Registry {registry} has no image {image}. Check that the tag exists (vllm_version) and the repository is right (Node:ImageRepository)."),
        (Unreachable, Network(), "Registry {registry} was not reached, or broke off while it sent image {image}. Check the network between it and the node."),
    ];

    /// <summary>Classifies a failure; the message names the image and its registry.</summary>
    /// <param name="image">The image as it was asked for, with its tag.</param>
    /// <param name="engineMessage">What the engine said; logins and signatures in its addresses are left out.</param>
    /// <returns>
    /// Code <c>disk_full</c>, <c>registry_auth</c>, <c>registry_rate_limit</c>, <c>image_not_found</c>, <c>registry_unreachable</c>, or
    /// <c>pull_failed</c> for what is none of these.
    /// </returns>
    public static EngineFailure Classify(string image, string engineMessage)
    {
        var said = Shown(engineMessage);
        var rule = Rules.FirstOrDefault(rule => rule.Pattern.IsMatch(engineMessage));
        return rule.Code is null
            ? new("pull_failed", Named("Image {image} could not be pulled from registry {registry}.", image) + $" ({said})", IsFinal: true)
            : new(rule.Code, Named(rule.Message, image) + $" ({said})", IsFinal: true);
    }

    /// <summary>The failure of a pull in which nothing moved for too long.</summary>
    /// <param name="image">The image as it was asked for, with its tag.</param>
    /// <param name="silence">How long nothing moved.</param>
    /// <param name="lastWords">What the engine said last; may be empty.</param>
    public static EngineFailure Stalled(string image, TimeSpan silence, string lastWords) => new(
        Unreachable,
        Named("Registry {registry} sent nothing more of image {image}", image) + $" for {silence.TotalSeconds:0.#} s (Node:PullStallTimeout), and the pull was given up."
        + " Check the network between it and the node." + (lastWords.Length > 0 ? $" (last: {Shown(lastWords)})" : ""), IsFinal: true);

    private static string Named(string message, string image) =>
        message.Replace("{registry}", EngineImage.RegistryOf(image), StringComparison.Ordinal).Replace("{image}", image, StringComparison.Ordinal);

    private static string Shown(string text)
    {
        var clean = Query().Replace(Login().Replace(text, "://********@"), "?********");
        return clean.Length <= ShownLength ? clean : clean[..ShownLength] + "…";
    }

    [GeneratedRegex("no space left on device|disk quota exceeded|not enough (free )?space", Options)]
    private static partial Regex DiskFull();

    [GeneratedRegex("toomanyrequests|too many requests|pull rate limit", Options)]
    private static partial Regex RateLimit();

    [GeneratedRegex("unauthorized|no basic auth credentials|authentication required|invalid username/password|incorrect username or password", Options)]
    private static partial Regex Unauthorized();

    [GeneratedRegex("pull access denied|requested access to the resource is denied|403 Forbidden|insufficient_scope", Options)]
    private static partial Regex Denied();

    [GeneratedRegex("manifest.*(unknown|not found)|name unknown|repository .* not found|: not found|no matching manifest|no such image", Options)]
    private static partial Regex NotFound();

    [GeneratedRegex(
        "no such host|server misbehaving|connection (refused|reset)|broken pipe|timeout|request canceled|deadline exceeded|network is unreachable|no route to host"
        + "|\\bEOF\\b|x509:|tls:|HTTP response to HTTPS client|unexpected HTTP status|unexpected status.* 5[0-9][0-9]", Options)]
    private static partial Regex Network();

    [GeneratedRegex("://[^/@\\s]+@", Options)]
    private static partial Regex Login();

    // a registry may send the engine on to signed addresses
    [GeneratedRegex("\\?[A-Za-z0-9._%~+-]+=[^\\s\"]*", Options)]
    private static partial Regex Query();
}
