namespace ModelHost.Core.Deployments;

/// <summary>How long a deployment may serve.</summary>
/// <param name="ExpiresAt">When it ends; null: it is not counted yet, or there is no end.</param>
/// <param name="DurationSeconds">Its length from the first ready moment; null: there is no end.</param>
public sealed record Lease(DateTimeOffset? ExpiresAt, int? DurationSeconds)
{
    /// <summary>A lease with hours added to it, rounded up to whole seconds, or without an end.</summary>
    /// <param name="hours">What to add; null: the end is dropped.</param>
    /// <returns>The new lease, or null when there is no end to move.</returns>
    public Lease? Extend(double? hours)
    {
        if (hours is not { } added)
            return new Lease(null, null);
        if (ExpiresAt is null && DurationSeconds is null)
            return null;
        var seconds = (long)Math.Ceiling(added * 3600);
        return new Lease(ExpiresAt?.AddSeconds(seconds), DurationSeconds is { } length ? (int)Math.Min(length + seconds, int.MaxValue) : null);
    }
}
