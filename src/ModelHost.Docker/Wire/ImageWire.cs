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

/// <summary>One line of the stream that a pull or a load answers with.</summary>
internal sealed record StreamMessage
{
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
    public long Current { get; init; }
    [JsonPropertyName("total")]
    public long Total { get; init; }
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
