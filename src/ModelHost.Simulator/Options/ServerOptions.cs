using System.Globalization;
using ModelHost.Simulator.Flags;

namespace ModelHost.Simulator.Options;

/// <summary>The command line and the variables of a simulated server, read once at start.</summary>
internal sealed class ServerOptions
{
    private ServerOptions(FlagValues flags, Knobs knobs, Release release, IReadOnlyDictionary<string, string> environment)
    {
        (Flags, Knobs, Release) = (flags, knobs, release);
        Model = flags.ModelTag ?? flags.Text("model") ?? "Qwen/Qwen3-0.6B";
        ServedNames = flags.List("served_model_name") is { Count: > 0 } names ? names : [Model];
        Shape = ModelShape.Guess(Model, knobs);
        Conversion = flags.Text("convert") is "embed" or "classify" ? flags.Text("convert") : flags.Text("task") switch
        {
            "embed" or "embedding" => "embed",
            "classify" or "score" or "reward" => "classify",
            _ => null,
        };
        Pools = flags.Text("runner") == "pooling" || Conversion is not null
            || (flags.Text("runner") is null or "auto" && flags.Text("task") is null or "auto" && Shape.Pools);
        Loras = [.. flags.List("lora_modules").Select(LoraModule.Parse)];
        ApiKeys = flags.List("api_key") is { Count: > 0 } keys ? keys
            : environment.TryGetValue("VLLM_API_KEY", out var key) && key.Length > 0 ? [key] : [];
        VisibleDevices = environment.GetValueOrDefault("NVIDIA_VISIBLE_DEVICES");
        KeepAlive = TimeSpan.FromSeconds(int.TryParse(environment.GetValueOrDefault("VLLM_HTTP_TIMEOUT_KEEP_ALIVE"), out var seconds) ? seconds : 5);
        AllowLongMaxModelLength = environment.GetValueOrDefault("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1";
        SkipModelNameCheck = environment.GetValueOrDefault("VLLM_SKIP_MODEL_NAME_VALIDATION") == "1";
        DevMode = environment.GetValueOrDefault("VLLM_SERVER_DEV_MODE") == "1";
        VllmEnvironment = [.. environment.Where(pair => pair.Key.StartsWith("VLLM_", StringComparison.Ordinal)
            && !pair.Key.StartsWith("VLLM_SIM_", StringComparison.Ordinal) && !pair.Key.Contains("KEY", StringComparison.Ordinal))];
        OutlivesEngine = environment.GetValueOrDefault("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH") == "1";
        EstimatesGraphs = release.Has(Traits.EstimatesGraphs) && environment.GetValueOrDefault("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS") != "0";
        ShowsLogo = release.Has(Traits.HasLogo) && environment.GetValueOrDefault("VLLM_DISABLE_LOG_LOGO") != "1";
        LogStatsPeriod = TimeSpan.FromSeconds(double.TryParse(environment.GetValueOrDefault("VLLM_LOG_STATS_INTERVAL"), CultureInfo.InvariantCulture, out var period)
            && period is > 0 and < KnobText.MostSeconds ? period : 10);
        Parallel = Parallelism.Read(flags);
        Caches = CacheFolders.Read(environment);
        HasToken = flags.Has("hf_token") || environment.GetValueOrDefault("HF_TOKEN") is { Length: > 0 };
        LoraUpdates = environment.GetValueOrDefault("VLLM_ALLOW_RUNTIME_LORA_UPDATING")?.ToLowerInvariant() is "1" or "true";
        HiddenFromAccessLog = flags.Text("disable_access_log_for_endpoints")?.Split(',', StringSplitOptions.TrimEntries) ?? [];
        AccessLog = !flags.Switch("disable_uvicorn_access_log") && flags.Text("uvicorn_log_level") is not ("critical" or "error" or "warning");
        RootPath = flags.Text("root_path")?.TrimEnd('/') ?? "";
    }

    public FlagValues Flags { get; }

    public Knobs Knobs { get; }

    public Release Release { get; }

    public string Model { get; }

    /// <summary>All names the model answers to; the first one stands in every answer and label.</summary>
    public IReadOnlyList<string> ServedNames { get; }

    public ModelShape Shape { get; }

    /// <summary>What <c>--convert</c>, or <c>--task</c> of old releases, makes of the model: embed or classify. Null leaves it open.</summary>
    public string? Conversion { get; }

    /// <summary>An embedding model: it has the pooling routes and not those of text generation.</summary>
    public bool Pools { get; }

    public IReadOnlyList<LoraModule> Loras { get; }

    public IReadOnlyList<string> ApiKeys { get; }

    public string? VisibleDevices { get; }

    public TimeSpan KeepAlive { get; }

    public bool AllowLongMaxModelLength { get; }

    public bool SkipModelNameCheck { get; }

    /// <summary>The routes for developers are there, those of sleep mode among them.</summary>
    public bool DevMode { get; }

    /// <summary>The server goes on answering, with errors, after its engine died.</summary>
    public bool OutlivesEngine { get; }

    /// <summary>Adapters may be loaded and unloaded at run time.</summary>
    public bool LoraUpdates { get; }

    /// <summary>The variables of vLLM that are set, without secrets.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> VllmEnvironment { get; }

    /// <summary>Where downloads and compiled graphs are kept.</summary>
    public CacheFolders Caches { get; }

    /// <summary>There is a token for the hub.</summary>
    public bool HasToken { get; }

    /// <summary>The KV cache leaves room for CUDA graphs.</summary>
    public bool EstimatesGraphs { get; }

    /// <summary>The log begins with a logo: unless <c>VLLM_DISABLE_LOG_LOGO</c>.</summary>
    public bool ShowsLogo { get; }

    public bool AccessLog { get; }

    public IReadOnlyList<string> HiddenFromAccessLog { get; }

    public string RootPath { get; }

    public string Host => Flags.Text("host") ?? "0.0.0.0";

    public long Port => Flags.Integer("port") ?? 8000;

    public int TensorParallel => Parallel.Tensor;

    public int PipelineParallel => Parallel.Pipeline;

    /// <summary>Period of the throughput line: <c>VLLM_LOG_STATS_INTERVAL</c>, 10 s unless told otherwise.</summary>
    public TimeSpan LogStatsPeriod { get; }

    public Parallelism Parallel { get; }

    /// <summary>Front ends; more than one share their metrics.</summary>
    public int ApiServers => Count("api_server_count", 1);

    public double GpuMemoryUtilization => Flags.Number("gpu_memory_utilization") ?? (Release.Has(Traits.TakesMore) ? 0.92 : 0.9);

    public int BlockSize => Count("block_size", 16);

    public bool EnforceEager => Flags.Switch("enforce_eager");

    public bool PrefixCaching => Flags.Switch("enable_prefix_caching", otherwise: true);

    public long Seed => Flags.Integer("seed") ?? 0;

    public int StreamInterval => Count("stream_interval", 1);

    /// <summary>A stream in which nothing comes has a comment so often; 0: never.</summary>
    public TimeSpan CommentInterval => TimeSpan.FromSeconds(Math.Clamp(Flags.Number("sse_keep_alive_interval") ?? 0, 0, KnobText.MostSeconds));

    public TimeSpan ShutdownTimeout => TimeSpan.FromSeconds(Math.Clamp(Flags.Integer("shutdown_timeout") ?? 0, 0, (long)KnobText.MostSeconds));

    /// <summary>8-bit caches take one byte for a value, the others two.</summary>
    public int KvCacheDtypeBytes => Flags.Text("kv_cache_dtype") is { } dtype && (dtype.Contains('8', StringComparison.Ordinal) && dtype != "auto") ? 1 : 2;

    private int Count(string flag, int otherwise) => (int)Math.Clamp(Flags.Integer(flag) ?? otherwise, 1, int.MaxValue);

    /// <exception cref="UsageException">The command line is refused.</exception>
    /// <exception cref="KnobException">A knob is refused.</exception>
    public static ServerOptions Read(IReadOnlyList<string> arguments, IReadOnlyDictionary<string, string> environment)
    {
        var knobs = KnobTable.Read(environment);
        var release = new Release(knobs.Version);
        return new(FlagParser.Parse(ConfigFile.Expand(arguments), new FlagTable(release)), knobs, release, environment);
    }
}
