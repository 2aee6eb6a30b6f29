using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using ModelHost.Core.Deployments;

namespace ModelHost.Features.Deployments;

/// <summary>Asks for a model to be served.</summary>
internal sealed record DeploymentStart
{
    [Required]
    [Description("ID of the node to deploy on.")]
    public int? NodeId { get; init; }

    [Required, StringLength(255, MinimumLength = 1)]
    [Description("Hugging Face model identifier, for example meta-llama/Meta-Llama-3-8B.")]
    public string? ModelName { get; init; }

    [Required, Range(1024, 65535)]
    [Description("Public port of the deployment, one per node.")]
    public int? Port { get; init; }

    [Required, Range(0.0, 1.0, MinimumIsExclusive = true)]
    [Description("Fraction of each GPU's memory to allocate, above 0 and up to 1.")]
    public double? GpuMemoryFraction { get; init; }

    [MaxLength(64)]
    [Description("GPU indices to use; omit for automatic selection.")]
    public IReadOnlyList<int>? GpuIds { get; init; }

    [Range(1, 64)]
    [Description("Number of GPUs for tensor parallelism.")]
    public int? TensorParallelSize { get; init; }

    [Description("Additional command-line arguments for the engine, put last.")]
    public IReadOnlyList<string>? ExtraArgs { get; init; }

    [MaxLength(128)]
    [Description("Environment variables of the engine. Values are stored encrypted and returned masked.")]
    public IReadOnlyList<EnvironmentVariable>? EnvVars { get; init; }

    [StringLength(128)]
    [Description("Engine version or image tag; omit for the latest stable release.")]
    public string? VllmVersion { get; init; }

    [Description("Engine options by name: max_model_len, dtype, quantization, served_model_name and so on.")]
    public IReadOnlyDictionary<string, JsonElement>? EngineArgs { get; init; }

    [MaxLength(64)]
    [Description("LoRA adapters served alongside the base model.")]
    public IReadOnlyList<LoraModule>? LoraModules { get; init; }

    [Range(1, 20)]
    [Description("Failed starts after which no further one is tried; omit for the cluster's default.")]
    public int? MaxFailedRestarts { get; init; }

    [Required, StringLength(255, MinimumLength = 1)]
    [Description("User or team launching this deployment.")]
    public string? Owner { get; init; }

    [Range(1, int.MaxValue)]
    [Description("How long to serve, in seconds, from the first ready moment; omit for indefinite serving.")]
    public int? DurationSeconds { get; init; }

    [Description("Protect this deployment from warm-cache eviction.")]
    public bool Pinned { get; init; }

    [Description("Leave out the GPU memory check, and nothing else.")]
    public bool SkipResourceCheck { get; init; }

    [StringLength(64)]
    [Description("Backend that serves the model. Default vllm.")]
    public string? Backend { get; init; }
}

/// <summary>A variable of an engine's environment.</summary>
internal sealed record EnvironmentVariable
{
    /// <summary>What a value is shown as.</summary>
    public const string Mask = "********";

    [Required]
    public string? Key { get; init; }

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

    [Description("Names, with every value masked.")]
    public IReadOnlyList<EnvironmentVariable>? EnvVars { get; init; }
    public string? VllmVersion { get; init; }
    public IReadOnlyDictionary<string, JsonElement>? EngineArgs { get; init; }
    public IReadOnlyList<LoraModule>? LoraModules { get; init; }
    public int? MaxFailedRestarts { get; init; }
    public string? Owner { get; init; }
    public int? DurationSeconds { get; init; }
    public bool Pinned { get; init; }
    public required string Backend { get; init; }
    public string? ContainerRuntime { get; init; }

    [Description("stopped, starting, loading, running, paused_ram, stopping, error, expired or unreachable.")]
    public required string Status { get; init; }

    [Description("What is going on while starting or loading.")]
    public string? Detail { get; init; }

    [Description("Why the last run failed, with the last lines of its log.")]
    public string? LastError { get; init; }
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

    [Description("Progress of the image pull, 0 to 100, while starting.")]
    public double? PullPercent { get; init; }
    public long? PullDownloadedMb { get; init; }
    public long? PullTotalMb { get; init; }
}

/// <summary>The last lines of a deployment's log.</summary>
/// <param name="Key">Model and port of the deployment.</param>
/// <param name="Lines">Oldest first, each with its time.</param>
internal sealed record DeploymentLogs(string Key, IReadOnlyList<string> Lines);

/// <summary>What became of a deleted thing.</summary>
internal sealed record Deleted(string Status = "deleted");
