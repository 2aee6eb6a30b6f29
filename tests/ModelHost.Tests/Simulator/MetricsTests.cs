namespace ModelHost.Tests.Simulator;

/// <summary>The page <c>/metrics</c>, against the published names, labels and buckets.</summary>
public sealed class MetricsTests
{
    private const string Chat = "/v1/chat/completions";

    /// <summary>Name, type, label of its own with the values, buckets, and the releases that have it (of 0.8, 0.11 and 0.28).</summary>
    private const string Engine = """
        vllm:num_requests_running                       gauge      -                                                                          -    8 11 28
        vllm:num_requests_waiting                       gauge      -                                                                          -    8 11 28
        vllm:num_requests_waiting_by_reason             gauge      reason=capacity,deferred                                                   -    28
        vllm:num_requests_swapped                       gauge      -                                                                          -    8
        vllm:kv_cache_usage_perc                        gauge      -                                                                          -    11 28
        vllm:gpu_cache_usage_perc                       gauge      -                                                                          -    8 11
        vllm:cpu_cache_usage_perc                       gauge      -                                                                          -    8
        vllm:cpu_prefix_cache_hit_rate                  gauge      -                                                                          -    8
        vllm:gpu_prefix_cache_hit_rate                  gauge      -                                                                          -    8
        vllm:engine_sleep_state                         gauge      sleep_state=awake,weights_offloaded,discard_all                            -    8 11 28
        vllm:prefix_cache_queries_total                 counter    -                                                                          -    11 28
        vllm:prefix_cache_hits_total                    counter    -                                                                          -    11 28
        vllm:gpu_prefix_cache_queries_total             counter    -                                                                          -    8 11
        vllm:gpu_prefix_cache_hits_total                counter    -                                                                          -    8 11
        vllm:external_prefix_cache_queries_total        counter    -                                                                          -    8 11 28
        vllm:external_prefix_cache_hits_total           counter    -                                                                          -    8 11 28
        vllm:mm_cache_queries_total                     counter    -                                                                          -    8 11 28
        vllm:mm_cache_hits_total                        counter    -                                                                          -    8 11 28
        vllm:num_preemptions_total                      counter    -                                                                          -    8 11 28
        vllm:prompt_tokens_total                        counter    -                                                                          -    8 11 28
        vllm:prompt_tokens_by_source_total              counter    source=local_compute,local_cache_hit,external_kv_transfer                  -    28
        vllm:prompt_tokens_cached_total                 counter    -                                                                          -    28
        vllm:generation_tokens_total                    counter    -                                                                          -    8 11 28
        vllm:request_success_total                      counter    finished_reason=stop,length,abort                                          -    8 11
        vllm:request_success_total                      counter    finished_reason=stop,length,abort,error,repetition                         -    28
        vllm:request_prompt_tokens                      histogram  -                                                                          125  8 11 28
        vllm:request_generation_tokens                  histogram  -                                                                          125  8 11 28
        vllm:request_max_num_generation_tokens          histogram  -                                                                          125  8 11 28
        vllm:request_params_n                           histogram  -                                                                          n    8 11 28
        vllm:request_params_max_tokens                  histogram  -                                                                          125  8 11 28
        vllm:request_prefill_kv_computed_tokens         histogram  -                                                                          125  8 11 28
        vllm:iteration_tokens_total                     histogram  -                                                                          step 8 11 28
        vllm:time_to_first_token_seconds                histogram  -                                                                          ttft 8 11 28
        vllm:time_per_output_token_seconds              histogram  -                                                                          T    8 11
        vllm:inter_token_latency_seconds                histogram  -                                                                          T    11 28
        vllm:request_time_per_output_token_seconds      histogram  -                                                                          T    8 11 28
        vllm:e2e_request_latency_seconds                histogram  -                                                                          L    8 11 28
        vllm:request_queue_time_seconds                 histogram  -                                                                          L    8 11 28
        vllm:request_inference_time_seconds             histogram  -                                                                          L    8 11 28
        vllm:request_prefill_time_seconds               histogram  -                                                                          L    8 11 28
        vllm:request_decode_time_seconds                histogram  -                                                                          L    8 11 28
        vllm:time_in_queue_requests                     histogram  -                                                                          L    8
        vllm:model_forward_time_milliseconds            histogram  -                                                                          ms   8
        vllm:model_execute_time_milliseconds            histogram  -                                                                          ms   8
        """;

    private static readonly Dictionary<string, string> Buckets = new()
    {
        ["125"] = "1 2 5 10 20 50 100 200 500 1000 2000",
        ["n"] = "1 2 5 10 20",
        ["step"] = "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384",
        ["ttft"] = "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 640 2560",
        ["T"] = "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80",
        ["L"] = "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680",
        ["ms"] = "1 2 3 5 8 10 20 30 50 80 100 200 300 500 800 1000 2000 3000",
        ["block"] = "0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 1 2 5 10 20 30 60 120 300 600 1200 1800",
        ["fine"] = "0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 1.5 2 2.5 3 3.5 4 4.5 5 7.5 10 30 60",
        ["coarse"] = "0.1 0.5 1",
    };

