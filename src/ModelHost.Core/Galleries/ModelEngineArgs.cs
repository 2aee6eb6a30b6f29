using System.Text.Json;
using System.Text.Json.Nodes;

namespace ModelHost.Core.Galleries;

/// <summary>What a model's configuration says about the engine that serves it.</summary>
/// <param name="EngineArgs">Options of the engine by name.</param>
/// <param name="TensorParallelSize">GPUs that each layer is split over; null: it does not say.</param>
/// <param name="GpuMemoryFraction">Share of each GPU's memory; null: it does not say.</param>
public sealed record ModelEngineArgs(Dictionary<string, JsonElement> EngineArgs, int? TensorParallelSize, double? GpuMemoryFraction)
{
    // fields of LocalAI's configurations that vLLM has under the same name
    private static readonly string[] Same =
        ["dtype", "quantization", "load_format", "trust_remote_code", "enforce_eager", "max_model_len", "limit_mm_per_prompt", "max_num_seqs", "max_num_batched_tokens", "kv_cache_dtype", "tokenizer_mode", "revision", "seed"];

    /// <summary>Reads a configuration.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="name">The name that the model is served under.</param>
    public static ModelEngineArgs Read(JsonObject config, string name)
    {
        ArgumentNullException.ThrowIfNull(config);
        var options = new JsonObject();
        foreach (var key in Same)
        {
            if (config[key] is { } value && IsSaid(value))
                options[key] = value.DeepClone();
        }
        // a context of 0 is the engine's own
        if (options["max_model_len"] is null && config["context_size"] is JsonValue context && context.GetValueKind() == JsonValueKind.Number && context.TryGetValue<long>(out var length) && length > 0)
            options["max_model_len"] = length;
        ModelComposer.Merge(options, config["engine_args"] as JsonObject);
        options["served_model_name"] = name;
        return new ModelEngineArgs(
            options.Where(option => option.Value is not null).ToDictionary(option => option.Key, option => JsonSerializer.SerializeToElement(option.Value)),
            Number(config, "tensor_parallel_size") is >= 1 and <= 64 and var size && size == Math.Floor(size) ? (int)size : null,
            Number(config, "gpu_memory_utilization") is > 0 and <= 1 and var share ? share : null);
    }

    private static bool IsSaid(JsonNode value) => value is not JsonValue plain || (plain.GetValueKind() != JsonValueKind.False && !(plain.TryGetValue<string>(out var text) && text.Length == 0));

    private static double? Number(JsonObject config, string key) =>
        config[key] is JsonValue value && value.GetValueKind() == JsonValueKind.Number ? JsonSerializer.SerializeToElement(value).GetDouble() : null;
}
