using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

public sealed partial class LoadTests
{
    /// <summary>Seconds by which a delay may end too early: timers run on a clock whose steps are some milliseconds long.</summary>
    private const double Early = 0.03;

    private static readonly string[] Phases =
    [
        "Automatically detected platform cuda", "version 0.28.0", "model   Qwen/Qwen3-0.6B", "non-default args:", "Resolved architecture:", "Using max model len",
        "Chunked prefill is enabled with max_num_batched_tokens=", "Waiting for init message from front-end", "Initializing a V1 LLM engine (v",
        "Starting to load model", "Using model weights format", "Loading weights took", "Model loading took", "Using cache directory:",
        "Dynamo bytecode transform time:", "Compiling a graph for compile range (", "torch.compile took", "Initial profiling/warmup run took",
        "Available KV cache memory:", "GPU KV cache size:", "Maximum concurrency for 40,960 tokens per request:", "Graph capturing finished in",
        "Free memory on device (", "init engine (profile, create kv cache, warmup model) took", "Supported tasks:",
        "Starting vLLM server on http", "Available routes are:", "Route: /health, Methods: GET", "Application startup complete.",
    ];

    [Fact]
    public async Task Load_lines_come_in_order_and_with_their_prefixes()
    {
        await using var simulator = await RunningSimulator.StartAsync("Qwen/Qwen3-0.6B");

        var lines = simulator.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);

