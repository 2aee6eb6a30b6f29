using System.ComponentModel;
using System.Text.Json.Serialization;

namespace ModelHost.Features.Monitor;

/// <summary>Which model is meant.</summary>
internal sealed record ModelRequest
{
    [Description("Name of the model: a served name, a model's name, or an adapter's.")]
    public string? Model { get; init; }
}

/// <summary>Which model is to be shut down.</summary>
internal sealed record ShutdownRequest
{
    [Description("Name of the model: a served name or a model's name.")]
    public string? Model { get; init; }

    [Description("Whether calls under way are cut off. Default: they have 30 seconds.")]
    public bool? Force { get; init; }
}

/// <summary>What an engine is doing and what it takes, in both forms that LocalAI documents.</summary>
internal sealed record BackendStatus
{
    [Description("0: it loads, 1: it is busy, 2: it is ready, -1: it failed or does not answer.")]
    public required int State { get; init; }

    [Description("Null where nothing is known.")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public BackendMemory? Memory { get; init; }

    [Description("What its processes take of the machine's memory; absent where they are not seen.")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ProcessMemory? MemoryInfo { get; init; }

    [Description("Its resident memory in percent of the machine's.")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? MemoryPercent { get; init; }

    [Description("Its processor time since it began, in percent of one processor.")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? CpuPercent { get; init; }

    [Description("Each deployment, where several serve the name; the figures above are then their sums.")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<BackendInstance>? Instances { get; init; }
}

/// <summary>One of several deployments that serve a name.</summary>
internal sealed record BackendInstance(int DeploymentId, int NodeId, string Status, int State, BackendMemory? Memory);

/// <summary>Memory of an engine in bytes.</summary>
/// <param name="Total">GPU memory and the machine's together.</param>
/// <param name="Breakdown"><c>gpu</c> as the driver counts it, in it <c>weights</c> and <c>kv_cache</c> as the engine told; <c>rss</c>, and <c>ram</c> of a model that sleeps there.</param>
internal sealed record BackendMemory(long Total, IReadOnlyDictionary<string, long> Breakdown);

/// <summary>Memory of processes in bytes.</summary>
internal sealed record ProcessMemory(long Rss, long Vms);

/// <summary>What a shutdown is answered with.</summary>
internal sealed record ShutdownAnswer(string Message);

/// <summary>Tokens of a model since its engine began; what is zero is left out.</summary>
internal sealed record TokenMetrics
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public double TokensPerSecond { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public long TokensGenerated { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public long PromptTokensProcessed { get; init; }
}

/// <summary>What can be started, and what runs.</summary>
internal sealed record SystemInformation(IReadOnlyList<string> Backends, IReadOnlyList<LoadedModel> LoadedModels);

/// <summary>A model that runs.</summary>
internal sealed record LoadedModel(string Id, string Backend);
