using System.ComponentModel.DataAnnotations;
using ModelHost.Core.Engines;

namespace ModelHost.Features.Settings;

/// <summary>
/// What can be changed while ModelHost runs. Names, defaults and ranges are those of the published API. A value comes from the database, where
/// <c>PUT /api/settings</c> puts it; else from the section <c>Settings</c> of the configuration; else it is the default here.
/// </summary>
public sealed record RuntimeSettings
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Settings";

    /// <summary>Whether /v1 serves at all. Default true.</summary>
    public bool GatewayEnabled { get; init; } = true;

    /// <summary>Longest time in seconds that a call of /v1 that is not streamed may take in all. Default 600.</summary>
    [Range(10, 86_400)]
    public int GatewayTimeoutSeconds { get; init; } = 600;

    /// <summary>Time in seconds after which a deployment that is still starting or loading counts as failed. Default 1800.</summary>
    [Range(60, 86_400)]
    public int StartTimeoutSeconds { get; init; } = 1800;

    /// <summary>What runs an engine on a node that has both: docker or podman. Default docker.</summary>
    [AllowedValues("docker", "podman", ErrorMessage = "must be docker or podman")]
    public string PreferredContainerRuntime { get; init; } = "docker";

    /// <summary>Port that forms begin with. Default 8001.</summary>
    [Range(1024, 65_535)]
    public int DefaultPort { get; init; } = 8001;

    /// <summary>Fraction of GPU memory that forms begin with. Default 0.5.</summary>
    [Range(0.05, 1.0)]
    public double DefaultGpuFraction { get; init; } = 0.5;

    /// <summary>Duration in seconds that forms begin with, as text: 3600, 7200, 14400, 28800, 43200, 86400, 172800 or inf. Default 43200.</summary>
    [AllowedValues("3600", "7200", "14400", "28800", "43200", "86400", "172800", "inf",
        ErrorMessage = "must be one of 3600, 7200, 14400, 28800, 43200, 86400, 172800 and inf")]
    public string DefaultDurationChoice { get; init; } = "43200";

    /// <summary>Engine version that forms begin with; empty: the latest. Default empty.</summary>
    [EngineVersion]
    public string DefaultVllmVersion { get; init; } = "";

    /// <summary>Failed starts after which no further one is tried, for deployments that say nothing; null: the node's default. Default null.</summary>
    [Range(1, 20)]
    public int? DefaultMaxFailedRestarts { get; init; }

    /// <summary>Where lifecycle notifications go; empty: nowhere. Default empty.</summary>
    [WebAddress]
    public string WebhookUrl { get; init; } = "";

    /// <summary>How long before a deployment expires it is warned of, in minutes. Default 30.</summary>
    [Range(1, 1440)]
    public int ExpiryWarningMinutes { get; init; } = 30;

    /// <summary>How long figures of nodes are kept, in hours. Default 48.</summary>
    [Range(1, 8760)]
    public int NodeMetricsRetentionHours { get; init; } = 48;

    /// <summary>Life of a temporary API key in seconds; 0: forms make none. Default 300.</summary>
    [Range(0, 3600)]
    public int TempApiKeyTtlSeconds { get; init; } = 300;

    /// <summary>Whether a node that is seen for the first time has its warm cache on. Default true.</summary>
    public bool DefaultWarmOffloadEnabled { get; init; } = true;

    /// <summary>Seconds after its last request during which a model is not evicted. Default 0.</summary>
    [Range(0, 300)]
    public int BusyGuardSeconds { get; init; }

    /// <summary>Longest time in seconds between two looks at a node. Default 10.</summary>
    [Range(1, 300)]
    public int NodesSyncIntervalSeconds { get; init; } = 10;

    /// <summary>Longest time in seconds between two looks at its deployments. Default 5.</summary>
    [Range(1, 300)]
    public int DeploymentsSyncIntervalSeconds { get; init; } = 5;

    /// <summary>Longest time in seconds between two looks at what has expired. Default 30.</summary>
    [Range(5, 600)]
    public int ExpiryCheckIntervalSeconds { get; init; } = 30;

    /// <summary>Failed looks at a node in a row after which it is critical. Default 3.</summary>
    [Range(1, 20)]
    public int NodeFailureThreshold { get; init; } = 3;

    /// <summary>Failed looks at its deployments in a row after which they are unreachable. Default 3.</summary>
    [Range(1, 20)]
    public int DeploymentFailureThreshold { get; init; } = 3;
}

/// <summary>Empty, or what can be an image's tag.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class EngineVersionAttribute() : ValidationAttribute("must be empty or a version of up to 128 letters, digits, '_', '.' and '-'")
{
    public override bool IsValid(object? value) => value is "" || (value is string version && EngineImage.IsValidVersion(version));
}

/// <summary>Empty, or an absolute http or https address.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class WebAddressAttribute() : ValidationAttribute("must be empty or an http or https address of up to 2048 characters")
{
    public override bool IsValid(object? value) => value is ""
        || (value is string { Length: <= 2048 } text && Uri.TryCreate(text, UriKind.Absolute, out var address) && address is { Scheme: "http" or "https", Host.Length: > 0 });
}