    [Theory]
    [InlineData("8", "0.8.5")]
    [InlineData("11", "0.11.0")]
    [InlineData("28", "0.28.0")]
    public async Task A_release_has_its_series_and_no_others(string profile, string version)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_VERSION"] = version }, "m", "--max-model-len", "2000");

        var page = new Page(await simulator.MetricsAsync());

        var expected = Engine.Split('\n').Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)).Where(row => row.Skip(4).Contains(profile)).ToArray();
        page.Families.Keys.Where(name => name.StartsWith("vllm:", StringComparison.Ordinal) && !name.EndsWith("_created", StringComparison.Ordinal))
            .ShouldBe([.. expected.Select(row => row[0]), "vllm:cache_config_info"], ignoreOrder: true);
        foreach (var row in expected)
        {
            page.Families[row[0]].ShouldBe(row[1], row[0]);
            var own = row[2].Split('=');
            string[] labels = row[1] == "histogram" ? ["engine", "le", "model_name"] : own.Length == 1 ? ["engine", "model_name"]
                : [.. new[] { "engine", "model_name", own[0] }.Order(StringComparer.Ordinal)];
            page.LabelsOf(row[0], row[1]).ShouldBe(labels, row[0]);
            page.Values(row[0], "engine").ShouldBe(["0"], row[0]);
            page.Values(row[0], "model_name").ShouldBe(["m"], row[0]);
            if (own.Length == 2)
                page.Values(row[0], own[0]).ShouldBe(own[1].Split(','), row[0]);
            if (row[1] == "histogram")
                page.Bounds(row[0]).ShouldBe(Buckets[row[3]], row[0]);
            if (row[1] != "gauge")
                page.Families.ShouldContainKey((row[1] == "counter" ? row[0][..^"_total".Length] : row[0]) + "_created");
        }
    }

    [Theory]
    [InlineData("0.12.0", "0.11", true)]
    [InlineData("0.13.0", "0.12", true)]
    [InlineData("0.13.0", "0.10", false)]
    [InlineData("0.13.0", null, false)]
    [InlineData("0.14.0", "0.13", false)]
    public async Task Hidden_series_are_shown_on_demand(string version, string? shown, bool there)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_VERSION"] = version },
            ["m", .. shown is null ? Array.Empty<string>() : ["--show-hidden-metrics-for-version", shown]]);

        new Page(await simulator.MetricsAsync()).Families.ContainsKey("vllm:time_per_output_token_seconds").ShouldBe(there);
    }

    [Fact]
    public async Task Block_residency_is_there_with_its_flag()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--kv-cache-metrics");

        var page = new Page(await simulator.MetricsAsync());

        foreach (var name in new[] { "lifetime", "idle_before_evict", "reuse_gap" })
            page.Bounds($"vllm:kv_block_{name}_seconds").ShouldBe(Buckets["block"]);
    }

    [Fact]
    public async Task Requests_are_counted_by_the_instrumentator()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        const string Body = """{"messages":[]}""";
        using var answer = await simulator.PostAsync(Chat, Body);
        var length = answer.Content.Headers.ContentLength!.Value;
        await simulator.PostAsync(Chat, "{");
        await simulator.Http.GetAsync("/v1/nothing", TestContext.Current.CancellationToken);
        await simulator.Http.SendAsync(new HttpRequestMessage(new("BREW"), "/v1/models"), TestContext.Current.CancellationToken);
        await simulator.Http.GetAsync("/health", TestContext.Current.CancellationToken);

        var page = new Page(await simulator.MetricsAsync());

        page.Lines("http_requests_total").ShouldBe(
        [
            $"http_requests_total{{handler=\"{Chat}\",method=\"POST\",status=\"2xx\"}} 1.0",
            $"http_requests_total{{handler=\"{Chat}\",method=\"POST\",status=\"4xx\"}} 1.0",
            "http_requests_total{handler=\"none\",method=\"GET\",status=\"4xx\"} 1.0",
            "http_requests_total{handler=\"/v1/models\",method=\"OTHER\",status=\"4xx\"} 1.0",
        ], ignoreOrder: true);
        page.Lines("http_request_size_bytes_sum").ShouldContain($"http_request_size_bytes_sum{{handler=\"{Chat}\"}} {Body.Length + 1}.0");
        page.Lines("http_response_size_bytes_count").ShouldContain($"http_response_size_bytes_count{{handler=\"{Chat}\"}} 2.0");
        double.Parse(page.Lines("http_response_size_bytes_sum").Single(line => line.Contains(Chat, StringComparison.Ordinal)).Split(' ')[1],
            System.Globalization.CultureInfo.InvariantCulture).ShouldBeGreaterThan(length);
        page.Lines("http_request_duration_highr_seconds_count").ShouldBe(["http_request_duration_highr_seconds_count 4.0"]);
        page.Lines("http_request_duration_seconds_count").ShouldContain($"http_request_duration_seconds_count{{handler=\"{Chat}\",method=\"POST\"}} 2.0");
        page.Bounds("http_request_duration_highr_seconds").ShouldBe(Buckets["fine"]);
        page.Bounds("http_request_duration_seconds").ShouldBe(Buckets["coarse"]);
        page.Families["http_request_size_bytes"].ShouldBe("summary");
        page.Families["http_response_size_bytes"].ShouldBe("summary");
    }

    [Theory]
    [InlineData("1", true)]
    [InlineData("2", false)]
    public async Task Only_a_single_front_end_has_the_series_of_its_process(string servers, bool there)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--api-server-count", servers);

        var page = new Page(await simulator.MetricsAsync());

        string[] names =
        [
            "python_gc_objects_collected_total", "python_gc_objects_uncollectable_total", "python_gc_collections_total", "python_info",
            "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds", "process_cpu_seconds_total", "process_open_fds",
            "process_max_fds",
        ];
        page.Families.Keys.Where(name => name.StartsWith('p')).ShouldBe(there ? names : [], ignoreOrder: true);
    }

    [Theory]
    [InlineData("0.11.0", false)]
    [InlineData("0.28.0", true)]
    public async Task The_settings_of_the_cache_are_labels(string version, bool size)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_VERSION"] = version }, "m", "--num-gpu-blocks-override", "500", "--block-size", "32", "--max-model-len", "4000", "--no-enable-prefix-caching");

        var line = new Page(await simulator.MetricsAsync()).Lines("vllm:cache_config_info").ShouldHaveSingleItem();

        foreach (var label in new[] { "block_size=\"32\"", "cache_dtype=\"auto\"", "engine=\"0\"", "num_gpu_blocks=\"500\"", "enable_prefix_caching=\"False\"", "gpu_memory_utilization=\"0.9" })
            line.ShouldContain(label);
        line.Contains("kv_cache_size_tokens=\"16000\"", StringComparison.Ordinal).ShouldBe(size);
        line.Contains("kv_cache_max_concurrency=\"4\"", StringComparison.Ordinal).ShouldBe(size);
        line.ShouldEndWith(" 1.0");
    }

    [Fact]
    public async Task Without_statistics_the_engine_has_no_series()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--disable-log-stats");

        new Page(await simulator.MetricsAsync()).Families.Keys.ShouldNotContain(name => name.StartsWith("vllm:", StringComparison.Ordinal));
    }

    [Fact]
    public async Task N_answers_are_one_request_with_its_parameter()
    {
        await using var simulator = await RunningSimulator.StartAsync("m");

        await simulator.SendAsync(Chat, """{"messages":[],"n":3,"max_tokens":7,"ignore_eos":true}""");

        var page = new Page(await simulator.MetricsAsync());
        page.Lines("vllm:request_params_n_sum").ShouldBe(["vllm:request_params_n_sum{engine=\"0\",model_name=\"m\"} 3.0"]);
        page.Lines("vllm:request_params_n_count").ShouldBe(["vllm:request_params_n_count{engine=\"0\",model_name=\"m\"} 1.0"]);
        page.Lines("vllm:request_max_num_generation_tokens_sum").ShouldBe(["vllm:request_max_num_generation_tokens_sum{engine=\"0\",model_name=\"m\"} 7.0"]);
        page.Lines("vllm:request_generation_tokens_count").ShouldBe(["vllm:request_generation_tokens_count{engine=\"0\",model_name=\"m\"} 3.0"]);
    }

    /// <summary>A page, taken apart.</summary>
    private sealed class Page(string[] lines)
    {
        /// <summary>The type of every name.</summary>
        public Dictionary<string, string> Families { get; } = lines.Where(line => line.StartsWith("# TYPE ", StringComparison.Ordinal))
            .ToDictionary(line => line.Split(' ')[2], line => line.Split(' ')[3]);

        /// <summary>The lines of exactly this name.</summary>
        public string[] Lines(string name) =>
            [.. lines.Where(line => line.StartsWith(name, StringComparison.Ordinal) && line.Length > name.Length && line[name.Length] is '{' or ' ')];

        public string[] LabelsOf(string name, string type) => [.. Labels(Lines(type == "histogram" ? name + "_bucket" : name)[0]).Select(label => label.Name)];

        public string[] Values(string name, string label) => [.. lines
            .Where(line => line.StartsWith(name + "{", StringComparison.Ordinal) || line.StartsWith(name + "_bucket{", StringComparison.Ordinal))
            .SelectMany(Labels).Where(one => one.Name == label).Select(one => one.Value).Distinct()];

        public string Bounds(string histogram) => string.Join(' ', Lines(histogram + "_bucket").SelectMany(Labels).Where(label => label.Name == "le")
            .Select(label => label.Value.EndsWith(".0", StringComparison.Ordinal) ? label.Value[..^2] : label.Value).TakeWhile(bound => bound != "+Inf"));

        private static IEnumerable<(string Name, string Value)> Labels(string line) =>
            line.Split('{')[^1].Split('}')[0].Split("\",").Select(label => (label.Split("=\"")[0], label.Split("=\"")[1].TrimEnd('"')));
    }
}
