using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;
using ModelHost.Core.Deployments;
using ModelHost.Features.Settings;

namespace ModelHost.Features.Deployments;

/// <summary>How patient the control plane is with deployments. Section <c>Lifecycle</c>.</summary>
public sealed class LifecycleOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Lifecycle";

    /// <summary>
    /// Failed starts in a row after which no further one is tried, where neither a deployment nor the setting
    /// <c>default_max_failed_restarts</c> says. Default 3, 1 to 20.
    /// </summary>
    [Range(1, 20)]
    public int MaxFailedRestarts { get; set; } = 3;

    /// <summary>How long a run may be starting and loading before it is given up. Default: the setting <c>start_timeout_seconds</c>; 1 s to 1 day.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan? StartTimeout { get; set; }

    /// <summary>How long before its end a lease is warned of. Default: the setting <c>expiry_warning_minutes</c>; 1 s to 1 day.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan? ExpiryWarning { get; set; }

    /// <summary>How long a run must have served so that the failed ones before it no longer count. Default 5 min, 1 s to 1 day.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan StableAfter { get; set; } = TimeSpan.FromMinutes(5);

    /// <summary>Pause before the run that follows a failed one; doubles with each further one. Default 2 s, 10 ms to 1 h.</summary>
    [Range(typeof(TimeSpan), "00:00:00.010", "01:00:00")]
    public TimeSpan RelaunchDelay { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>Longest pause before a run. Default 5 min, 10 ms to 1 day.</summary>
    [Range(typeof(TimeSpan), "00:00:00.010", "1.00:00:00")]
    public TimeSpan MaxRelaunchDelay { get; set; } = TimeSpan.FromMinutes(5);
}

/// <summary>The policy in force: that of the options and of the settings as they are now.</summary>
internal sealed class LifecyclePolicySource(IOptions<LifecycleOptions> options, LiveSettings settings)
{
    /// <summary>The policy for one deployment.</summary>
    public LifecyclePolicy For(LaunchSpec spec)
    {
        var (fixedly, live) = (options.Value, settings.Current);
        return new LifecyclePolicy
        {
            MaxFailedStarts = spec.MaxFailedRestarts ?? live.DefaultMaxFailedRestarts ?? fixedly.MaxFailedRestarts,
            StartTimeout = fixedly.StartTimeout ?? TimeSpan.FromSeconds(live.StartTimeoutSeconds),
            ExpiryWarning = fixedly.ExpiryWarning ?? TimeSpan.FromMinutes(live.ExpiryWarningMinutes),
            StableAfter = fixedly.StableAfter,
            RelaunchDelay = fixedly.RelaunchDelay,
            MaxRelaunchDelay = fixedly.MaxRelaunchDelay,
        };
    }
}
