namespace ModelHost.Features.Nodes;

/// <summary>Lets one node join, once.</summary>
internal sealed class JoinToken
{
    public int Id { get; set; }

    /// <summary>SHA-256 of the secret; the secret itself is kept nowhere.</summary>
    public required string Hash { get; set; }

    /// <summary>The only node that may use it; null: any.</summary>
    public string? NodeName { get; set; }
    public DateTimeOffset CreatedAt { get; set; }
    public DateTimeOffset ExpiresAt { get; set; }
    public DateTimeOffset? UsedAt { get; set; }

    /// <summary>Name under which the node that used it joined.</summary>
    public string? UsedBy { get; set; }
}
