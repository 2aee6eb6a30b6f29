using System.Text.Json;
using System.Text.Json.Serialization;

namespace ModelHost.Features.Galleries;

/// <summary>Asks for a gallery to be added.</summary>
public sealed record GalleryAdd
{
    /// <summary>Its unique name: letters, digits and . _ -, up to 64.</summary>
    public string? Name { get; init; }

    /// <summary>Where its index is: <c>https://</c>, <c>github:owner/repository/path@branch</c>, or <c>file://</c> in the data folder's <c>galleries</c> or <c>models</c>.</summary>
    public string? Url { get; init; }

    /// <summary>Where else it is, in the order in which they are tried; up to 8.</summary>
    public IReadOnlyList<string>? Mirrors { get; init; }

    /// <summary>Kept and shown as it is given.</summary>
    public JsonElement? Verification { get; init; }
}

/// <summary>Asks for a gallery to be taken away.</summary>
public sealed record GalleryRemove
{
    /// <summary>Its name.</summary>
    public string? Name { get; init; }
}

/// <summary>A gallery.</summary>
internal sealed record GalleryRead
{
    public required string Url { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Mirrors { get; init; }

    public required string Name { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public JsonElement? Verification { get; init; }

    /// <summary>All its sources, in the order in which they are tried.</summary>
    [JsonIgnore]
    public IEnumerable<string> Sources => (Mirrors ?? []).Prepend(Url);
}

/// <summary>A gallery with how its last reading went.</summary>
/// <param name="Url">Where its index is.</param>
/// <param name="Mirrors">Where else.</param>
/// <param name="Name">Its name.</param>
/// <param name="Verification">As it was given.</param>
/// <param name="Error">Why it could not be read the last time; absent: it could, or has not been asked for yet.</param>
internal sealed record GalleryState(
    string Url,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<string>? Mirrors,
    string Name,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] JsonElement? Verification,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Error);
