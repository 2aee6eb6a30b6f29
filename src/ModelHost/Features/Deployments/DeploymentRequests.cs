using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Core.Deployments;

namespace ModelHost.Features.Deployments;

/// <summary>Asks for a record of a deployment that nothing is started for.</summary>
public sealed record DeploymentCreate : DeploymentFields
{
    /// <summary>User or team the deployment is for; a restart asks for it again.</summary>
    [StringLength(255, MinimumLength = 1)]
    public override string? Owner { get; init; }

    /// <summary>Where it is to stand: stopped (the default), expired or error. All other statuses are found out and not given.</summary>
    [StringLength(32)]
    public string? Status { get; init; }
}

/// <summary>Asks whether a deployment would fit. Takes what a start takes.</summary>
public sealed record DeploymentPlanRequest : DeploymentFields
{
    /// <summary>User or team the deployment is for.</summary>
    [StringLength(255, MinimumLength = 1)]
    public override string? Owner { get; init; }
}

/// <summary>Asks for a deployment that ended to be started again as it was.</summary>
public sealed record DeploymentRestart : StrictRequest
{
    /// <summary>User or team restarting this deployment.</summary>
    [Required, StringLength(255, MinimumLength = 1)]
    public string? Owner { get; init; }

    /// <summary>How long to serve, in seconds, from the first ready moment; omit for indefinite serving.</summary>
    [Range(1, int.MaxValue)]
    public int? DurationSeconds { get; init; }
}

/// <summary>Asks for more time. Exactly one of the two.</summary>
public sealed record DeploymentExtend : StrictRequest
{
    /// <summary>The most that can be added at once.</summary>
    public const double MaxHours = 336;

    /// <summary>Hours to add to the deadline, above 0 and up to 336.</summary>
    [Range(0, MaxHours, MinimumIsExclusive = true)]
    public double? Hours { get; init; }

    /// <summary>True drops the deadline.</summary>
    public bool? Infinite { get; init; }
}

/// <summary>Asks for a deployment to be protected, or no longer.</summary>
public sealed record DeploymentPin : StrictRequest
{
    /// <summary>Whether the deployment is protected from warm-cache eviction.</summary>
    [Required]
    public bool? Pinned { get; init; }
}

/// <summary>Asks for a deployment to be started by requests for its model, or no longer.</summary>
public sealed record DeploymentOnDemand : StrictRequest
{
    /// <summary>Whether the first request for its model starts it while it is stopped or failed.</summary>
    [Required]
    public bool? StartOnDemand { get; init; }
}

/// <summary>Asks for a model to be served as an exported manifest says.</summary>
public sealed record DeploymentFromManifest : StrictRequest
{
    /// <summary>The manifest, as it was exported.</summary>
    [Required]
    public JsonElement? Manifest { get; init; }

    /// <summary>ID of the node to deploy on.</summary>
    [Required]
    public int? NodeId { get; init; }

    /// <summary>Public port of the deployment, one per node.</summary>
    [Required, Range(1024, 65535)]
    public int? Port { get; init; }

    /// <summary>User or team launching this deployment.</summary>
    [Required, StringLength(255, MinimumLength = 1)]
    public string? Owner { get; init; }

    /// <summary>How long to serve, in seconds, from the first ready moment; omit for indefinite serving.</summary>
    [Range(1, int.MaxValue)]
    public int? DurationSeconds { get; init; }

    /// <summary>Environment variables with their values, which no manifest holds.</summary>
    [MaxLength(128)]
    public IReadOnlyList<EnvironmentVariable>? EnvVars { get; init; }

    /// <summary>Leave out the GPU memory check, and nothing else.</summary>
    public bool SkipResourceCheck { get; init; }
}

/// <summary>Whether a public name is free.</summary>
/// <param name="Available">Whether no active deployment holds it.</param>
/// <param name="ConflictId">The deployment that holds it.</param>
/// <param name="ConflictModel">The model of that deployment.</param>
/// <param name="Suggestion">A name like it that is free.</param>
internal sealed record NameCheck(
    bool Available,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? ConflictId = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? ConflictModel = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Suggestion = null);

