using System.Net;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

public sealed class EngineTests
{
    private const string Labels = "{engine=\"0\",model_name=\"m\"}";

    private const string Aborts = "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\",model_name=\"m\"}";

    private const string Long = """{"messages":[{"role":"user","content":"Hello"}],"ignore_eos":true,"max_tokens":10000}""";

    private static readonly Dictionary<string, string> Slow = new() { ["VLLM_SIM_ITL_MS"] = "20" };

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_client_that_leaves_aborts_its_request(bool stream)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Slow, "m");
        using var leave = new CancellationTokenSource();
        var body = stream ? Long.Replace("{\"mess", "{\"stream\":true,\"mess", StringComparison.Ordinal) : Long;
        var request = simulator.PostAsync("/v1/chat/completions", body, HttpCompletionOption.ResponseContentRead, leave.Token);
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:generation_tokens_total" + Labels), tokens => tokens > 0);

        await leave.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(request);
        await Deadline.UntilAsync(() => simulator.MetricAsync(Aborts), aborts => aborts == 1);
        // its place is given back when it has been counted
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running" + Labels), running => running == 0);
        (await simulator.MetricAsync("vllm:kv_cache_usage_perc" + Labels)).ShouldBe(0);
    }

    [Fact]
    public async Task Headers_come_before_the_first_token()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_HANG"] = "request" }, "m");

        using var response = await simulator.PostAsync("/v1/chat/completions", Long.Replace("{\"mess", "{\"stream\":true,\"mess", StringComparison.Ordinal),
            HttpCompletionOption.ResponseHeadersRead, TestContext.Current.CancellationToken);

        response.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await simulator.Http.GetAsync("/health", TestContext.Current.CancellationToken)).StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Requests_beyond_max_num_seqs_wait()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Slow, "m", "--max-num-seqs", "1");

        var first = simulator.PostAsync("/v1/chat/completions", Long);
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running" + Labels), running => running == 1);
        var second = simulator.PostAsync("/v1/chat/completions", Long);

        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_waiting" + Labels), waiting => waiting == 1);
        (await simulator.MetricAsync("vllm:num_requests_running" + Labels)).ShouldBe(1);
        await simulator.StopAsync();
        await Task.WhenAll(first, second);
    }

    [Fact]
    public async Task Tokens_keep_their_distance()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_TTFT_MS"] = "60", ["VLLM_SIM_ITL_MS"] = "15", ["VLLM_SIM_OUTPUT_TOKENS"] = "9" }, "m");

        await simulator.SendAsync("/v1/chat/completions", """{"messages":[]}""");

        (await simulator.MetricAsync("vllm:time_to_first_token_seconds_sum" + Labels)).ShouldBeGreaterThan(0.03);
        (await simulator.MetricAsync("vllm:inter_token_latency_seconds_count" + Labels)).ShouldBe(9);
        // a first token that comes late does not put off the others
        (await simulator.MetricAsync("vllm:request_inference_time_seconds_sum" + Labels)).ShouldBeGreaterThan(0.15);
    }

    [Fact]
    public async Task The_engine_dies_after_as_many_answers_as_asked()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_EXIT_AFTER"] = "2" }, "m");

        (await simulator.SendAsync("/v1/chat/completions", """{"messages":[]}""")).Status.ShouldBe(200);
        simulator.Exit.IsCompleted.ShouldBeFalse();
        (await simulator.SendAsync("/v1/chat/completions", """{"messages":[]}""")).Status.ShouldBe(200);

        (await simulator.Exit.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken)).ShouldBe(1);
        simulator.Output.ShouldContain("EngineCore encountered a fatal error");
        simulator.Output.ShouldContain("EngineDeadError");
    }

    [Fact]
    public async Task A_stop_ends_requests_as_aborted_and_exits_with_0()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Slow, "m");
        var request = simulator.SendAsync("/v1/chat/completions", Long);
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:generation_tokens_total" + Labels), tokens => tokens > 0);

        (await simulator.StopAsync()).ShouldBe(0);

        var (status, body) = await request;
        status.ShouldBe(200);
        ((string?)body["choices"]![0]!["finish_reason"]).ShouldBe("abort");
        var at = -1;
        foreach (var line in new[] { "shutdown triggered", "stopping engine client mode=abort timeout=0", "EngineCore: start mode=", "engine client stopped", "signalling HTTP server shutdown" })
            (at = simulator.Output.IndexOf(line, at + 1, StringComparison.Ordinal)).ShouldBeGreaterThan(-1, line);
    }

    [Fact]
    public async Task A_stop_with_a_timeout_lets_requests_end()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Slow, "m", "--shutdown-timeout", "20");
        var request = simulator.SendAsync("/v1/chat/completions", Long.Replace("10000", "20", StringComparison.Ordinal));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:generation_tokens_total" + Labels), tokens => tokens > 0);

        (await simulator.StopAsync()).ShouldBe(0);

        ((string?)(await request).Body["choices"]![0]!["finish_reason"]).ShouldBe("length");
        simulator.Output.ShouldContain("stopping engine client mode=drain timeout=20");
    }

    [Fact]
    public async Task Metrics_agree_with_usage_and_have_the_published_buckets()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--max-model-len", "300");
        var (_, body) = await simulator.SendAsync("/v1/chat/completions", """{"messages":[{"role":"user","content":"Hello"}]}""");

        var page = await simulator.MetricsAsync();

        double Value(string series) => double.Parse(page.Single(line => line.StartsWith(series + " ", StringComparison.Ordinal)).Split(' ')[^1]);
        Value("vllm:prompt_tokens_total" + Labels).ShouldBe((int)body["usage"]!["prompt_tokens"]!);
        Value("vllm:generation_tokens_total" + Labels).ShouldBe((int)body["usage"]!["completion_tokens"]!);
        Value("vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"m\"}").ShouldBe(1);
        Value("http_requests_total{handler=\"/v1/chat/completions\",method=\"POST\",status=\"2xx\"}").ShouldBe(1);
        Bounds("vllm:time_to_first_token_seconds").ShouldBe(
            "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 160.0 640.0 2560.0 +Inf");
        Bounds("vllm:inter_token_latency_seconds").ShouldBe("0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 +Inf");
        Bounds("vllm:e2e_request_latency_seconds").ShouldBe(
            "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0 480.0 960.0 1920.0 7680.0 +Inf");
        Bounds("vllm:request_prompt_tokens").ShouldBe("1.0 2.0 5.0 10.0 20.0 50.0 100.0 200.0 +Inf");

        string Bounds(string histogram) => string.Join(' ', page
            .Where(line => line.StartsWith(histogram + "_bucket{", StringComparison.Ordinal)).Select(line => line.Split("le=\"")[1].Split('"')[0]));
    }

    [Fact]
    public async Task Access_lines_have_the_form_of_uvicorn_and_can_be_hidden()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--disable-access-log-for-endpoints", "/health,/ping");
        await simulator.Http.GetAsync("/health", TestContext.Current.CancellationToken);
        await simulator.Http.GetAsync("/v1/nothing?x=1", TestContext.Current.CancellationToken);

        await Deadline.UntilAsync(() => simulator.Output.Contains(" - \"GET /v1/nothing?x=1 HTTP/1.1\" 404 Not Found\n", StringComparison.Ordinal));
        simulator.Output.ShouldNotContain("GET /health");
    }

    [Fact]
    public async Task A_prompt_seen_before_hits_the_prefix_cache()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--enable-prompt-tokens-details");
        var request = $$"""{"prompt":"{{string.Join(' ', Enumerable.Repeat("the", 40))}}","max_tokens":1}""";

        await simulator.SendAsync("/v1/completions", request);
        var (_, second) = await simulator.SendAsync("/v1/completions", request);

        ((int)second["usage"]!["prompt_tokens_details"]!["cached_tokens"]!).ShouldBe(32);
        (await simulator.MetricAsync("vllm:prefix_cache_queries_total" + Labels)).ShouldBe(80);
    }
}
