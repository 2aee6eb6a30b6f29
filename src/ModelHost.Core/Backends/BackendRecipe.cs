using System.Text.Json;
using ModelHost.Core.Deployments;

namespace ModelHost.Core.Backends;

/// <summary>
/// How a kind of engine is started, watched and understood: data, read from YAML. A recipe that <c>extends</c> another states only
/// what differs.
/// </summary>
public sealed record BackendRecipe
{
    /// <summary>Name that deployments ask for.</summary>
    public string Name { get; init; } = "";

    /// <summary>How the engine is spoken to: <c>openai</c> over HTTP, or <c>grpc</c>, LocalAI's protocol of backends.</summary>
    public string Protocol { get; init; } = "openai";

    /// <summary>Runtimes that can start it, best first.</summary>
    public string[] Runtimes { get; init; } = [];

    /// <summary>
    /// What it computes on: <c>nvidia</c>, whose GPUs are placed and handed in one by one; <c>amd</c>, whose GPUs it gets all of, as nodes do not count them;
    /// or <c>cpu</c>, so that it takes no GPU.
    /// </summary>
    public string Device { get; init; } = "nvidia";

    /// <summary>Image repository, for container runtimes; of an installed backend with its tag or digest, which is what runs.</summary>
    public string Image { get; init; } = "";

    /// <summary>
    /// Executable and first arguments. In a container of an OpenAI server they take the place of the image's entry point; for the process runtime
    /// <c>{modelhost}</c> is this executable, <c>{backend}</c> the folder of the backend. Empty: the image's entry point.
    /// </summary>
    public string[] Command { get; init; } = [];

    /// <summary>
    /// Arguments of every start, with <c>{model}</c>, <c>{engine_port}</c>, <c>{gpu_memory_fraction}</c>, <c>{served_name}</c>, which is the one public
    /// name, and <c>{served_names}</c>, an argument of its own, which is that and the model's name if they differ.
    /// </summary>
    public string[] Arguments { get; init; } = [];

    /// <summary>Flag for the number of GPUs a layer is split over.</summary>
    public string TensorParallel { get; init; } = "";

    /// <summary>Flags before the list of adapters.</summary>
    public string[] Lora { get; init; } = [];

    /// <summary>Program and first arguments that install Python packages into the image; empty: it takes none.</summary>
    public string[] InstallPackages { get; init; } = [];

    /// <summary>Variable that gives the engine the key of its run.</summary>
    public string KeyVariable { get; init; } = "";

    /// <summary>Variable that tells a process which GPUs it has, as a list of indices; empty: none does.</summary>
    public string GpuVariable { get; init; } = "";

    /// <summary>Where the node's model cache appears in the container; empty: nowhere.</summary>
    public string CacheMount { get; init; } = "";

    /// <summary>Names in <c>engine_args</c> that are no flags.</summary>
    public string[] ControlOptions { get; init; } = [];

    /// <summary>Options that are known, by what follows them; one that is not is handed to the engine as it is.</summary>
    public KnownOptions Options { get; init; } = new();

    /// <summary>Options that not every release has.</summary>
    public ReleaseOption[] ReleaseOptions { get; init; } = [];

    /// <summary>The newest release whose options are known here; of a later one, values are not judged.</summary>
    public string KnownRelease { get; init; } = "";

    /// <summary>Values that an option may have, by its long name.</summary>
    public Dictionary<string, string[]> Choices { get; init; } = [];

    /// <summary>Switches for which <c>false</c> means no flag; any other false becomes <c>--no-name</c>.</summary>
    public string[] OffByDefault { get; init; } = [];

    /// <summary>
    /// Options for what the configurations of models say, by the names of their fields, one of a block by <c>block.field</c>. Of several fields for one option the
    /// first that is said counts.
    /// </summary>
    public Dictionary<string, string> ConfigOptions { get; init; } = [];

    /// <summary>Values of fields in configurations of models that ask for what the engine does anyway.</summary>
    public Dictionary<string, string> ConfigImplied { get; init; } = [];

    /// <summary>Options, without dashes, that name a file beside the model's: its path must lie where a model's may, and the engine gets to see it.</summary>
    public string[] FileOptions { get; init; } = [];

    /// <summary>Long options, without dashes, that requests may not give in any spelling.</summary>
    public string[] DeniedOptions { get; init; } = [];

    /// <summary>Options with one dash that requests may not give.</summary>
    public string[] DeniedShortOptions { get; init; } = [];

    /// <summary>Variables that requests may not give.</summary>
    public string[] DeniedVariables { get; init; } = [];

    /// <summary>If not empty, only variables beginning so may be given.</summary>
    public string[] AllowedVariablePrefixes { get; init; } = [];

    /// <summary>Path that answers 200 once the engine serves.</summary>
    public string ReadyPath { get; init; } = "/health";

    /// <summary>Path of the engine's Prometheus page; empty: it has none.</summary>
    public string MetricsPath { get; init; } = "";

