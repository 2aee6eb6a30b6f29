using System.Text;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

public sealed class DataParallelTests
{
    private const string Completions = "/v1/completions";

    private const string Endless = """{"prompt":"a","max_tokens":10000,"ignore_eos":true}""";

    private static readonly Dictionary<string, string> Slow = new() { ["VLLM_SIM_ITL_MS"] = "20" };

    [Theory]
    [InlineData("0 1 2", "--data-parallel-size", "3")]
    [InlineData("0 1 2 3", "-dp", "4", "--data-parallel-size-local", "2")]
    [InlineData("2 3", "-dp", "4", "--data-parallel-size-local", "2", "--data-parallel-start-rank", "2", "--data-parallel-hybrid-lb")]
    [InlineData("1", "-dp", "2", "--data-parallel-rank", "1")]
    [InlineData("0", "--tensor-parallel-size", "2")]
    public async Task Every_engine_that_answers_here_has_its_series(string engines, params string[] flags)
    {
        await using var simulator = await RunningSimulator.StartAsync(["m", .. flags]);

        var page = await simulator.MetricsAsync();

        foreach (var name in new[] { "vllm:num_requests_running", "vllm:prompt_tokens_total", "vllm:e2e_request_latency_seconds_count", "vllm:cache_config_info" })
            page.Where(line => line.StartsWith(name + "{", StringComparison.Ordinal)).Select(line => line.Split("engine=\"")[1].Split('"')[0])
                .ShouldBe(engines.Split(' '), name);
    }

