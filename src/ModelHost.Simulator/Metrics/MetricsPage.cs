using System.Globalization;
using System.Text;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Sleep;

namespace ModelHost.Simulator.Metrics;

/// <summary>Writes <c>/metrics</c> as Python's Prometheus client does: labels by name, floats with a point, a <c>_created</c> series each.</summary>
internal sealed class MetricsPage(
    ServerOptions options, MemoryPlan plan, EngineMetrics metrics, Engine engine, SleepMode sleep, HttpCounts http, TimeProvider time)
{
    private readonly string _labels = $"engine=\"0\",model_name=\"{Escape(options.ServedNames[0])}\"";
    private readonly double _created = time.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0;

    public string Render()
    {
        var page = new StringBuilder(32_768);
        Process(page);
        if (!options.Flags.Switch("disable_log_stats"))
            Engine(page);
        Http(page);
        return page.ToString();
    }

    private void Engine(StringBuilder page)
    {
        Gauge(page, "vllm:num_requests_running", "Number of requests in model execution batches.", engine.Scheduler.Running);
        Gauge(page, "vllm:num_requests_waiting", "Number of requests waiting to be processed.", engine.Scheduler.Waiting);
        Gauge(page, "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", engine.Scheduler.KvCacheUsage);
        Head(page, "vllm:engine_sleep_state", "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake.", "gauge");
        foreach (var (state, value) in new[] { ("awake", (int?)null), ("weights_offloaded", 1), ("discard_all", 2) })
            Line(page, "vllm:engine_sleep_state", $"{_labels},sleep_state=\"{state}\"", sleep.ShownLevel == value ? 1 : 0);
        metrics.Read((finished, histograms) =>
        {
            Counter(page, "vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", metrics.PrefixCacheQueries);
            Counter(page, "vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", metrics.PrefixCacheHits);
            Counter(page, "vllm:num_preemptions", "Cumulative number of preemption from the engine.", 0);
            Counter(page, "vllm:prompt_tokens", "Number of prefill tokens processed.", metrics.PromptTokens);
            Counter(page, "vllm:prompt_tokens_cached", "Number of cached prompt tokens.", metrics.PrefixCacheHits);
            Counter(page, "vllm:generation_tokens", "Number of generation tokens processed.", metrics.GenerationTokens);
            Counters(page, "vllm:request_success", "Count of successfully processed requests.",
                Enum.GetValues<FinishReason>().Select(reason => (
                    $"engine=\"0\",finished_reason=\"{reason.ToString().ToLowerInvariant()}\",model_name=\"{Escape(options.ServedNames[0])}\"",
                    finished[(int)reason])));
            foreach (var histogram in histograms)
                Histogram(page, histogram);
        });
        if (engine.Adapters.Enabled)
        {
            Head(page, "vllm:lora_requests_info", "Running stats on lora requests.", "gauge");
            foreach (var (waiting, running, seen) in engine.Adapters.Seen())
                Line(page, "vllm:lora_requests_info", $"max_lora=\"{options.Flags.Integer("max_loras") ?? 1}\"," +
                    $"running_lora_adapters=\"{Escape(running)}\",waiting_lora_adapters=\"{Escape(waiting)}\"", seen);
        }
        Head(page, "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", "gauge");
        Line(page, "vllm:cache_config_info", string.Create(CultureInfo.InvariantCulture,
            $"block_size=\"{plan.BlockSize}\",cache_dtype=\"{options.Flags.Text("kv_cache_dtype") ?? "auto"}\"," +
            $"enable_prefix_caching=\"{options.PrefixCaching}\",engine=\"0\",gpu_memory_utilization=\"{options.GpuMemoryUtilization}\"," +
            $"kv_cache_max_concurrency=\"{plan.MaxConcurrency}\",kv_cache_size_tokens=\"{plan.KvTokens}\",num_gpu_blocks=\"{plan.NumBlocks}\""), 1);
    }

    private static void Process(StringBuilder page)
    {
        using var process = System.Diagnostics.Process.GetCurrentProcess();
        Single("process_virtual_memory_bytes", "Virtual memory size in bytes.", "gauge", process.VirtualMemorySize64);
        Single("process_resident_memory_bytes", "Resident memory size in bytes.", "gauge", process.WorkingSet64);
        Single("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "gauge",
            new DateTimeOffset(process.StartTime).ToUnixTimeMilliseconds() / 1000.0);
        Single("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter", process.TotalProcessorTime.TotalSeconds);
        Single("process_open_fds", "Number of open file descriptors.", "gauge", process.HandleCount);
        Single("process_max_fds", "Maximum number of open file descriptors.", "gauge", 1_048_576);

        void Single(string name, string help, string type, double value)
        {
            Head(page, name, help, type);
            page.Append(CultureInfo.InvariantCulture, $"{name} {Number(value)}\n");
        }
    }

    private void Http(StringBuilder page) => Counters(page, "http_requests", "Total number of requests by method, status and handler.",
        http.Read().Select(entry => ($"handler=\"{Escape(entry.Handler)}\",method=\"{entry.Method}\",status=\"{entry.Class}xx\"", entry.Count)));

    private void Gauge(StringBuilder page, string name, string help, double value)
    {
        Head(page, name, help, "gauge");
        Line(page, name, _labels, value);
    }

    private void Counter(StringBuilder page, string name, string help, double value) => Counters(page, name, help, [(_labels, (long)value)]);

    private void Counters(StringBuilder page, string name, string help, IEnumerable<(string Labels, long Value)> series)
    {
        var all = series.ToArray();
        Head(page, name + "_total", help, "counter");
        foreach (var (labels, value) in all)
            Line(page, name + "_total", labels, value);
        Head(page, name + "_created", help, "gauge");
        foreach (var (labels, _) in all)
            Line(page, name + "_created", labels, _created);
    }

    private void Histogram(StringBuilder page, Histogram histogram)
    {
        Head(page, histogram.Name, histogram.Help, "histogram");
        var total = 0L;
        for (var i = 0; i < histogram.Counts.Count; i++)
        {
            total += histogram.Counts[i];
            var bound = i < histogram.Bounds.Count ? Number(histogram.Bounds[i]) : "+Inf";
            Line(page, histogram.Name + "_bucket", $"engine=\"0\",le=\"{bound}\",model_name=\"{Escape(options.ServedNames[0])}\"", total);
        }
        Line(page, histogram.Name + "_count", _labels, total);
        Line(page, histogram.Name + "_sum", _labels, histogram.Sum);
        Head(page, histogram.Name + "_created", histogram.Help, "gauge");
        Line(page, histogram.Name + "_created", _labels, _created);
    }

    private static void Head(StringBuilder page, string name, string help, string type) => page.Append(CultureInfo.InvariantCulture, $"# HELP {name} {help}\n# TYPE {name} {type}\n");

    private static void Line(StringBuilder page, string name, string labels, double value) => page.Append(CultureInfo.InvariantCulture, $"{name}{{{labels}}} {Number(value)}\n");

    /// <summary>As Python's <c>repr</c> of a float: always with a point or an exponent.</summary>
    private static string Number(double value)
    {
        var text = value.ToString("R", CultureInfo.InvariantCulture);
        return text.AsSpan().ContainsAny(".E") ? text.Replace("E", "e", StringComparison.Ordinal) : text + ".0";
    }

    private static string Escape(string label) =>
        label.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);
}
