using System.Net;

namespace ModelHost.Docker.Http;

/// <summary>Names as parts of a path.</summary>
/// <remarks>
/// Escaping alone does not keep a name in its place: engines decode <c>%2F</c> first and then tidy the path up, so that
/// <c>/containers/..%2F..%2Finfo/json</c> arrives as <c>/info/json</c>. So names with empty or dotted segments are refused here.
/// </remarks>
internal static class EnginePaths
{
    /// <summary>The path of a container: an id, a beginning of one, or a name with or without the slash that the API puts before it.</summary>
    /// <exception cref="DockerException">Not a name that a container can have (400).</exception>
    public static string Container(HttpMethod method, string id, string rest = "")
    {
        ArgumentNullException.ThrowIfNull(id);
        var name = id.StartsWith('/') ? id[1..] : id;
        return IsSegment(name) && !name.Contains('/', StringComparison.Ordinal)
            ? $"/containers/{Uri.EscapeDataString(name)}{rest}"
            : throw Refusal($"{method} /containers/{{id}}{rest}", $"invalid container name or id: {id}");
    }

    /// <summary>The path of an image: an id or a reference, whose slashes stay as they are.</summary>
    /// <exception cref="DockerException">Not a reference that an image can have (400).</exception>
    public static string Image(HttpMethod method, string reference, string rest)
    {
        ArgumentNullException.ThrowIfNull(reference);
        var segments = reference.Split('/');
        return Array.TrueForAll(segments, IsSegment)
            ? $"/images/{string.Join('/', segments.Select(Uri.EscapeDataString))}{rest}"
            : throw Refusal($"{method} /images/{{name}}{rest}", $"invalid image reference: {reference}");
    }

    private static bool IsSegment(string text) => text.Length > 0 && text is not ("." or "..") && !text.Any(char.IsControl);

    private static DockerException Refusal(string call, string message) => new(call, HttpStatusCode.BadRequest, message);
}
