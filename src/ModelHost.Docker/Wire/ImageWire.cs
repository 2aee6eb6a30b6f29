using System.Text.Json;
using System.Text.Json.Serialization;

namespace ModelHost.Docker.Wire;

internal sealed record ImageListAnswer
{
    public required string Id { get; init; }
    public IReadOnlyList<string>? RepoTags { get; init; }
    public IReadOnlyList<string>? RepoDigests { get; init; }
    public long Created { get; init; }
    public long Size { get; init; }
    public IReadOnlyDictionary<string, string>? Labels { get; init; }
}

internal sealed record ImageAnswer
{
    public required string Id { get; init; }
    public IReadOnlyList<string>? RepoTags { get; init; }
    public IReadOnlyList<string>? RepoDigests { get; init; }
    public string? Created { get; init; }
    public string? Architecture { get; init; }
    public ConfigAnswer? Config { get; init; }
}

/// <summary>One of the two.</summary>
internal sealed record RemovedAnswer
{
    public string? Untagged { get; init; }
    public string? Deleted { get; init; }
}

internal sealed record PruneAnswer
{
    public IReadOnlyList<RemovedAnswer>? ImagesDeleted { get; init; }
    public required ulong SpaceReclaimed { get; init; }
}

/// <summary>One message of the stream that a pull, a load or a build answers with.</summary>
internal sealed record StreamMessage
{
    /// <summary>Output of a build, cut anywhere.</summary>
    [JsonPropertyName("stream")]
    public string? Stream { get; init; }
    /// <summary>Results for programs; its shape is that of the call. A build's is <c>{"ID":"sha256:…"}</c>.</summary>
    [JsonPropertyName("aux")]
    public JsonElement Aux { get; init; }
    [JsonPropertyName("status")]
    public string? Status { get; init; }
    [JsonPropertyName("id")]
    public string? Id { get; init; }
    [JsonPropertyName("progressDetail")]
    public ProgressDetail? Progress { get; init; }
    [JsonPropertyName("error")]
    public string? Error { get; init; }
    [JsonPropertyName("errorDetail")]
    public ErrorDetail? ErrorDetail { get; init; }
}

internal sealed record ProgressDetail
{
    [JsonPropertyName("current")]
    public long? Current { get; init; }
    [JsonPropertyName("total")]
    public long? Total { get; init; }
}

internal sealed record ErrorDetail
{
    [JsonPropertyName("message")]
    public string? Message { get; init; }
}

/// <summary>The body of a refusal. Podman adds its own fields.</summary>
internal sealed record ErrorAnswer
{
    [JsonPropertyName("message")]
    public string? Message { get; init; }
}
