using System.Net;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

public sealed class FailureTests
{
    private const string Chat = "/v1/chat/completions";

    private const string Hello = """{"messages":[{"role":"user","content":"Hello"}]}""";

    private const string Stream = """{"messages":[{"role":"user","content":"Hello"}],"stream":true}""";

    private const string Internal = """{"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}}""";

    [Fact]
    public async Task An_error_in_a_stream_is_an_event_before_done()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_REQUEST_FAIL"] = "error", ["VLLM_SIM_REQUEST_FAIL_AFTER"] = "2" }, "m");

        var events = await simulator.StreamAsync(Chat, Stream);

        events.Length.ShouldBe(5);
        events[^2].ShouldBe(Internal);
        events[^1].ShouldBe("[DONE]");
        (await simulator.MetricAsync("vllm:request_success_total{engine=\"0\",finished_reason=\"error\",model_name=\"m\"}")).ShouldBe(1);
    }

    [Fact]
    public async Task An_error_without_a_stream_is_a_500()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_REQUEST_FAIL"] = "error" }, "m");

        using var response = await simulator.PostAsync(Chat, Hello);

        ((int)response.StatusCode).ShouldBe(500);
        (await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)).ShouldBe(Internal);
    }

    [Theory]
    [InlineData(Stream)]
    [InlineData(Hello)]
    public async Task A_cut_connection_ends_without_done(string body)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_REQUEST_FAIL"] = "cut" }, "m");

        await Should.ThrowAsync<HttpRequestException>(simulator.PostAsync(Chat, body));

        (await simulator.Http.GetAsync("/health", TestContext.Current.CancellationToken)).StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task A_stalled_stream_sends_its_first_tokens_and_nothing_more()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_REQUEST_FAIL"] = "stall", ["VLLM_SIM_REQUEST_FAIL_AFTER"] = "1" }, "m");
        using var response = await simulator.PostAsync(Chat, Stream, HttpCompletionOption.ResponseHeadersRead, TestContext.Current.CancellationToken);
        using var reader = new StreamReader(await response.Content.ReadAsStreamAsync(TestContext.Current.CancellationToken));

        for (var line = 0; line < 4; line++)
            (await reader.ReadLineAsync(TestContext.Current.CancellationToken)).ShouldNotBeNull();
        var next = reader.ReadLineAsync(TestContext.Current.CancellationToken).AsTask();

        (await Task.WhenAny(next, Task.Delay(200, TestContext.Current.CancellationToken))).ShouldNotBe(next);
    }

    [Theory]
    [InlineData("VLLM_SIM_BUSY_RATE", 503)]
    [InlineData("VLLM_SIM_REQUEST_FAIL_RATE", 500)]
    public async Task A_rate_fails_the_same_requests_every_time(string knob, int status)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { [knob] = "50", ["VLLM_SIM_REQUEST_FAIL"] = status == 500 ? "error" : "" }, "m");

        var statuses = new List<int>();
        for (var i = 0; i < 4; i++)
            statuses.Add((await simulator.SendAsync(Chat, Hello)).Status);

        statuses.ShouldBe([200, status, 200, status]);
    }

    [Fact]
    public async Task A_dead_engine_answers_503_and_then_the_process_exits()
    {
        var dying = new Dictionary<string, string> { ["VLLM_SIM_EXIT_AFTER"] = "1", ["VLLM_SIM_EXIT_CODE"] = "7" };
        // one that stays can be asked whenever that is; the other may be gone by then
        await using var staying = await RunningSimulator.StartWithAsync(new(dying) { ["VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"] = "1" }, "m");
        await using var leaving = await RunningSimulator.StartWithAsync(dying, "m");

        await staying.SendAsync(Chat, Hello);
        await leaving.SendAsync(Chat, Hello);

        await Deadline.UntilAsync(() => staying.Http.GetAsync("/health", TestContext.Current.CancellationToken), health => (int)health.StatusCode == 503);
        (await leaving.Exit.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken)).ShouldBe(7);
        (await staying.StopAsync()).ShouldBe(7);
    }

    [Fact]
    public async Task Told_to_stay_it_answers_errors_after_the_death()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_EXIT_AFTER"] = "1", ["VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"] = "1", ["VLLM_SIM_DEATH_MS"] = "0" }, "m");
        await simulator.SendAsync(Chat, Hello);
        await Deadline.UntilAsync(() => simulator.Output.Contains("EngineDeadError", StringComparison.Ordinal));

        var (status, body) = await simulator.SendAsync(Chat, Hello);

        status.ShouldBe(500);
        ((string?)body["error"]!["message"])!.ShouldStartWith("EngineCore encountered an issue");
        simulator.Exit.IsCompleted.ShouldBeFalse();
    }
}
