using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Core.Deployments;

namespace ModelHost.Features.Deployments;

/// <summary>A request that refuses fields it does not have.</summary>
public abstract record StrictRequest
{
    /// <summary>Fields that there are not; refused unless they are empty, as clients of compatible systems send them.</summary>
    [JsonExtensionData]
    public IDictionary<string, JsonElement>? Unknown { get; init; }
}

/// <summary>What a deployment is to be, as every request says it that describes one.</summary>
public abstract record DeploymentFields : StrictRequest
{
    /// <summary>ID of the node to deploy on.</summary>
    [Required]
    public int? NodeId { get; init; }

    /// <summary>Hugging Face model identifier, for example meta-llama/Meta-Llama-3-8B, or an absolute path in a folder that the node allows.</summary>
    [Required, StringLength(255, MinimumLength = 1)]
    public string? ModelName { get; init; }

    /// <summary>Public port of the deployment, one per node.</summary>
    [Required, Range(1024, 65535)]
    public int? Port { get; init; }

    /// <summary>Fraction of each GPU's memory to allocate, above 0 and up to 1.</summary>
    [Required, Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double? GpuMemoryFraction { get; init; }

    /// <summary>GPU indices to use; omit for automatic selection.</summary>
    [MaxLength(64)]
    public IReadOnlyList<int>? GpuIds { get; init; }

    /// <summary>Number of GPUs for tensor parallelism.</summary>
    [Range(1, 64)]
    public int? TensorParallelSize { get; init; }

    /// <summary>Additional command-line arguments for the engine, put last.</summary>
    public IReadOnlyList<string>? ExtraArgs { get; init; }

    /// <summary>Environment variables of the engine. Values are stored encrypted and returned masked.</summary>
    [MaxLength(128)]
    public IReadOnlyList<EnvironmentVariable>? EnvVars { get; init; }

    /// <summary>Engine version or image tag; omit for the latest stable release.</summary>
    [StringLength(128)]
    public string? VllmVersion { get; init; }

    /// <summary>Engine options by name: max_model_len, dtype, quantization, served_model_name and so on.</summary>
    public IReadOnlyDictionary<string, JsonElement>? EngineArgs { get; init; }

    /// <summary>Python packages to install into the engine's image: name[extra]>=1.2 and the like, or file names of wheels on the node.</summary>
    public IReadOnlyList<string>? ExtraPackages { get; init; }

    /// <summary>LoRA adapters served alongside the base model.</summary>
    [MaxLength(64)]
    public IReadOnlyList<LoraModule>? LoraModules { get; init; }

    /// <summary>Failed starts after which no further one is tried; omit for the cluster's default.</summary>
    [Range(1, 20)]
    public int? MaxFailedRestarts { get; init; }

    /// <summary>User or team launching this deployment.</summary>
    public abstract string? Owner { get; init; }

    /// <summary>How long to serve, in seconds, from the first ready moment; omit for indefinite serving.</summary>
    [Range(1, int.MaxValue)]
    public int? DurationSeconds { get; init; }

    /// <summary>Protect this deployment from warm-cache eviction.</summary>
    public bool Pinned { get; init; }

    /// <summary>While it is stopped or failed, the first request for its model starts it.</summary>
    public bool StartOnDemand { get; init; }

    /// <summary>Leave out the GPU memory check, and nothing else.</summary>
    public bool SkipResourceCheck { get; init; }

    /// <summary>Backend that serves the model: vllm, or one that is installed on the node. Default vllm.</summary>
    [StringLength(64)]
    public string? Backend { get; init; }
}

/// <summary>Asks for a model to be served.</summary>
public sealed record DeploymentStart : DeploymentFields
{
    /// <summary>User or team launching this deployment.</summary>
    [Required, StringLength(255, MinimumLength = 1)]
    public override string? Owner { get; init; }
}

/// <summary>A variable of an engine's environment.</summary>
public sealed record EnvironmentVariable
{
    /// <summary>What a value is shown as.</summary>
    public const string Mask = "********";

    /// <summary>Its name.</summary>
    [Required]
    public string? Key { get; init; }

    /// <summary>Its value; masked in every answer.</summary>
    [Required(AllowEmptyStrings = true)]
    public string? Value { get; init; }
}

/// <summary>A deployment as it stands.</summary>
internal sealed record DeploymentRead
{
    public required int Id { get; init; }
    public required int NodeId { get; init; }
    public required string ModelName { get; init; }
    public required int Port { get; init; }
    public required double GpuMemoryFraction { get; init; }
    public IReadOnlyList<int>? GpuIds { get; init; }
    public int? TensorParallelSize { get; init; }
    public IReadOnlyList<string>? ExtraArgs { get; init; }

