using System.Text.Json.Serialization;

namespace ModelHost.Docker.Wire;

internal sealed record EventAnswer
{
    public required string Type { get; init; }
    public required string Action { get; init; }
    public EventActor? Actor { get; init; }
    [JsonPropertyName("time")]
    public long Time { get; init; }
    [JsonPropertyName("timeNano")]
    public long TimeNano { get; init; }
}

internal sealed record EventActor
{
    [JsonPropertyName("ID")]
    public string? Id { get; init; }
    public IReadOnlyDictionary<string, string>? Attributes { get; init; }
}
