using ModelHost.Simulator.Flags;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Loading;

/// <summary>The texts of start-up failures, and where in the start they come.</summary>
internal static class LoadFailures
{
    public static LoadFailedException OutOfMemory(double totalGib, double freeGib, double neededGib) => new(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate " +
        $"{neededGib:F2} GiB. GPU 0 has a total capacity of {totalGib:F2} GiB of which {freeGib:F2} GiB is free. " +
        $"Including non-PyTorch memory, this process has {totalGib - freeGib:F2} GiB memory in use.",
        inEngine: true, "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for weights, " +
        "increasing --tensor-parallel-size, or using --quantization. (original error: CUDA out of memory.)");

    public static LoadFailedException NotEnoughFree(double freeGib, double totalGib, double utilization, double wantedGib) => new(
        $"ValueError: Free memory on device ({freeGib:F2}/{totalGib:F2} GiB) on startup is less than desired GPU memory utilization " +
        $"({utilization:0.0###}, {wantedGib:F2} GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.", inEngine: true);

    public static LoadFailedException NoCacheBlocks() => new(
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.", inEngine: true);

    public static LoadFailedException KvCacheTooSmall(long maxModelLength, double neededGib, double availableGib, long fits) => new(
        $"ValueError: To serve at least one request with the models's max seq len ({maxModelLength}), ({neededGib:F2} GiB KV cache is needed, " +
        $"which is larger than the available KV cache memory ({availableGib:F2} GiB). Based on the available memory, the estimated maximum model " +
        $"length is {fits}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.", inEngine: true);

    public static LoadFailedException NoDevice() => new(
        "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging " +
        "to help debug the issue.", inEngine: false);

    public static LoadFailedException TooFewDevices(long wanted, int there) => new(
        $"ValueError: World size ({wanted}) is larger than the number of available GPUs ({there}) in this node.", inEngine: false);

    public static LoadFailedException TooLong(long given, long derived) => new(
        $"ValueError: User-specified max_model_len ({given}) is greater than the derived max_model_len (max_position_embeddings={derived} or " +
        "model_max_length=None in model's config.json). To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.",
        inEngine: false);

    /// <summary>Flags that count something there must be one of, by the part of the configuration that refuses them.</summary>
    private static readonly (string Config, string Flag)[] Positive =
    [
        ("CacheConfig", "block_size"), ("CacheConfig", "num_gpu_blocks_override"), ("CacheConfig", "kv_cache_memory_bytes"), ("SchedulerConfig", "max_num_seqs"),
        ("SchedulerConfig", "max_num_batched_tokens"), ("SchedulerConfig", "stream_interval"), ("LoRAConfig", "max_loras"),
    ];

    /// <summary>What is wrong with the options themselves, found before anything is loaded; null when nothing is.</summary>
    public static LoadFailedException? OfOptions(ServerOptions options)
    {
        if (options.Flags.Text("tool_call_parser") is { } tool && !ParserNames.ToolCall.Contains(tool))
            return BadParser("tool call", tool, ParserNames.ToolCall);
        if (options.Flags.Text("reasoning_parser") is { Length: > 0 } reasoning && !ParserNames.Reasoning.Contains(reasoning))
            return BadParser("reasoning", reasoning, ParserNames.Reasoning);
        if (options.Flags.Switch("enable_auto_tool_choice") && options.Flags.Text("tool_call_parser") is null)
            return new("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser", inEngine: false);
        if (options.Flags.Text("runner") == "generate" && options.Shape.Pools)
            return ScriptedFailures.WrongRunner();
        if (options.GpuMemoryUtilization is <= 0 or > 1)
            return Invalid("CacheConfig", "gpu_memory_utilization", $"Input should be {(options.GpuMemoryUtilization > 1 ? "less than or equal to 1" : "greater than 0")}");
        foreach (var (config, flag) in Positive)
            if (options.Flags.Integer(flag) < 1)
                return Invalid(config, flag, "Input should be greater than or equal to 1");
        if (options.Flags.Integer("max_model_len") is 0 or < TokenCount.Auto)
            return Invalid("ModelConfig", "max_model_len", "Input should be greater than or equal to 1, or -1");
        if (options.Flags.Integer("max_num_batched_tokens") is { } tokens && options.Flags.Integer("max_num_seqs") is { } sequences && tokens < sequences)
            return Invalid("SchedulerConfig", "", $"Value error, max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs ({sequences}).");
        if (options.Flags.Switch("enable_lora") && options.Flags.Integer("max_cpu_loras") is { } cpuLoras && options.Flags.Integer("max_loras") is var loras && cpuLoras < (loras ?? 1))
            return Invalid("LoRAConfig", "", $"Value error, max_cpu_loras ({cpuLoras}) must be >= max_loras ({loras ?? 1}).");
        if (options.Parallel.Problem is { } problem)
            return Invalid("ParallelConfig", "", problem);
        if (options.Parallel.LocalGpus > Parallelism.MostEngines)
            return TooFewDevices(options.Parallel.LocalGpus, Parallelism.MostEngines);
        return null;
    }

    private static LoadFailedException Invalid(string config, string field, string problem) => new(
        $"pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}\n{(field.Length > 0 ? field + "\n" : "")}  {problem}", inEngine: false);

    public static LoadFailedException BadParser(string kind, string name, IEnumerable<string> known) => new(
        $"KeyError: 'invalid {kind} parser: {name} (chose from {{ {string.Join(',', known)} }})'", inEngine: false);
}
