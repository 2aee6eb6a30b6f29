namespace ModelHost.Core.Deployments;

/// <summary>How patient reconciliation is with a deployment.</summary>
public sealed record LifecyclePolicy
{
    /// <summary>Failed starts in a row after which no further one is tried. Default 3.</summary>
    public int MaxFailedStarts { get; init; } = 3;

    /// <summary>How long a run may be starting and loading, from its begin. Default 30 min.</summary>
    public TimeSpan StartTimeout { get; init; } = TimeSpan.FromMinutes(30);

    /// <summary>How long before its end a lease is warned of. Default 30 min.</summary>
    public TimeSpan ExpiryWarning { get; init; } = TimeSpan.FromMinutes(30);

    /// <summary>How long a run must have been ready so that the runs that failed before it no longer count. Default 5 min.</summary>
    public TimeSpan StableAfter { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>Pause before the run that follows the first failed one; it doubles with each further one. Default 2 s.</summary>
    public TimeSpan RelaunchDelay { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>Longest pause before a run. Default 5 min.</summary>
    public TimeSpan MaxRelaunchDelay { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>The pause before the next run: exponential, and by the jitter half of it at least.</summary>
    /// <param name="failedStarts">Failed starts in a row; the first pause is that of one.</param>
    /// <param name="jitter">0 to 1.</param>
    public TimeSpan Pause(int failedStarts, double jitter)
    {
        var whole = RelaunchDelay * Math.Pow(2, Math.Min(Math.Max(failedStarts, 1) - 1, 20));
        return (whole < MaxRelaunchDelay ? whole : MaxRelaunchDelay) * (0.5 + (0.5 * Math.Clamp(jitter, 0, 1)));
    }
}
