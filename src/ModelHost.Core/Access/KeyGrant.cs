using ModelHost.Core.Routing;

namespace ModelHost.Core.Access;

/// <summary>What an API key may be used for.</summary>
[Flags]
public enum KeyRoles
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>Requests to models.</summary>
    Inference = 1,
    /// <summary>Reading the metrics.</summary>
    Metrics = 2,
}

/// <summary>Everything that an API key gives to who has it.</summary>
/// <param name="Roles">What it may be used for.</param>
/// <param name="Scope">Which models it may be used on.</param>
/// <param name="ExpiresAt">When it ends; null: never.</param>
public sealed record KeyGrant(KeyRoles Roles, RouteScope Scope, DateTimeOffset? ExpiresAt)
{
    /// <summary>What is left of it for a key whose maker has this: never more than either.</summary>
    public KeyGrant LimitedTo(KeyGrant maker) =>
        new(Roles & maker.Roles, Scope.LimitedTo(maker.Scope), Earlier(ExpiresAt, maker.ExpiresAt));

    /// <summary>Whether it gives nothing that another one does not give.</summary>
    public bool IsWithin(KeyGrant other) => (Roles & ~other.Roles) == KeyRoles.None && Scope.IsWithin(other.Scope) && Earlier(ExpiresAt, other.ExpiresAt) == ExpiresAt;

    /// <summary>Whether it has ended.</summary>
    public bool HasEnded(DateTimeOffset now) => ExpiresAt <= now;

    private static DateTimeOffset? Earlier(DateTimeOffset? a, DateTimeOffset? b) => a is null ? b : b is null || a < b ? a : b;
}
