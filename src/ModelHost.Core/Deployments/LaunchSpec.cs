using System.Collections.Concurrent;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace ModelHost.Core.Deployments;

/// <summary>
/// Everything that decides how an engine is started, without secret values. The same record is stored in the deployment's row,
/// sent to the node, written into the container's label and exported in manifests.
/// </summary>
public sealed record LaunchSpec
{
    /// <summary>The version of this record that this build writes.</summary>
    public const int CurrentVersion = 1;

    // the generated reader sets every property, to null where the text has no field: a null is the default
    private const string DefaultBackend = "vllm";
    private const string DefaultRuntime = "docker";
    private static readonly IReadOnlyDictionary<string, JsonElement> NoArgs = new Dictionary<string, JsonElement>();

    // lists and passes read the same texts again and again, and reading one costs some 10 µs
    private static readonly ConcurrentDictionary<string, LaunchSpec> Known = new();
    private const int MostKnown = 4096, LongestKnown = 16 * 1024;

    /// <summary>Version of the record; readers refuse versions above <see cref="CurrentVersion"/>.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>Id in the API at launch; an alias that a lost database reclaims where it is free.</summary>
    public int DeploymentId { get; init; }

    /// <summary>Name of the backend's recipe.</summary>
    public string Backend { get; init => field = value ?? DefaultBackend; } = DefaultBackend;

    /// <summary>
    /// How the engine of an installed backend is started, as it was when the deployment was made: so it outlives the backend, its upgrades and the
    /// database. Null: the backend is one that every build knows, or speaks gRPC.
    /// </summary>
    public JsonElement? Recipe { get; init; }

    /// <summary>Runtime that starts the engine: <c>docker</c> or <c>process</c>.</summary>
    public string Runtime { get; init => field = value ?? DefaultRuntime; } = DefaultRuntime;

    /// <summary>Hugging Face id of the model, or its path on the node.</summary>
    public required string ModelName { get; init; }

    /// <summary>Public port of the deployment, held by the node proxy and never by the engine.</summary>
    public int Port { get; init; }

    /// <summary>Share of each GPU's total memory that the engine may use, 0 to 1.</summary>
    public double GpuMemoryFraction { get; init; }

    /// <summary>Indices of the GPUs the engine gets; empty on a node without GPUs.</summary>
    public IReadOnlyList<int> GpuIds { get; init => field = value ?? []; } = [];

    /// <summary>Whether <see cref="GpuIds"/> were chosen for the deployment and not asked for: then others may be chosen for its next run.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool GpusChosen { get; init; }

    /// <summary>GPUs over which each layer is split; null: the engine's default of 1.</summary>
    public int? TensorParallelSize { get; init; }

    /// <summary>Further command-line arguments, put last.</summary>
    public IReadOnlyList<string> ExtraArgs { get; init => field = value ?? []; } = [];

    /// <summary>Names of the variables given; their values travel apart.</summary>
    public IReadOnlyList<string> EnvVarKeys { get; init => field = value ?? []; } = [];

    /// <summary>Version of the engine asked for; null: the latest release, else the newest image on the node.</summary>
    public string? EngineVersion { get; init; }

    /// <summary>Engine options by name, as they were given.</summary>
    public IReadOnlyDictionary<string, JsonElement> EngineArgs { get; init => field = value ?? NoArgs; } = NoArgs;

    /// <summary>Python packages installed into the engine's image before the start, as they were given.</summary>
    public IReadOnlyList<string> ExtraPackages { get; init => field = value ?? []; } = [];

    /// <summary>LoRA adapters served beside the base model.</summary>
    public IReadOnlyList<LoraModule> LoraModules { get; init => field = value ?? []; } = [];

    /// <summary>Failed starts after which no further one is tried; null: the cluster's default.</summary>
    public int? MaxFailedRestarts { get; init; }

    /// <summary>User or team that asked.</summary>
    public required string Owner { get; init; }

    /// <summary>How long to serve after the first ready moment, in seconds; null: until stopped.</summary>
    public int? DurationSeconds { get; init; }

    /// <summary>Protects from warm-cache eviction.</summary>
    public bool Pinned { get; init; }

    /// <summary>Whether a request for its model starts it while it rests. It says nothing to the engine, and stands here so that a lost database comes back with it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool StartOnDemand { get; init; }

    /// <summary>The name given by <c>engine_args.served_model_name</c>; null: none was given.</summary>
    [JsonIgnore]
    public string? ServedModelName =>
        EngineArgs.TryGetValue("served_model_name", out var name) && name.ValueKind == JsonValueKind.String && name.GetString() is { Length: > 0 } text
            ? text : null;

    /// <summary>The name under which the deployment is public: its served name, else the model's.</summary>
    [JsonIgnore]
    public string PublicName => ServedModelName ?? ModelName;

    /// <summary>Writes the record as one line of JSON.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, LaunchSpecJson.Default.LaunchSpec);

    /// <summary>Reads a record written by this or an older build.</summary>
    /// <returns>Null when the text is none, or of a version this build does not know.</returns>
    public static LaunchSpec? FromJson(string? json)
    {
        if (string.IsNullOrEmpty(json))
            return null;
        if (Known.TryGetValue(json, out var known))
            return known;
        try
        {
            if (JsonSerializer.Deserialize(json, LaunchSpecJson.Default.LaunchSpec) is not { Version: >= 1 and <= CurrentVersion } spec)
                return null;
            if (json.Length <= LongestKnown)
            {
                if (Known.Count >= MostKnown)
                    Known.Clear(); // those in use come back with their next reading
                Known[json] = spec;
            }
            return spec;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>A LoRA adapter.</summary>
/// <param name="Name">Public name under which requests ask for it.</param>
/// <param name="Path">Hugging Face id of the adapter, or its path on the node.</param>
public sealed record LoraModule(string Name, string Path);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, RespectNullableAnnotations = true, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(LaunchSpec))]
internal sealed partial class LaunchSpecJson : JsonSerializerContext;
