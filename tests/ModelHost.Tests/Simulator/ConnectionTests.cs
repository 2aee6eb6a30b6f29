using System.Diagnostics;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

/// <summary>Connections between requests, and what becomes of requests when the engine or the process ends.</summary>
public sealed class ConnectionTests
{
    private const string Labels = "{engine=\"0\",model_name=\"m\"}";

    private const string Long = """{"messages":[{"role":"user","content":"Hello"}],"ignore_eos":true,"max_tokens":10000}""";

    private const string Completion = """{"prompt":"a","max_tokens":1,"stream":true}""";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task An_idle_connection_is_closed_after_its_time_and_not_before()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = "2" }, "m");
        // from before the server has the connection: it may have it long before this test goes on
        var idle = Stopwatch.StartNew();
        using var client = new TcpClient();
        await client.ConnectAsync(simulator.Http.BaseAddress!.Host, simulator.Http.BaseAddress.Port, Ct);
        using var reader = new StreamReader(client.GetStream());
        await client.GetStream().WriteAsync("GET /version HTTP/1.1\r\nHost: x\r\n\r\n"u8.ToArray(), Ct);

        (await reader.ReadToEndAsync(Ct)).ShouldEndWith("\"0.28.0\"}");

        idle.Elapsed.ShouldBeGreaterThan(TimeSpan.FromSeconds(1.9));
    }

    [Theory]
    [InlineData("0")]
    [InlineData("-1")]
    public async Task Times_that_are_none_close_connections_at_once_and_serve(string seconds)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = seconds }, "m");

        (await simulator.Http.GetStringAsync("/version", Ct)).ShouldBe("""{"version":"0.28.0"}""");
    }

    [Fact]
    public async Task A_request_may_take_longer_than_an_idle_connection_lives()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = "1", ["VLLM_SIM_TTFT_MS"] = "2500", ["VLLM_SIM_OUTPUT_TOKENS"] = "1" }, "m");

        (await simulator.SendAsync("/v1/chat/completions", """{"messages":[]}""")).Status.ShouldBe(200);
    }

    [Theory]
    [InlineData("/v1/chat/completions", """{"messages":[],"max_tokens":1,"stream":true}""", true)]
    [InlineData("/v1/completions", Completion, true)]
    [InlineData("/v1/responses", """{"input":"a","max_output_tokens":1,"stream":true}""", false)]
    public async Task A_stream_in_which_nothing_comes_has_comments_with_their_flag(string path, string body, bool comments)
    {
        var dev = new Dictionary<string, string> { ["VLLM_SERVER_DEV_MODE"] = "1" };
        await using var silent = await RunningSimulator.StartWithAsync(dev, "m");
        await using var talking = await RunningSimulator.StartWithAsync(dev, "m", "--sse-keep-alive-interval", "0.1");
        await BothAsync("/pause");

        using var first = await BeginAsync(silent, path, body);
        using var second = await BeginAsync(talking, path, body);
        // for as long as another stream, or this one, takes to have two comments
        using var third = comments ? null : await BeginAsync(talking, "/v1/completions", Completion);
        using var reader = new StreamReader(await (third ?? second).Content.ReadAsStreamAsync(Ct));
        var beginning = "";
        for (var line = 0; line < 4; line++)
            beginning += await reader.ReadLineAsync(Ct).AsTask().WaitAsync(TimeSpan.FromMinutes(2), Ct) + "\n";
        await BothAsync("/resume");
        var without = await first.Content.ReadAsStringAsync(Ct);
        var with = comments ? beginning + await reader.ReadToEndAsync(Ct) : await second.Content.ReadAsStringAsync(Ct);

        beginning.ShouldBe(": keep-alive\n\n: keep-alive\n\n");
        without.ShouldNotContain("\n:");
        without.ShouldNotStartWith(":");
        with.StartsWith(": keep-alive\n\n: keep-alive\n\n", StringComparison.Ordinal).ShouldBe(comments);
        with.Replace(": keep-alive\n\n", "", StringComparison.Ordinal).Split("\n\n").Length.ShouldBe(without.Split("\n\n").Length);

        async Task BothAsync(string call)
        {
            foreach (var simulator in (RunningSimulator[])[silent, talking])
            {
                using var answer = await simulator.PostAsync(call, "");
                answer.EnsureSuccessStatusCode();
            }
        }

        static Task<HttpResponseMessage> BeginAsync(RunningSimulator simulator, string path, string body) =>
            simulator.PostAsync(path, body, HttpCompletionOption.ResponseHeadersRead, Ct);
    }

    [Fact]
    public async Task A_client_that_leaves_a_stream_of_comments_ends_its_request()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_HANG"] = "request" }, "m", "--sse-keep-alive-interval", "0.02");
        var response = await simulator.PostAsync(
            "/v1/chat/completions", Long.Replace("}]", "}],\"stream\":true", StringComparison.Ordinal), HttpCompletionOption.ResponseHeadersRead, Ct);
        using (var reader = new StreamReader(await response.Content.ReadAsStreamAsync(Ct)))
            (await reader.ReadLineAsync(Ct)).ShouldBe(": keep-alive");

        response.Dispose();

        await Deadline.UntilAsync(
            () => simulator.MetricAsync("vllm:request_success_total{engine=\"0\",finished_reason=\"abort\",model_name=\"m\"}"), aborts => aborts == 1);
    }

    [Fact]
    public async Task An_engine_that_dies_under_a_stream_says_so_in_an_event_before_done()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_EXIT_AFTER"] = "1", ["VLLM_SIM_ITL_MS"] = "10" }, "m");
        var stream = simulator.StreamAsync("/v1/chat/completions", Long.Replace("}]", "}],\"stream\":true", StringComparison.Ordinal));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:generation_tokens_total" + Labels), tokens => tokens > 0);

        await simulator.SendAsync("/v1/chat/completions", """{"messages":[],"max_tokens":1}""");

        var events = await stream;
        events[^2].ShouldStartWith("""{"error":{"message":"EngineCore encountered an issue""");
        events[^2].ShouldEndWith(""","type":"InternalServerError","param":null,"code":500}}""");
        events[^1].ShouldBe("[DONE]");
    }

    [Fact]
    public async Task A_second_signal_does_not_hasten_the_stop_and_new_requests_end_as_aborted()
    {
        using var process = SimulatorProcess.Start(new() { ["VLLM_SIM_ITL_MS"] = "20" }, "m", "--shutdown-timeout", "120");
        await process.ReadyAsync();
        using var http = new HttpClient { BaseAddress = process.Url };
        using var first = await AskAsync(Long.Replace("10000", "600", StringComparison.Ordinal).Replace("}]", "}],\"stream\":true", StringComparison.Ordinal));
        using var reader = new StreamReader(await first.Content.ReadAsStreamAsync(Ct));
        (await reader.ReadLineAsync(Ct)).ShouldNotBeNull();

        process.Signal(PosixSignal.SIGTERM);
        await Deadline.UntilAsync(() => process.Output.Contains("EngineCore: start mode=drain timeout=120", StringComparison.Ordinal));
        process.Signal(PosixSignal.SIGTERM);
        using var second = await AskAsync(Long);
        using var health = await http.GetAsync("/health", Ct);

        ((int)health.StatusCode).ShouldBe(200);
        (await second.Content.ReadAsStringAsync(Ct)).ShouldContain("\"finish_reason\":\"abort\"");
        var rest = await reader.ReadToEndAsync(Ct);
        rest.ShouldContain("\"finish_reason\":\"length\"");
        rest.ShouldEndWith("data: [DONE]\n\n");
        (await process.ExitCodeAsync()).ShouldBe(0);

        Task<HttpResponseMessage> AskAsync(string body) => http.SendAsync(
            new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(body, Encoding.UTF8, "application/json") },
            HttpCompletionOption.ResponseHeadersRead, Ct);
    }
}