/// <summary>Whether a deployment would fit now.</summary>
internal sealed record DeploymentPlan
{
    /// <summary>Whether a start would find port, names and GPUs.</summary>
    public required bool Fits { get; init; }

    /// <summary>Whether models that are not in use would be offloaded to make room.</summary>
    public bool WarmEnabled { get; init; }

    /// <summary>Models that would be offloaded.</summary>
    public IReadOnlyList<PlannedOffload> WouldOffload { get; init; } = [];

    /// <summary>Why it does not fit; null when it does.</summary>
    public string? BlockedReason { get; init; }

    /// <summary>The GPUs that it would get; null when it does not fit.</summary>
    public IReadOnlyList<int>? GpuIds { get; init; }

    /// <summary>Every GPU of the node.</summary>
    public IReadOnlyList<PlannedGpu> Gpus { get; init; } = [];
}

/// <summary>A model that would be offloaded.</summary>
internal sealed record PlannedOffload(int? DeploymentId, string ModelName, string Tier);

/// <summary>A GPU in a plan, in MiB; null where the node could not tell.</summary>
/// <param name="Index">Its index on the node.</param>
/// <param name="Name">What it is.</param>
/// <param name="MemoryTotalMb">Its memory.</param>
/// <param name="MemoryFreeMb">Its memory that nobody uses now.</param>
/// <param name="PromisedFraction">Share of its memory promised to active deployments.</param>
/// <param name="Reason">Why it cannot take the deployment; null when it can.</param>
internal sealed record PlannedGpu(int Index, string Name, double? MemoryTotalMb, double? MemoryFreeMb, double PromisedFraction, string? Reason);

/// <summary>What makes a deployment reproducible. Every key is there in every export; values of variables never are.</summary>
internal sealed record DeploymentManifest
{
    /// <summary>The version of manifests that this build writes and reads.</summary>
    public const int CurrentVersion = 1;

    public int? ManifestVersion { get; init; } = CurrentVersion;
    public int? DeploymentId { get; init; }
    public string? Model { get; init; }

    /// <summary>Copied from engine_args, as revision and seed are.</summary>
    public JsonElement? ServedModelName { get; init; }
    public JsonElement? Revision { get; init; }
    public JsonElement? Seed { get; init; }
    public string? VllmVersion { get; init; }
    public string? ImageDigest { get; init; }
    public string? ContainerRuntime { get; init; }

    /// <summary>Backend that serves the model; without one vllm.</summary>
    public string? Backend { get; init; }
    public IReadOnlyDictionary<string, JsonElement>? EngineArgs { get; init; }
    public IReadOnlyList<string>? ExtraArgs { get; init; }
    public IReadOnlyList<string>? ExtraPackages { get; init; }
    public IReadOnlyList<LoraModule>? LoraModules { get; init; }
    public IReadOnlyList<string>? EnvVarKeys { get; init; }
    public ManifestGpu? Gpu { get; init; }
    public ManifestNode? Node { get; init; }
    public string? Owner { get; init; }
    public DateTimeOffset? CreatedAt { get; init; }
    public int? DurationSeconds { get; init; }

    /// <summary>Whether a request for its model starts it while it rests; without it no.</summary>
    public bool? StartOnDemand { get; init; }
    public string? Status { get; init; }
}

/// <summary>The GPUs of a manifest.</summary>
internal sealed record ManifestGpu
{
    /// <summary>The GPUs asked for; empty: they were chosen, and are chosen again.</summary>
    public IReadOnlyList<int>? Ids { get; init; }
    public double? MemoryFraction { get; init; }
    public int? TensorParallelSize { get; init; }

    /// <summary>What the GPUs were that it ran on.</summary>
    public IReadOnlyList<string>? Names { get; init; }
}

/// <summary>The node of a manifest.</summary>
internal sealed record ManifestNode(string? Hostname);
