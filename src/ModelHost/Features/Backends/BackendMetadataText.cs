using System.Text.Json;
using ModelHost.Features.Galleries;

namespace ModelHost.Features.Backends;

/// <summary>What the <c>metadata.json</c> of a backend says, where it says it.</summary>
internal sealed record BackendMetadataText
{
    public string? Alias { get; init; }
    public string? Name { get; init; }
    public string? GalleryUrl { get; init; }
    public string? Version { get; init; }
    public string? Uri { get; init; }
    public string? Digest { get; init; }
    public DateTimeOffset? InstalledAt { get; init; }

    /// <summary>Reads one; a backend that says nothing to be understood is one all the same.</summary>
    public static BackendMetadataText Read(string json)
    {
        try
        {
            return json.Length == 0 ? new() : JsonSerializer.Deserialize<BackendMetadataText>(json, GalleryJson.Options) ?? new();
        }
        catch (JsonException)
        {
            return new();
        }
    }
}
