using System.Globalization;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Sleep;

namespace ModelHost.Simulator.Metrics;

/// <summary>Writes <c>/metrics</c>.</summary>
internal sealed class MetricsPage(ServerOptions options, MemoryPlan plan, Engine engine, SleepMode sleep, HttpCounts http, TimeProvider time)
{
    private readonly MetricFamily[] _families = [.. MetricTable.All.Where(family => family.IsShown(options))];
    private readonly (string, string)[] _cacheSettings = CacheSettings(options, plan);
    private readonly double _created = time.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0;

    public string Render()
    {
        var page = new PageWriter(_created);
        // several front ends share their numbers through files, and the series of a process would mean none of them
        if (options.ApiServers == 1)
            ProcessMetrics.Write(page);
        if (!options.Flags.Switch("disable_log_stats"))
            WriteEngines(page);
        http.Write(page);
        return page.ToString();
    }

    private void WriteEngines(PageWriter page)
    {
        EngineView[] views = [.. engine.Ranks.Select(rank => new EngineView(options, rank, rank.Scheduler.Shown, rank.Metrics.Read(), sleep.ShownLevel))];
        foreach (var family in _families)
            switch (family.Kind)
            {
                case MetricKind.Gauge: page.Gauge(family.Name, family.Help, views.SelectMany(view => Series(family, view))); break;
                case MetricKind.Counter: page.Counter(family.Name, family.Help, views.SelectMany(view => Series(family, view))); break;
                case MetricKind.Histogram: page.Histogram(family.Name, family.Help, views.Select(view => (Labels(view), view.Counts[family.Observed]))); break;
            }
        if (engine.Adapters.Enabled)
            page.Gauge("vllm:lora_requests_info", "Running stats on lora requests.", engine.Adapters.Seen().Select(seen => (((string, string)[])
            [
                ("max_lora", Text(options.Flags.Integer("max_loras") ?? 1)), ("running_lora_adapters", seen.Running), ("waiting_lora_adapters", seen.Waiting),
            ], seen.Seen)));
        page.Gauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig",
            views.Select(view => (((string, string)[])[("engine", Text(view.Rank.Index)), .. _cacheSettings], 1.0)));
    }

    private IEnumerable<((string, string)[] Labels, double Value)> Series(MetricFamily family, EngineView view) => family.Read(view)
        .Select(sample => (sample.Label is null ? Labels(view) : [.. Labels(view), (sample.Label, sample.LabelValue!)], sample.Value));

    private (string, string)[] Labels(EngineView view) => [("engine", Text(view.Rank.Index)), ("model_name", options.ServedNames[0])];

    private static (string, string)[] CacheSettings(ServerOptions options, MemoryPlan plan) =>
    [
        ("block_size", Text(plan.BlockSize)), ("cache_dtype", options.Flags.Text("kv_cache_dtype") ?? "auto"),
        ("cpu_offload_gb", Text(options.Flags.Number("cpu_offload_gb") ?? 0)), ("enable_prefix_caching", Text(options.PrefixCaching)),
        ("gpu_memory_utilization", Text(options.GpuMemoryUtilization)), ("kv_cache_memory_bytes", Text(options.Flags.Integer("kv_cache_memory_bytes"))),
        ("num_gpu_blocks", Text(plan.NumBlocks)), ("num_gpu_blocks_override", Text(options.Flags.Integer("num_gpu_blocks_override"))),
        ("prefix_caching_hash_algo", options.Flags.Text("prefix_caching_hash_algo") ?? "sha256"),
        .. options.Release.Has(Traits.ShowsCacheSize)
            ? new[] { ("kv_cache_max_concurrency", Text(plan.MaxConcurrency)), ("kv_cache_size_tokens", Text(plan.KvTokens)) } : [],
    ];

    private static string Text(object? value) => value is null ? "None" : Convert.ToString(value, CultureInfo.InvariantCulture)!;
}
