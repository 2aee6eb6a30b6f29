using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Metrics;

/// <summary>
/// The series of the engine in every release. Where nothing is known of when a series came, all releases have it. Not among them:
/// <c>vllm:prompt_tokens_recomputed_total</c>, of which it is not known which releases of 2026 had it for a while; the series of
/// speculative decoding, which is not simulated; and <c>vllm:corrupted_requests_total</c>, for there is no arithmetic to go wrong.
/// </summary>
internal static class MetricTable
{
    /// <summary>Deprecated in 0.8: hidden one release later, gone after two.</summary>
    private static readonly Lifespan UntilTen = Lifespan.Until("0.10");

    private static readonly Lifespan HiddenInNine = Lifespan.Between("0.9", "0.10");

    /// <summary>Names with <c>gpu_</c>, removed in November 2025.</summary>
    private static readonly Lifespan GpuNames = Lifespan.Until("0.13");

    private static readonly Lifespan NewNames = Lifespan.Since("0.9");

    private static readonly Lifespan Since2026 = Lifespan.Since("0.14");

    private static readonly Lifespan Newest = Lifespan.Since(Release.Default);

    public static IReadOnlyList<MetricFamily> All { get; } =
    [
        Gauge("num_requests_running", "Number of requests in model execution batches.", view => view.Gauges.Running),
        Gauge("num_requests_waiting", "Number of requests waiting to be processed.", view => view.Gauges.Waiting),
        new("vllm:num_requests_waiting_by_reason", MetricKind.Gauge, "Number of requests waiting to be processed, by reason.")
        {
            Lifespan = Newest,
            Read = view =>
            [
                new(view.Gauges.Waiting - view.Gauges.Deferred, "reason", "capacity"), new(view.Gauges.Deferred, "reason", "deferred"),
            ],
        },
        Gauge("num_requests_swapped", "Number of requests swapped to CPU.", _ => 0) with { Lifespan = UntilTen, Hidden = HiddenInNine },
        Gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", view => view.Gauges.KvCacheUsage) with { Lifespan = NewNames },
        Gauge("gpu_cache_usage_perc", "GPU KV-cache usage. 1 means 100 percent usage.", view => view.Gauges.KvCacheUsage) with { Lifespan = GpuNames },
        Gauge("cpu_cache_usage_perc", "CPU KV-cache usage. 1 means 100 percent usage.", _ => 0) with { Lifespan = UntilTen, Hidden = HiddenInNine },
        Gauge("cpu_prefix_cache_hit_rate", "CPU prefix cache block hit rate.", _ => -1) with { Lifespan = UntilTen, Hidden = HiddenInNine },
        Gauge("gpu_prefix_cache_hit_rate", "GPU prefix cache block hit rate.", HitRate) with { Lifespan = UntilTen, Hidden = HiddenInNine },
        new("vllm:engine_sleep_state", MetricKind.Gauge, "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake.")
        {
            Read = view =>
            [
                State("awake", view.SleepLevel is null), State("weights_offloaded", view.SleepLevel == 1), State("discard_all", view.SleepLevel == 2),
            ],
        },
        Counter("prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", counts => counts.PrefixCacheQueries) with { Lifespan = NewNames },
        Counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", counts => counts.PrefixCacheHits) with { Lifespan = NewNames },
        Counter("gpu_prefix_cache_queries", "GPU prefix cache queries, in terms of number of queried tokens.", counts => counts.PrefixCacheQueries) with { Lifespan = GpuNames },
        Counter("gpu_prefix_cache_hits", "GPU prefix cache hits, in terms of number of cached tokens.", counts => counts.PrefixCacheHits) with { Lifespan = GpuNames },
        Counter("external_prefix_cache_queries", "External prefix cache queries from KV connector cross-instance cache sharing, in tokens.", _ => 0),
        Counter("external_prefix_cache_hits", "External prefix cache hits from KV connector cross-instance cache sharing, in tokens.", _ => 0),
        Counter("mm_cache_queries", "Multi-modal cache queries, in terms of number of queried items.", _ => 0),
        Counter("mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.", _ => 0),
        Counter("num_preemptions", "Cumulative number of preemption from the engine.", counts => counts.Preemptions),
        Counter("prompt_tokens", "Number of prefill tokens processed.", counts => counts.PromptTokens),
        new("vllm:prompt_tokens_by_source", MetricKind.Counter, "Number of prompt tokens by source.")
        {
            Lifespan = Since2026,
            Read = view =>
            [
                new(view.Counts.PromptTokens - view.Counts.PrefixCacheHits, "source", "local_compute"),
                new(view.Counts.PrefixCacheHits, "source", "local_cache_hit"), new(0, "source", "external_kv_transfer"),
            ],
        },
        Counter("prompt_tokens_cached", "Number of cached prompt tokens.", counts => counts.PrefixCacheHits) with { Lifespan = Since2026 },
        Counter("generation_tokens", "Number of generation tokens processed.", counts => counts.GenerationTokens),
        new("vllm:request_success", MetricKind.Counter, "Count of successfully processed requests.")
        {
            Read = view => Reasons(view.Options.Release)
                .Select(reason => new Sample(view.Counts.Finished[(int)reason], "finished_reason", reason.ToString().ToLowerInvariant())),
        },
        Histogram("request_prompt_tokens", "Number of prefill tokens processed.", Observed.PromptTokens),
        Histogram("request_generation_tokens", "Number of generation tokens processed.", Observed.GenerationTokens),
        Histogram("iteration_tokens_total", "Histogram of number of tokens per engine_step.", Observed.IterationTokens),
        Histogram("request_max_num_generation_tokens", "Histogram of maximum number of requested generation tokens.", Observed.MaxGenerationTokens),
        Histogram("request_params_n", "Histogram of the n request parameter.", Observed.N),
        Histogram("request_params_max_tokens", "Histogram of the max_tokens request parameter.", Observed.MaxTokens),
        Histogram("request_prefill_kv_computed_tokens", "Histogram of new KV tokens computed during prefill (excluding cached tokens).", Observed.PrefillComputed),
        Histogram("time_to_first_token_seconds", "Histogram of time to first token in seconds.", Observed.TimeToFirstToken),
        Histogram("time_per_output_token_seconds", "Histogram of time per output token in seconds.", Observed.InterToken) with
        {
            Lifespan = Lifespan.Until("0.14"),
            Hidden = Lifespan.Between("0.12", "0.14"),
        },
        Histogram("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", Observed.InterToken) with { Lifespan = Lifespan.Since("0.11") },
        Histogram("request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", Observed.TimePerOutputToken),
        Histogram("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", Observed.EndToEnd),
        Histogram("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", Observed.Queue),
        Histogram("request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", Observed.Inference),
        Histogram("request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", Observed.Prefill),
        Histogram("request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", Observed.Decode),
        Histogram("time_in_queue_requests", "Histogram of time the request spent in the queue in seconds.", Observed.Queue) with { Lifespan = UntilTen, Hidden = HiddenInNine },
        Histogram("model_forward_time_milliseconds", "Histogram of time spent in the model forward pass in ms.", Observed.ModelTime) with { Lifespan = UntilTen, Hidden = HiddenInNine },
        Histogram("model_execute_time_milliseconds", "Histogram of time spent in the model execute function in ms.", Observed.ModelTime) with { Lifespan = UntilTen, Hidden = HiddenInNine },
        Histogram("kv_block_lifetime_seconds", "Histogram of KV cache block lifetime from allocation to eviction.", Observed.BlockLifetime) with { When = SamplesBlocks },
        Histogram("kv_block_idle_before_evict_seconds", "Histogram of idle time before KV cache block eviction.", Observed.BlockIdle) with { When = SamplesBlocks },
        Histogram("kv_block_reuse_gap_seconds", "Histogram of time gaps between consecutive KV cache block accesses.", Observed.BlockReuse) with { When = SamplesBlocks },
    ];

    private static bool SamplesBlocks(ServerOptions options) => options.Flags.Switch("kv_cache_metrics");

    private static IEnumerable<FinishReason> Reasons(Release release) => Enum.GetValues<FinishReason>()
        .Where(reason => reason is FinishReason.Stop or FinishReason.Length or FinishReason.Abort || release.Has(Traits.CountsErrors));

    private static double HitRate(EngineView view) =>
        view.Counts.PrefixCacheQueries == 0 ? -1 : (double)view.Counts.PrefixCacheHits / view.Counts.PrefixCacheQueries;

    private static Sample State(string name, bool holds) => new(holds ? 1 : 0, "sleep_state", name);

    private static MetricFamily Gauge(string name, string help, Func<EngineView, double> read) =>
        new("vllm:" + name, MetricKind.Gauge, help) { Read = view => [new(read(view))] };

    private static MetricFamily Counter(string name, string help, Func<EngineCounts, double> read) =>
        new("vllm:" + name, MetricKind.Counter, help) { Read = view => [new(read(view.Counts))] };

    private static MetricFamily Histogram(string name, string help, Observed observed) => new("vllm:" + name, MetricKind.Histogram, help) { Observed = observed };
}