        var at = -1;
        foreach (var phase in Phases)
            (at = Array.FindIndex(lines, at + 1, line => line.Contains(phase, StringComparison.Ordinal))).ShouldBeGreaterThan(-1, phase);
        lines.ShouldAllBe(line => LogLine().IsMatch(line));
    }

    [Fact]
    public async Task Shards_are_counted_with_carriage_returns_on_standard_error()
    {
        await using var simulator = await RunningSimulator.StartAsync("meta/Llama-3-8B");

        simulator.Error.ShouldContain("\rLoading safetensors checkpoint shards:  33% Completed | 1/3");
        simulator.Error.ShouldContain("\rLoading safetensors checkpoint shards: 100% Completed | 3/3");
    }

    [Fact]
    public async Task Connections_are_refused_until_the_server_is_ready()
    {
        var port = TestPorts.Free();
        await using var simulator = RunningSimulator.Begin(new() { ["VLLM_SIM_HANG"] = "load" }, "m", "--port", $"{port}");
        await Deadline.UntilAsync(() => simulator.Error.Contains("Loading safetensors", StringComparison.Ordinal));

        using var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);

        (await Should.ThrowAsync<SocketException>(async () => await socket.ConnectAsync(IPAddress.Loopback, port)))
            .SocketErrorCode.ShouldBe(SocketError.ConnectionRefused);
        (await simulator.StopAsync()).ShouldBe(0);
    }

    [Fact]
    public async Task A_taken_port_stops_the_start_before_the_load()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();

        var (code, output, error) = await RunningSimulator.RunAsync([], "m", "--port", $"{((IPEndPoint)taken.LocalEndpoint).Port}");

        code.ShouldBe(1);
        error.ShouldContain("OSError: [Errno 98] Address already in use");
        output.ShouldNotContain("Starting to load model");
    }

    [Theory]
    [InlineData("gated", "You are trying to access a gated repo.", false)]
    [InlineData("not_found", "Repository Not Found", false)]
    [InlineData("no_gpu", "Failed to infer device type", false)]
    [InlineData("bad_parser", "invalid tool call parser:", false)]
    [InlineData("unsupported", "are not supported for now", false)]
    [InlineData("nccl", "Error while creating shared memory segment", true)]
    [InlineData("oom", "torch.OutOfMemoryError: CUDA out of memory.", true)]
    [InlineData("profiling", "Error in memory profiling. Initial free memory", true)]
    [InlineData("licence", "403 Client Error", false)]
    [InlineData("revision", "RevisionNotFoundError", false)]
    [InlineData("offline", "LocalEntryNotFoundError", false)]
    [InlineData("inspect", "failed to be inspected", false)]
    [InlineData("remote_code", "trust_remote_code", false)]
    [InlineData("runner", "Embedding models do not support `--runner", false)]
    [InlineData("no_sleep", "Sleep mode is not supported on current platform", false)]
    [InlineData("free_memory", "on startup is less than desired GPU memory utilization", true)]
    [InlineData("cache_blocks", "No available memory for the cache blocks", true)]
    [InlineData("kv_cache", "the estimated maximum model length is 34736", true)]
    public async Task Scripted_failures_end_with_their_text_and_code_1(string failure, string text, bool inEngine)
    {
        var (code, output, error) = await RunningSimulator.RunAsync(new() { ["VLLM_SIM_FAIL"] = failure }, "m");

        code.ShouldBe(1);
        error.ShouldContain(text);
        error.Contains("Engine core initialization failed. See root cause above. Failed core proc(s):", StringComparison.Ordinal).ShouldBe(inEngine);
        if (inEngine)
            output.IndexOf(text, StringComparison.Ordinal).ShouldBeInRange(1, output.IndexOf("EngineCore failed to start.", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("--tool-call-parser", "nope", "invalid tool call parser: nope")]
    [InlineData("--reasoning-parser", "nope", "invalid reasoning parser: nope")]
    [InlineData("--max-model-len", "1M", "User-specified max_model_len (1048576) is greater than the derived max_model_len")]
    [InlineData("--gpu-memory-utilization", "1.5", "validation error for CacheConfig")]
    [InlineData("--block-size", "0", "validation error for CacheConfig")]
    [InlineData("--num-gpu-blocks-override", "-1", "validation error for CacheConfig")]
    [InlineData("--kv-cache-memory-bytes", "0", "validation error for CacheConfig")]
    [InlineData("--max-num-seqs", "0", "validation error for SchedulerConfig")]
    [InlineData("--stream-interval", "0", "validation error for SchedulerConfig")]
    [InlineData("--max-model-len", "0", "validation error for ModelConfig")]
    [InlineData("--max-model-len", "-2", "validation error for ModelConfig")]
    [InlineData("--tensor-parallel-size", "0", "validation error for ParallelConfig")]
    [InlineData("--port", "70000", "OverflowError: bind(): port must be 0-65535.")]
    [InlineData("--port", "-1", "OverflowError: bind(): port must be 0-65535.")]
    public async Task Options_that_do_not_fit_the_model_end_the_start(string flag, string value, string text)
    {
        var (code, _, error) = await RunningSimulator.RunAsync([], "Qwen/Qwen3-8B", flag, value);

        code.ShouldBe(1);
        error.ShouldContain(text);
    }

    [Theory]
    [InlineData("max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (16)", "--max-num-batched-tokens", "8", "--max-num-seqs", "16")]
    [InlineData("max_cpu_loras (2) must be >= max_loras (4)", "--enable-lora", "--max-loras", "4", "--max-cpu-loras", "2")]
    public async Task Options_that_do_not_fit_each_other_end_the_start(string text, params string[] flags)
    {
        var (code, _, error) = await RunningSimulator.RunAsync([], ["m", .. flags]);

        code.ShouldBe(1);
        error.ShouldContain(text);
    }

    [Theory]
    [InlineData("--block-size")]
    [InlineData("--max-num-seqs")]
    [InlineData("--num-gpu-blocks-override")]
    [InlineData("--stream-interval")]
    [InlineData("--max-model-len")]
    [InlineData("--max-loras")]
    [InlineData("--shutdown-timeout")]
    [InlineData("--kv-cache-memory-bytes")]
    public async Task Options_beyond_all_measure_do_not_overflow(string flag)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1" }, "m", flag, "9223372036854775807");

        (await simulator.SendAsync("/v1/completions", """{"prompt":"a","max_tokens":1}""")).Status.ShouldBe(200);
    }

    [Theory]
    [InlineData("platform", "Resolved architecture:")]
    [InlineData("download", "Using model weights format")]
    [InlineData("compile", "Available KV cache memory:")]
    [InlineData("graphs", "Graph capturing finished in")]
    public async Task A_failure_comes_in_the_phase_that_is_asked(string phase, string notReached)
    {
        var (code, output, error) = await RunningSimulator.RunAsync(new() { ["VLLM_SIM_FAIL_PHASE"] = phase }, "m");

        code.ShouldBe(1);
        error.ShouldContain("CUDA out of memory");
        output.ShouldNotContain(notReached);
    }

    [Theory]
    [InlineData("PLATFORM")]
    [InlineData("CONFIG")]
    [InlineData("ENGINE")]
    [InlineData("DOWNLOAD")]
    [InlineData("WEIGHTS")]
    [InlineData("COMPILE")]
    [InlineData("PROFILE")]
    [InlineData("GRAPHS")]
    public async Task Every_phase_takes_its_own_time(string phase)
    {
        var started = Stopwatch.StartNew();

        await OutputAsync(new() { [$"VLLM_SIM_PHASE_{phase}_SECONDS"] = "0.4" }, "m");

        started.Elapsed.TotalSeconds.ShouldBeGreaterThan(0.4 - Early);
    }

    [Fact]
    public async Task The_log_tells_the_times_of_the_phases()
    {
        var output = await OutputAsync(new() { ["VLLM_SIM_PHASE_WEIGHTS_SECONDS"] = "0.2", ["VLLM_SIM_PHASE_COMPILE_SECONDS"] = "0.3" }, "m");

        Seconds("Loading weights took ").ShouldBeGreaterThan(0.2 - Early);
        Seconds("torch.compile took ").ShouldBeGreaterThanOrEqualTo(0.3);
        Seconds("init engine (profile, create kv cache, warmup model) took ").ShouldBeGreaterThan(0.3 - Early);

        double Seconds(string text) => double.Parse(output.Split(text)[1].Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture);
    }

    [Fact]
    public async Task A_process_that_the_kernel_ends_says_nothing()
    {
        var (code, output, error) = await RunningSimulator.RunAsync(new() { ["VLLM_SIM_FAIL"] = "killed" }, "m");

        code.ShouldBe(137);
        (output + error).ShouldNotContain("ERROR");
        error.ShouldNotContain("Traceback");
    }

    [Fact]
    public async Task With_several_workers_a_failure_is_wrapped_once_more()
    {
        var (_, output, _) = await RunningSimulator.RunAsync(new() { ["VLLM_SIM_FAIL"] = "oom" }, "m", "-tp", "2");

        output.ShouldContain("WorkerProc initialization failed due to an exception in a background process");
    }

    [Theory]
    [InlineData("open", null, null)]
    [InlineData("gated", null, "401 Client Error")]
    [InlineData("gated", "hf_secret", null)]
    [InlineData("closed", null, "401 Client Error")]
    [InlineData("closed", "hf_secret", "403 Client Error")]
    public async Task The_hub_asks_for_a_token(string hub, string? token, string? text)
    {
        var environment = new Dictionary<string, string> { ["VLLM_SIM_HUB"] = hub };
        if (token is not null)
            environment["HF_TOKEN"] = token;
        await using var simulator = RunningSimulator.Begin(environment, "org/m");

        if (text is null)
            await simulator.Server.Ready;
        else
            (await simulator.Exit).ShouldBe(1);
        simulator.Error.Contains(text ?? "Client Error", StringComparison.Ordinal).ShouldBe(text is not null);
    }

    [Fact]
    public async Task A_second_start_finds_the_weights_and_the_compiled_graphs()
    {
        var folder = Directory.CreateTempSubdirectory("modelhost-caches-").FullName;
        var environment = new Dictionary<string, string>
        {
            ["VLLM_SIM_CACHES"] = "1",
            ["HF_HOME"] = folder + "/hf",
            ["VLLM_CACHE_ROOT"] = folder + "/vllm",
            ["VLLM_SIM_DOWNLOAD_MBPS"] = "3000",
            ["VLLM_SIM_WEIGHT_MIB"] = "2000",
        };

        var offline = await RunningSimulator.RunAsync(new(environment) { ["HF_HUB_OFFLINE"] = "1" }, "org/m");
        var first = await OutputAsync(environment, "org/m");
        var second = await OutputAsync(new(environment) { ["TRANSFORMERS_OFFLINE"] = "1" }, "org/m");
        var other = await OutputAsync(environment, "org/m", "-tp", "2");
        var told = await OutputAsync(new(environment) { ["VLLM_DISABLE_COMPILE_CACHE"] = "1" }, "org/m");
        Directory.Delete(folder, recursive: true);

        (offline.ExitCode, offline.Error.Contains("LocalEntryNotFoundError", StringComparison.Ordinal)).ShouldBe((1, true));
        first.ShouldContain("Time spent downloading weights for org/m: 0.70 seconds");
        first.ShouldContain("Compiling a graph for compile range (");
        second.ShouldNotContain("Time spent downloading weights");
        second.ShouldContain("Directly load the compiled graph");
        second.ShouldNotContain("Compiling a graph");
        other.ShouldNotContain("Time spent downloading weights");
        other.ShouldContain("Compiling a graph");
        told.ShouldContain("Compiling a graph");
    }

    [Fact]
    public async Task The_cache_of_a_token_is_a_knob()
    {
        var output = await OutputAsync(new() { ["VLLM_SIM_KV_BYTES_PER_TOKEN"] = "1024" }, "m", "--kv-cache-memory-bytes", "1g", "--max-model-len", "1000");

        output.ShouldContain("GPU KV cache size: 976,560 tokens");
    }

    /// <summary>Figures of published logs, and the bytes of a token that they come from: 128 KiB and 320 KiB.</summary>
    [Theory]
    [InlineData("meta-llama/Llama-3.1-8B-Instruct", 613_024 * 131_072L, "131072", "613,024 tokens", "Maximum concurrency for 131,072 tokens per request: 4.68x")]
    [InlineData("meta-llama/Llama-3.1-70B-Instruct", 100 * 1024 * 327_680L, "1024", "102,400 tokens", "Maximum concurrency for 1,024 tokens per request: 100.00x")]
    public async Task The_cache_has_as_many_tokens_as_a_real_server_logged(string model, long bytes, string length, string tokens, string concurrency)
    {
        var output = await OutputAsync([], model, "--kv-cache-memory-bytes", $"{bytes}", "--max-model-len", length);

        output.ShouldContain("GPU KV cache size: " + tokens);
        output.ShouldContain(concurrency);
    }

    [Fact]
    public async Task A_context_that_the_cache_cannot_hold_fails_with_the_figures_of_a_real_server()
    {
        // 48 layers with 4 heads of 128: 96 KiB for a token
        var (code, _, error) = await RunningSimulator.RunAsync(
            new() { ["VLLM_SIM_KV_BYTES_PER_TOKEN"] = "98304", ["VLLM_SIM_MODEL_MAX_LEN"] = "262144" },
            "Qwen/Qwen3-Coder-30B-A3B-Instruct", "--kv-cache-memory-bytes", $"{34_736 * 98_304L}");

        code.ShouldBe(1);
        error.ShouldContain("To serve at least one request with the models's max seq len (262144), (24.00 GiB KV cache is needed, " +
            "which is larger than the available KV cache memory (3.18 GiB)");
        error.ShouldContain("the estimated maximum model length is 34736");
    }

    private static async Task<string> OutputAsync(Dictionary<string, string> environment, params string[] flags)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(environment, flags);
        return simulator.Output;
    }

    [Fact]
    public async Task The_version_is_a_knob()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_VERSION"] = "0.27.1" }, "m");

        (await simulator.Http.GetStringAsync("/version", TestContext.Current.CancellationToken)).ShouldBe("{\"version\":\"0.27.1\"}");
    }

    [GeneratedRegex(@"^\((APIServer|EngineCore) pid=\d+\) (INFO:     \S|INFO \d\d-\d\d \d\d:\d\d:\d\d \[\w+\.py:\d+\] )")]
    private static partial Regex LogLine();
}
