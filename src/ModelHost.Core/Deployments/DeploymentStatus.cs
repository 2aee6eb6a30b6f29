namespace ModelHost.Core.Deployments;

/// <summary>Where a deployment stands, as the API says it (in snake_case).</summary>
public enum DeploymentStatus
{
    /// <summary>Nothing runs and nothing is wanted.</summary>
    Stopped,
    /// <summary>The image is pulled or the container made.</summary>
    Starting,
    /// <summary>The engine runs and loads its model.</summary>
    Loading,
    /// <summary>The engine answers.</summary>
    Running,
    /// <summary>The model sleeps in RAM.</summary>
    PausedRam,
    /// <summary>The engine is being ended.</summary>
    Stopping,
    /// <summary>The last run failed; <c>last_error</c> says why.</summary>
    Error,
    /// <summary>The lease ran out.</summary>
    Expired,
    /// <summary>The node does not answer; nothing is known, and nothing was stopped.</summary>
    Unreachable,
}

/// <summary>What is asked of a deployment.</summary>
public enum WantedState
{
    /// <summary>It is to serve.</summary>
    Running,
    /// <summary>A person stopped it.</summary>
    Stopped,
    /// <summary>Its lease ended it.</summary>
    Expired,
    /// <summary>Its run failed and no other is tried.</summary>
    Failed,
}

/// <summary>Facts about <see cref="DeploymentStatus"/>.</summary>
public static class DeploymentStatuses
{
    /// <summary>Whether a deployment in this status holds its port and its public names.</summary>
    public static bool IsActive(this DeploymentStatus status) => status is DeploymentStatus.Starting or DeploymentStatus.Loading
        or DeploymentStatus.Running or DeploymentStatus.PausedRam or DeploymentStatus.Stopping or DeploymentStatus.Unreachable;

    /// <summary>Whether a deployment in this status has a lease that counts, or will.</summary>
    public static bool CanBeExtended(this DeploymentStatus status) => status is DeploymentStatus.Running or DeploymentStatus.Loading
        or DeploymentStatus.Starting or DeploymentStatus.PausedRam;

    /// <summary>The status for a word of the API; null: it is none.</summary>
    public static DeploymentStatus? FromWire(string word)
    {
        foreach (var status in Enum.GetValues<DeploymentStatus>())
        {
            if (status.ToWire() == word)
                return status;
        }
        return null;
    }

    /// <summary>The word of the API.</summary>
    public static string ToWire(this DeploymentStatus status) => status switch
    {
        DeploymentStatus.Stopped => "stopped",
        DeploymentStatus.Starting => "starting",
        DeploymentStatus.Loading => "loading",
        DeploymentStatus.Running => "running",
        DeploymentStatus.PausedRam => "paused_ram",
        DeploymentStatus.Stopping => "stopping",
        DeploymentStatus.Error => "error",
        DeploymentStatus.Expired => "expired",
        DeploymentStatus.Unreachable => "unreachable",
    };
}
