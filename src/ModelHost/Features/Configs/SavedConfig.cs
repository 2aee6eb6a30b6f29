namespace ModelHost.Features.Configs;

/// <summary>Fields of a deployment that somebody keeps for the next time.</summary>
internal sealed class SavedConfig
{
    public int Id { get; set; }

    public required string Name { get; set; }

    /// <summary>The payload as JSON, with a mask for every value of a variable.</summary>
    public required string Payload { get; set; }

    /// <summary>What the masks stand for, encrypted; null: there are none.</summary>
    public string? EnvValues { get; set; }

    public DateTimeOffset CreatedAt { get; set; }
}