    [Fact]
    public async Task Requests_go_to_the_engine_with_the_least_to_do_and_each_has_its_own_places()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Slow, "m", "-dp", "2", "--max-num-seqs", "1");

        var requests = Enumerable.Range(0, 3).Select(_ => simulator.SendAsync(Completions, Endless)).ToArray();

        await Deadline.UntilAsync(async () => (await RunningAsync(simulator, 0), await RunningAsync(simulator, 1)), running => running == (1, 1));
        await Deadline.UntilAsync(async () => await WaitingAsync(simulator, 0) + await WaitingAsync(simulator, 1), waiting => waiting == 1);
        await simulator.StopAsync();
        await Task.WhenAll(requests);
    }

    [Theory]
    [InlineData("1", 200)]
    [InlineData("2", 400)]
    public async Task A_header_names_the_engine(string rank, int status)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "-dp", "2");
        using var request = new HttpRequestMessage(HttpMethod.Post, Completions) { Content = new StringContent("""{"prompt":"a b c"}""", Encoding.UTF8, "application/json") };
        request.Headers.Add("X-data-parallel-rank", rank);

        using var response = await simulator.Http.SendAsync(request, TestContext.Current.CancellationToken);

        ((int)response.StatusCode).ShouldBe(status);
        (await simulator.MetricAsync("vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"}")).ShouldBe(0);
        (await simulator.MetricAsync("vllm:prompt_tokens_total{engine=\"1\",model_name=\"m\"}")).ShouldBe(status == 200 ? 3 : 0);
    }

    [Theory]
    [InlineData("m", "/v1/chat/completions", """{"messages":[{"role":"user","content":"a"}],"max_tokens":2}""")]
    [InlineData("m", "/v1/messages", """{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":2}""")]
    [InlineData("m", "/v1/responses", """{"input":"a","max_output_tokens":2}""")]
    [InlineData("m", "/v1/responses", """{"input":"a","max_output_tokens":2,"background":true}""")]
    [InlineData("m", "/inference/v1/generate", """{"token_ids":[1,2,3],"sampling_params":{"max_tokens":2}}""")]
    [InlineData("m", "/invocations", """{"prompt":"a","max_tokens":2}""")]
    [InlineData("openai/whisper-small", "/v1/audio/transcriptions", null)]
    [InlineData("BAAI/bge-m3", "/v1/embeddings", """{"input":"a"}""")]
    [InlineData("BAAI/bge-m3", "/v2/embed", """{"model":"m","texts":["a"]}""")]
    [InlineData("BAAI/bge-reranker-v2-m3", "/rerank", """{"query":"a","documents":["b"]}""")]
    public async Task The_header_counts_on_every_route(string model, string path, string? body)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_ENABLE_RESPONSES_API_STORE"] = "1" }, model, "--served-model-name", "m", "-dp", "2");
        using var request = new HttpRequestMessage(HttpMethod.Post, path)
        {
            Content = body is null ? new MultipartFormDataContent { { new ByteArrayContent(AudioTests.Wave(1)), "file", "speech.wav" } }
                : new StringContent(body, Encoding.UTF8, "application/json"),
        };
        request.Headers.Add("X-data-parallel-rank", "1");

        using var response = await simulator.Http.SendAsync(request, TestContext.Current.CancellationToken);

        ((int)response.StatusCode).ShouldBe(200);
        await Deadline.UntilAsync(async () => await FinishedAsync(simulator, 1), finished => finished > 0);
        (await FinishedAsync(simulator, 0)).ShouldBe(0);
        await Deadline.UntilAsync(simulator.MetricsAsync, page => page.Contains($"http_requests_total{{handler=\"{path}\",method=\"POST\",status=\"2xx\"}} 1.0"));
    }

    [Fact]
    public async Task All_engines_pause_together()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new(Slow) { ["VLLM_SERVER_DEV_MODE"] = "1" }, "m", "-dp", "2", "--enable-sleep-mode");
        var requests = Enumerable.Range(0, 2).Select(_ => simulator.SendAsync(Completions, Endless)).ToArray();
        await Deadline.UntilAsync(async () => (await RunningAsync(simulator, 0), await RunningAsync(simulator, 1)), running => running == (1, 1));

        using var sleep = await simulator.PostAsync("/sleep", "");

        foreach (var answer in await Task.WhenAll(requests))
            ((string?)answer.Body["choices"]![0]!["finish_reason"]).ShouldBe("abort");
        foreach (var engine in new[] { 0, 1 })
            (await simulator.MetricAsync($"vllm:engine_sleep_state{{engine=\"{engine}\",model_name=\"m\",sleep_state=\"weights_offloaded\"}}")).ShouldBe(1);
    }

    [Fact]
    public async Task Engines_hold_a_gpu_each()
    {
        var directory = Directory.CreateTempSubdirectory("modelhost-dp-").FullName;
        File.WriteAllText(Path.Combine(directory, "gpus.csv"), "0,GPU-a,NVIDIA L4,24576\n1,GPU-b,NVIDIA L4,24576\n2,GPU-c,NVIDIA L4,24576\n");
        var environment = new Dictionary<string, string> { ["VLLM_SIM_GPU_DIR"] = directory };

        await using (await RunningSimulator.StartWithAsync(environment, "Qwen/Qwen3-0.6B", "-dp", "2"))
        {
            using var reader = new StreamReader(new FileStream(Directory.GetFiles(Path.Combine(directory, "holds"))[0], FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
            var holds = (await reader.ReadToEndAsync(TestContext.Current.CancellationToken)).Split('\n', StringSplitOptions.RemoveEmptyEntries);
            holds.Select(line => line.Split(',')[0]).ShouldBe(["GPU-a", "GPU-b"]);
            holds.Select(line => line.Split(',')[2]).ShouldBe(["VLLM::EngineCore_DP0", "VLLM::EngineCore_DP1"]);
        }
        var (code, _, error) = await RunningSimulator.RunAsync(environment, "Qwen/Qwen3-0.6B", "-dp", "2", "-tp", "2");
        Directory.Delete(directory, recursive: true);

        code.ShouldBe(1);
        error.ShouldContain("World size (4) is larger than the number of available GPUs (3)");
    }

    [Fact]
    public async Task Without_a_head_nobody_is_answered()
    {
        await using var simulator = RunningSimulator.Begin([], "m", "-dp", "4", "--data-parallel-size-local", "2", "--data-parallel-start-rank", "2", "--headless");

        await Deadline.UntilAsync(() => simulator.Output.Contains("Running 2 engine(s) in headless mode.", StringComparison.Ordinal));

        simulator.Server.Ready.IsCompleted.ShouldBeFalse();
        (await simulator.StopAsync()).ShouldBe(0);
        simulator.Output.ShouldNotContain("Starting vLLM server");
    }

    [Theory]
    [InlineData("-dp", "0", "greater than or equal to 1")]
    [InlineData("--data-parallel-rank", "3", "must be in the range [0, 1)")]
    [InlineData("--data-parallel-rank", "-1", "must be in the range [0, 1)")]
    [InlineData("--data-parallel-rank", "3000000000", "must be in the range [0, 1)")]
    [InlineData("-dp", "1000000000", "larger than the number of available GPUs")]
    public async Task Sizes_that_cannot_be_stop_the_start(string flag, string value, string text)
    {
        var (code, _, error) = await RunningSimulator.RunAsync([], "m", flag, value);

        code.ShouldBe(1);
        error.ShouldContain(text);
    }

    [Fact]
    public async Task Every_engine_logs_its_throughput()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new(Slow) { ["VLLM_LOG_STATS_INTERVAL"] = "0.05" }, "m", "-dp", "2");
        using var leave = new CancellationTokenSource();
        var requests = Enumerable.Range(0, 2).Select(_ => simulator.PostAsync(Completions, Endless, HttpCompletionOption.ResponseContentRead, leave.Token)).ToArray();

        foreach (var engine in new[] { "000", "001" })
            await Deadline.UntilAsync(() => simulator.Output.Contains($"Engine {engine}: Avg prompt throughput: ", StringComparison.Ordinal));
        await leave.CancelAsync();
        await Should.ThrowAsync<OperationCanceledException>(Task.WhenAll(requests));
    }

    private static Task<double> RunningAsync(RunningSimulator simulator, int engine) =>
        simulator.MetricAsync($"vllm:num_requests_running{{engine=\"{engine}\",model_name=\"m\"}}");

    private static Task<double> FinishedAsync(RunningSimulator simulator, int engine) =>
        simulator.MetricAsync($"vllm:e2e_request_latency_seconds_count{{engine=\"{engine}\",model_name=\"m\"}}");

    private static Task<double> WaitingAsync(RunningSimulator simulator, int engine) =>
        simulator.MetricAsync($"vllm:num_requests_waiting{{engine=\"{engine}\",model_name=\"m\"}}");
}