    /// <summary>Names, with every value masked.</summary>
    public IReadOnlyList<EnvironmentVariable>? EnvVars { get; init; }
    public string? VllmVersion { get; init; }
    public IReadOnlyDictionary<string, JsonElement>? EngineArgs { get; init; }
    public IReadOnlyList<LoraModule>? LoraModules { get; init; }
    public int? MaxFailedRestarts { get; init; }
    public string? Owner { get; init; }
    public int? DurationSeconds { get; init; }
    public bool Pinned { get; init; }

    /// <summary>Whether a request for its model starts it while it is stopped or failed.</summary>
    public bool StartOnDemand { get; init; }
    public required string Backend { get; init; }
    public string? ContainerRuntime { get; init; }

    /// <summary>Packages added to the engine's image.</summary>
    public IReadOnlyList<string>? ExtraPackages { get; init; } = [];

    /// <summary>Always null; older clients of compatible systems look for it.</summary>
    public IReadOnlyList<string>? PipPackages { get; init; }

    /// <summary>stopped, starting, loading, running, paused_ram, stopping, error, expired or unreachable.</summary>
    public required string Status { get; init; }

    /// <summary>What is going on while starting or loading.</summary>
    public string? Detail { get; init; }

    /// <summary>Why the last run failed, with the last lines of its log.</summary>
    public string? LastError { get; init; }

    /// <summary>Stable name of the cause in last_error.</summary>
    public string? ErrorCode { get; init; }
    public DateTimeOffset? ExpiresAt { get; init; }
    public DateTimeOffset CreatedAt { get; init; }
    public DateTimeOffset StatusChangedAt { get; init; }
    public string? ImageDigest { get; init; }
    public long TotalPromptTokens { get; init; }
    public long TotalCompletionTokens { get; init; }
    public long TotalRequests { get; init; }
    public double? PromptTps { get; init; }
    public double? GenerationTps { get; init; }
    public double? PromptThroughput { get; init; }
    public double? GenerationThroughput { get; init; }
    public int? RequestsRunning { get; init; }
    public int? RequestsWaiting { get; init; }

    /// <summary>Share of the engine's KV cache in use, 0 to 1.</summary>
    public double? KvCacheUsage { get; init; }

    /// <summary>When the engine's counters were read.</summary>
    public DateTimeOffset? MetricsReadAt { get; init; }

    /// <summary>Why they could not be read again since; null: they are of the last attempt.</summary>
    public string? MetricsStale { get; init; }

    /// <summary>Progress of the image pull, 0 to 100 in tenths, while starting; never moves back within a pull.</summary>
    public double? PullPercent { get; init; }

    /// <summary>Compressed megabytes (10^6 bytes) downloaded of the layers that were not on the node.</summary>
    public long? PullDownloadedMb { get; init; }

    /// <summary>Compressed megabytes of those whose size is known: the engine learns it when their download begins.</summary>
    public long? PullTotalMb { get; init; }

    /// <summary>Layers downloaded and unpacked.</summary>
    public int? PullLayersDone { get; init; }

    /// <summary>Layers that were not on the node.</summary>
    public int? PullLayers { get; init; }
}

/// <summary>The last lines of a deployment's log.</summary>
/// <param name="Key">Model and port of the deployment.</param>
/// <param name="Lines">Oldest first, each with its time.</param>
internal sealed record DeploymentLogs(string Key, IReadOnlyList<string> Lines);

/// <summary>What became of a deleted thing.</summary>
internal sealed record Deleted(string Status = "deleted");

/// <summary>A deployment on record.</summary>
/// <param name="Id">Its id in the API.</param>
/// <param name="IsActive">Whether it is neither stopped nor expired nor failed.</param>
/// <param name="EngineVersion">The version that its engine told last; null: none has.</param>
/// <param name="Spec">How it is started.</param>
internal sealed record RecordedDeployment(int Id, bool IsActive, string? EngineVersion, LaunchSpec Spec);

/// <summary>A deployment that serves, or is to, for features that ask for one by a model's name.</summary>
internal sealed record ServingDeployment(int Id, string Uid, int NodeId, string RunId, DeploymentStatus Status, LaunchSpec Spec)
{
    /// <summary>Whether a name is that of the deployment itself, and not of an adapter.</summary>
    public bool IsOwnName(string name) => name == Spec.PublicName || name == Spec.ModelName;

    /// <summary>Those of a name, as the gateway looks for them: by served name, else by model, else by adapter.</summary>
    public static IReadOnlyList<ServingDeployment> Named(IReadOnlyList<ServingDeployment> all, string name)
    {
        foreach (var tier in (Func<LaunchSpec, bool>[])[spec => spec.ServedModelName == name, spec => spec.ModelName == name, spec => spec.LoraModules.Any(lora => lora.Name == name)])
        {
            if (all.Where(deployment => tier(deployment.Spec)).ToArray() is { Length: > 0 } found)
                return found;
        }
        return [];
    }
}
