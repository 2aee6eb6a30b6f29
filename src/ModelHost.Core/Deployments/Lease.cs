using System.Text.Json;
using System.Text.Json.Serialization;

namespace ModelHost.Core.Deployments;

/// <summary>How long a deployment may serve. The control plane decides; a node keeps the highest version it was told, and ends the engine by it even when cut off.</summary>
/// <param name="Version">Grows with every change.</param>
/// <param name="ExpiresAt">Its end; null: not counted yet, or none.</param>
/// <param name="DurationSeconds">Its length from the first ready moment, as long as that has not come; null: none.</param>
public sealed record Lease(long Version, DateTimeOffset? ExpiresAt, int? DurationSeconds)
{
    /// <summary>The lease as it stands once the engine has been ready.</summary>
    public Lease CountedFrom(DateTimeOffset readyAt) =>
        ExpiresAt is null && DurationSeconds is { } seconds ? this with { ExpiresAt = readyAt.AddSeconds(seconds) } : this;

    /// <summary>The next lease, with hours added to this one, rounded up to whole seconds, or without an end.</summary>
    /// <param name="hours">What to add; null: the end is dropped.</param>
    /// <returns>It, or null when there is no end to move.</returns>
    public Lease? Extend(double? hours)
    {
        if (hours is not { } added)
            return new Lease(Version + 1, null, null);
        if (ExpiresAt is null && DurationSeconds is null)
            return null;
        var seconds = (long)Math.Ceiling(added * 3600);
        return new Lease(Version + 1, ExpiresAt?.AddSeconds(seconds), DurationSeconds is { } length ? (int)Math.Min(length + seconds, int.MaxValue) : null);
    }

    /// <summary>Writes the record as one line of JSON.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, LeaseJson.Default.Lease);

    /// <summary>Reads a record; null: the text is none.</summary>
    public static Lease? FromJson(string? json)
    {
        try
        {
            return string.IsNullOrEmpty(json) ? null : JsonSerializer.Deserialize(json, LeaseJson.Default.Lease);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(Lease))]
internal sealed partial class LeaseJson : JsonSerializerContext;