    /// <summary>Load phases by log text.</summary>
    public PhaseRule[] Phases { get; init; } = [];

    /// <summary>Lines of the log that tell what the engine's GPU memory is for.</summary>
    public MemoryRule[] MemoryLines { get; init; } = [];

    /// <summary>Log text that says the engine is up, so that it is asked at once.</summary>
    public string[] ReadyLines { get; init; } = [];

    /// <summary>Causes of failure by log text, in order.</summary>
    public FailureRule[] Failures { get; init; } = [];

    /// <summary>Names of the engine's metrics by what they mean.</summary>
    public MetricNames Metrics { get; init; } = new();

    /// <summary>Whether two names in <c>engine_args</c> are those of one option, which may be given with either kind of dashes.</summary>
    public static bool IsSameOption(string one, string other)
    {
        ArgumentNullException.ThrowIfNull(one);
        ArgumentNullException.ThrowIfNull(other);
        return one.Replace('_', '-') == other.Replace('_', '-');
    }

    /// <summary>Whether an option names a file.</summary>
    public bool IsFile(string option) => FileOptions.Any(file => IsSameOption(file, option));

    /// <summary>The paths that options name, beside the model's own.</summary>
    public IEnumerable<(string Option, string Path)> PathsOf(LaunchSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        return spec.EngineArgs.Where(option => option.Value.ValueKind == JsonValueKind.String && IsFile(option.Key))
            .Select(option => (option.Key, option.Value.GetString()!)).Where(option => ModelSource.IsPath(option.Item2));
    }
}

/// <summary>Known options by what follows them: long ones without dashes, short ones with theirs.</summary>
public sealed record KnownOptions
{
    /// <summary>Nothing follows; each long one has a <c>--no-</c> twin.</summary>
    public string[] Switches { get; init; } = [];

    /// <summary>One text or number.</summary>
    public string[] Values { get; init; } = [];

    /// <summary>One JSON text.</summary>
    public string[] Json { get; init; } = [];

    /// <summary>One or more texts.</summary>
    public string[] Lists { get; init; } = [];

    /// <summary>One text or nothing.</summary>
    public string[] Optional { get; init; } = [];
}

/// <summary>An option that not every release has.</summary>
public sealed record ReleaseOption
{
    /// <summary>Long name, without dashes.</summary>
    public string Name { get; init; } = "";

    /// <summary>No release before this one has it; empty: not known.</summary>
    public string Since { get; init; } = "";

    /// <summary>Neither this release nor a later one has it; empty: none is known.</summary>
    public string Gone { get; init; } = "";

    /// <summary>What to use in its place.</summary>
    public string Instead { get; init; } = "";
}

/// <summary>A line of the log that tells what memory of each GPU is for.</summary>
public sealed record MemoryRule
{
    /// <summary>What for: <c>weights</c>, <c>kv_cache</c>.</summary>
    public string Part { get; init; } = "";

    /// <summary>Regular expression whose first group is the size in GiB; letter case does not matter.</summary>
    public string Pattern { get; init; } = "";
}

/// <summary>A load phase.</summary>
public sealed record PhaseRule
{
    /// <summary>The word shown as <c>detail</c>.</summary>
    public string Detail { get; init; } = "";

    /// <summary>Text that any line of the phase holds.</summary>
    public string[] Contains { get; init; } = [];
}

/// <summary>A cause of failure.</summary>
public sealed record FailureRule
{
    /// <summary>Stable name.</summary>
    public string Code { get; init; } = "";

    /// <summary>Regular expressions, of which one is found in a line; letter case does not matter.</summary>
    public string[] Patterns { get; init; } = [];

    /// <summary>What happened and what helps.</summary>
    public string Message { get; init; } = "";

    /// <summary>Whether another run would fail in the same way; then none is tried. Default false.</summary>
    public bool Final { get; init; }
}

/// <summary>Names of metrics, each the sum over all label sets of the first name that the engine has.</summary>
public sealed record MetricNames
{
    /// <summary>Counter of prompt tokens.</summary>
    public string[] PromptTokens { get; init; } = [];

    /// <summary>Counter of generated tokens.</summary>
    public string[] GenerationTokens { get; init; } = [];

    /// <summary>Counter of finished requests.</summary>
    public string[] Requests { get; init; } = [];

    /// <summary>Gauge of requests in the batch.</summary>
    public string[] RequestsRunning { get; init; } = [];

    /// <summary>Gauge of queued requests.</summary>
    public string[] RequestsWaiting { get; init; } = [];

    /// <summary>Gauge of the share of the KV cache in use, 0 to 1.</summary>
    public string[] KvCacheUsage { get; init; } = [];

    /// <summary>Sum, in seconds, of the time spent on prompts.</summary>
    public string[] PrefillSeconds { get; init; } = [];

    /// <summary>Sum, in seconds, of the time spent on generation.</summary>
    public string[] DecodeSeconds { get; init; } = [];
}
