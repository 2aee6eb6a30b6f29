using ModelHost.Core.Access;

namespace ModelHost.Features.ApiKeys;

/// <summary>An API key as it is stored; the key itself is not.</summary>
internal sealed class ApiKey
{
    public int Id { get; set; }

    public required string Label { get; set; }

    /// <summary>The first characters of the key, for people to know it by.</summary>
    public required string Prefix { get; set; }

    /// <summary>HMAC-SHA-256 of the key, in hexadecimal.</summary>
    public required string Hash { get; set; }

    /// <summary>Whether it was made to end by itself. Temporary keys do not close the gateway, and are deleted after their end.</summary>
    public bool IsTemporary { get; set; }

    /// <summary>The key that made it, and goes with it; null: an administrator did.</summary>
    public int? MakerId { get; set; }

    public KeyRoles Roles { get; set; }

    /// <summary>Uids of the deployments it is for, as a JSON array; null: all.</summary>
    public string? Deployments { get; set; }

    /// <summary>Names of the models it is for, as a JSON array; null: all.</summary>
    public string? Models { get; set; }

    public DateTimeOffset CreatedAt { get; set; }

    public DateTimeOffset? ExpiresAt { get; set; }

    /// <summary>Written by <see cref="ApiKeyUse"/> alone.</summary>
    public DateTimeOffset? LastUsedAt { get; set; }
}
