using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Core.Deployments;
using ModelHost.Features.Deployments;

namespace ModelHost.Features.Galleries;

/// <summary>Asks for a model to be installed: from a gallery, an address, or as it stands in the request.</summary>
public sealed record ModelApply : StrictRequest
{
    /// <summary>Entry of a gallery: <c>gallery@name</c> or <c>name</c>. Has its way over url.</summary>
    public string? Id { get; init; }

    /// <summary>Address of a configuration: <c>https://</c>, <c>github:</c>, <c>huggingface://</c> or <c>file://</c> in the data folder.</summary>
    public string? Url { get; init; }

    /// <summary>The same as url, as older clients call it.</summary>
    public string? ConfigUrl { get; init; }

    /// <summary>Name to install and serve it as. Default: that of the entry, or of the configuration.</summary>
    public string? Name { get; init; }

    /// <summary>What it is.</summary>
    public string? Description { get; init; }

    /// <summary>Its licence.</summary>
    public string? License { get; init; }

    /// <summary>Address of a picture.</summary>
    public string? Icon { get; init; }

    /// <summary>How large it is.</summary>
    public string? Size { get; init; }

    /// <summary>Pages about it.</summary>
    public IReadOnlyList<string>? Urls { get; init; }

    /// <summary>Words to find it by.</summary>
    public IReadOnlyList<string>? Tags { get; init; }

    /// <summary>Files beside those of the entry; one of the same name has its way.</summary>
    [MaxLength(1000)]
    public IReadOnlyList<ModelFile>? Files { get; init; }

    /// <summary>Passed over; clients send it.</summary>
    public JsonElement? Gallery { get; init; }

    /// <summary>Passed over; clients send it.</summary>
    public JsonElement? Variants { get; init; }

    /// <summary>The configuration, where neither entry nor url has one.</summary>
    public JsonElement? ConfigFile { get; init; }

    /// <summary>Merged over the configuration.</summary>
    public JsonElement? Overrides { get; init; }

    /// <summary>IDs or host names of the nodes it is installed on. Default: the only node there is.</summary>
    [MaxLength(64)]
    public IReadOnlyList<JsonElement>? Nodes { get; init; }

    /// <summary>How it is deployed there.</summary>
    public ModelDeploy? Deploy { get; init; }
}

/// <summary>A file of a model.</summary>
public sealed record ModelFile
{
    /// <summary>Its path below the model's folder. Default: as it is called where it comes from.</summary>
    public string? Filename { get; init; }

    /// <summary>Its SHA-256; it is checked.</summary>
    public string? Sha256 { get; init; }

    /// <summary>Where it comes from.</summary>
    public string? Uri { get; init; }
}

/// <summary>What the deployment of an installed model is to be, where its configuration does not say it.</summary>
public sealed record ModelDeploy : StrictRequest
{
    /// <summary>Its public port. Default: the first from the setting default_port that no deployment of the node has.</summary>
    [Range(1024, 65535)]
    public int? Port { get; init; }

    /// <summary>Fraction of each GPU's memory. Default: that of the configuration, else the setting default_gpu_fraction.</summary>
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double? GpuMemoryFraction { get; init; }

    /// <summary>GPU indices to use. Default: chosen at the start.</summary>
    [MaxLength(64)]
    public IReadOnlyList<int>? GpuIds { get; init; }

    /// <summary>Number of GPUs for tensor parallelism.</summary>
    [Range(1, 64)]
    public int? TensorParallelSize { get; init; }

    /// <summary>User or team. Default <c>galleries</c>.</summary>
    [StringLength(255)]
    public string? Owner { get; init; }

    /// <summary>How long to serve, in seconds.</summary>
    [Range(1, int.MaxValue)]
    public int? DurationSeconds { get; init; }

    /// <summary>Whether it is protected from warm-cache eviction.</summary>
    public bool Pinned { get; init; }

    /// <summary>Engine version or image tag.</summary>
    [StringLength(128)]
    public string? VllmVersion { get; init; }

    /// <summary>Options of the engine, merged over those of the configuration.</summary>
    public IReadOnlyDictionary<string, JsonElement>? EngineArgs { get; init; }

    /// <summary>Further command-line arguments.</summary>
    public IReadOnlyList<string>? ExtraArgs { get; init; }

    /// <summary>LoRA adapters served beside it.</summary>
    [MaxLength(64)]
    public IReadOnlyList<LoraModule>? LoraModules { get; init; }

    /// <summary>Environment variables. Values are stored encrypted.</summary>
    [MaxLength(128)]
    public IReadOnlyList<EnvironmentVariable>? EnvVars { get; init; }

    /// <summary>Whether the first request for it starts it. Default true.</summary>
    public bool StartOnDemand { get; init; } = true;

    /// <summary>Whether it is started at once when it is installed. Default false: by its first request, or by hand.</summary>
    public bool Start { get; init; }
}

/// <summary>What became of a request for a model, in LocalAI's words.</summary>
/// <param name="Uuid">The job.</param>
/// <param name="Status">Where its status is read.</param>
/// <param name="Job">How it ended; with <c>?wait=true</c> only.</param>
internal sealed record ModelJob(string Uuid, string Status, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] JobStatus? Job = null);

/// <summary>A model that can be installed.</summary>
internal sealed record AvailableModel
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Url { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Name { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Description { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? License { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Urls { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Icon { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Tags { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<AvailableFile>? Files { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Size { get; init; }

    /// <summary>The gallery that has it.</summary>
    public required GalleryRead Gallery { get; init; }

    /// <summary>Absent: it is not.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool Installed { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Backend { get; init; }
}

/// <summary>A file of an entry.</summary>
internal sealed record AvailableFile(string Filename, string Sha256, string Uri);

/// <summary>A model in a list.</summary>
internal sealed record ListedModel(string Id, string Object = "model");

/// <summary>A list of models.</summary>
internal sealed record ModelList(IReadOnlyList<ListedModel> Data, string Object = "list");
