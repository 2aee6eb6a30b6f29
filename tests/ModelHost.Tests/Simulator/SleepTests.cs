using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

public sealed class SleepTests : IDisposable
{
    private const string Chat = "/v1/chat/completions";

    private const string Hello = """{"messages":[{"role":"user","content":"Hello"}]}""";

    private const string Long = """{"messages":[{"role":"user","content":"Hello"}],"ignore_eos":true,"max_tokens":10000}""";

    private const string Labels = "{engine=\"0\",model_name=\"m\"}";

    private readonly string _directory = Directory.CreateTempSubdirectory("modelhost-sleep-").FullName;

    public SleepTests() => File.WriteAllText(Path.Combine(_directory, "gpus.csv"), "0,GPU-a,NVIDIA L4,24576\n1,GPU-b,NVIDIA L4,24576\n");

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Theory]
    [InlineData("POST", "/sleep")]
    [InlineData("POST", "/wake_up")]
    [InlineData("GET", "/is_sleeping")]
    [InlineData("POST", "/collective_rpc")]
    [InlineData("POST", "/pause")]
    [InlineData("GET", "/server_info")]
    public async Task Without_the_variable_the_dev_routes_are_not_there(string method, string path)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--enable-sleep-mode");

        (await CallAsync(simulator, method, path)).ShouldBe((404, """{"error":{"message":"Not Found","type":"Not Found","param":null,"code":404}}"""));
    }

    [Theory]
    [InlineData("/sleep", 1100, 2000, "weights_offloaded")]
    [InlineData("/sleep?level=2", 1100, 0, "discard_all")]
    [InlineData("/sleep?tags=kv_cache", 3100, 0, "weights_offloaded")]
    [InlineData("/sleep?level=0", 12288, 0, null)]
    public async Task Sleep_gives_memory_back_until_the_wake(string path, int heldMib, int ramMib, string? state)
    {
        await using var simulator = await StartAsync();
        HeldMib().ShouldBe(12288);

        (await CallAsync(simulator, "POST", path)).ShouldBe((200, ""));

        (HeldMib(), RamMib()).ShouldBe((heldMib, ramMib));
        (await CallAsync(simulator, "GET", "/is_sleeping")).ShouldBe((200, """{"is_sleeping":true}"""));
        (await CallAsync(simulator, "GET", "/health")).ShouldBe((200, ""));
        foreach (var name in new[] { "awake", "weights_offloaded", "discard_all" })
            (await StateAsync(simulator, name)).ShouldBe(name == state ? 1 : 0, name);

        (await CallAsync(simulator, "POST", "/wake_up")).ShouldBe((200, ""));

        (HeldMib(), RamMib()).ShouldBe((12288, 0));
        (await CallAsync(simulator, "GET", "/is_sleeping")).ShouldBe((200, """{"is_sleeping":false}"""));
        (await StateAsync(simulator, "awake")).ShouldBe(1);
    }

    [Fact]
    public async Task A_partial_wake_shows_awake_while_requests_wait_on()
    {
        await using var simulator = await StartAsync();
        await CallAsync(simulator, "POST", "/sleep?level=1");
        var request = simulator.SendAsync(Chat, Hello);
        await Deadline.UntilAsync(() => LoadAsync(simulator), load => load == 1);

        await CallAsync(simulator, "POST", "/wake_up?tags=weights");

        (await StateAsync(simulator, "awake")).ShouldBe(1);
        (await CallAsync(simulator, "GET", "/is_sleeping")).Body.ShouldBe("""{"is_sleeping":true}""");
        request.IsCompleted.ShouldBeFalse();

        await CallAsync(simulator, "POST", "/wake_up?tags=kv_cache");

        (await request).Status.ShouldBe(200);
        (await CallAsync(simulator, "GET", "/is_sleeping")).Body.ShouldBe("""{"is_sleeping":false}""");
    }

    [Fact]
    public async Task Level_2_answers_nonsense_until_the_weights_are_reloaded()
    {
        await using var simulator = await StartAsync([], "-tp", "2");
        var before = Text((await simulator.SendAsync(Chat, Hello)).Body);
        await CallAsync(simulator, "POST", "/sleep?level=2");
        await CallAsync(simulator, "POST", "/wake_up");

        var broken = Text((await simulator.SendAsync(Chat, Hello)).Body);
        var reload = await CallAsync(simulator, "POST", "/collective_rpc", """{"method":"reload_weights"}""");

        broken.ShouldMatch("^!+$");
        reload.ShouldBe((200, """{"results":[null,null]}"""));
        Text((await simulator.SendAsync(Chat, Hello)).Body).ShouldBe(before);
    }

    [Theory]
    [InlineData("{}", "Missing 'method' in request body")]
    [InlineData("{", "JSON decode error")]
    public async Task A_call_into_the_workers_needs_a_method(string body, string message)
    {
        await using var simulator = await StartAsync();

        var (status, text) = await CallAsync(simulator, "POST", "/collective_rpc", body);

        status.ShouldBe(400);
        ((string?)JsonNode.Parse(text)!["error"]!["message"])!.ShouldContain(message);
    }

    [Theory]
    [InlineData("abort", "10000", "abort")]
    [InlineData("wait", "30", "length")]
    [InlineData("keep", "1000", "length")] // still under way when the engine falls asleep, however long that request takes to come
    public async Task Requests_in_flight_end_as_the_mode_says(string mode, string tokens, string finish)
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_ITL_MS"] = "10" });
        var request = simulator.SendAsync(Chat, Long.Replace("10000", tokens, StringComparison.Ordinal));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:generation_tokens_total" + Labels), made => made > 0);

        await CallAsync(simulator, "POST", $"/sleep?mode={mode}");

        if (mode == "keep")
        {
            request.IsCompleted.ShouldBeFalse();
            await CallAsync(simulator, "POST", "/wake_up");
        }
        ((string?)(await request).Body["choices"]![0]!["finish_reason"]).ShouldBe(finish);
    }

    [Theory]
    [InlineData("refuse", 500, true, 1100)]
    [InlineData("garble", 200, false, 12288)]
    public async Task Waking_fails_as_asked(string failure, int status, bool asleep, int heldMib)
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_WAKE"] = failure });
        await CallAsync(simulator, "POST", "/sleep");

        var (answered, body) = await CallAsync(simulator, "POST", "/wake_up");

        answered.ShouldBe(status);
        (await CallAsync(simulator, "GET", "/is_sleeping")).Body.ShouldBe(asleep ? """{"is_sleeping":true}""" : """{"is_sleeping":false}""");
        HeldMib().ShouldBe(heldMib);
        if (asleep)
            body.ShouldBe("""{"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}}""");
        else
            Text((await simulator.SendAsync(Chat, Hello)).Body).ShouldMatch("^!+$");
    }

    [Fact]
    public async Task A_wake_that_hangs_is_never_answered()
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_WAKE"] = "hang" });
        await CallAsync(simulator, "POST", "/sleep");
        using var limit = new CancellationTokenSource(TimeSpan.FromMilliseconds(200));

        await Should.ThrowAsync<OperationCanceledException>(simulator.PostAsync("/wake_up", "", HttpCompletionOption.ResponseContentRead, limit.Token));

        (await CallAsync(simulator, "GET", "/is_sleeping")).Body.ShouldBe("""{"is_sleeping":true}""");
    }

    [Theory]
    [InlineData("/sleep?level=1", 0.17, 0.37)]
    [InlineData("/sleep?level=2", 0, 0)]
    public async Task Sleep_and_wake_take_the_time_of_the_weights(string path, double sleepSeconds, double wakeSeconds)
    {
        // 2000 MiB of weights are 2.097 GB; timers run on a coarse clock and may end some milliseconds early
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_SLEEP_GBPS"] = "10", ["VLLM_SIM_WAKE_GBPS"] = "5" });

        await CallAsync(simulator, "POST", path);
        await CallAsync(simulator, "POST", "/wake_up");

        Seconds(@"It took ([\d.]+) seconds to fall asleep").ShouldBeGreaterThanOrEqualTo(sleepSeconds);
        Seconds(@"It took ([\d.]+) seconds to wake up tags").ShouldBeGreaterThanOrEqualTo(wakeSeconds);

        double Seconds(string pattern) => double.Parse(Regex.Match(simulator.Output, pattern).Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture);
    }

    [Fact]
    public async Task Asleep_another_sleep_and_awake_another_wake_change_nothing()
    {
        await using var simulator = await StartAsync();

        (await CallAsync(simulator, "POST", "/wake_up")).ShouldBe((200, ""));
        await CallAsync(simulator, "POST", "/sleep");
        (await CallAsync(simulator, "POST", "/sleep")).ShouldBe((200, ""));

        (HeldMib(), RamMib()).ShouldBe((1100, 2000));
        await CallAsync(simulator, "POST", "/wake_up");
        (await simulator.SendAsync(Chat, Hello)).Status.ShouldBe(200);
    }

    [Fact]
    public async Task A_leak_is_held_in_sleep_and_the_log_tells_what_was_freed()
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_SLEEP_LEAK_MIB"] = "3000" });

        await CallAsync(simulator, "POST", "/sleep");

        HeldMib().ShouldBe(4100);
        simulator.Output.ShouldContain("Sleep mode freed 8.00 GiB memory, 4.00 GiB memory is still in use.");
        simulator.Output.ShouldContain(" seconds to fall asleep");
    }

    [Theory]
    [InlineData("refuse", false)]
    [InlineData("die", true)]
    public async Task Waking_needs_the_memory_back(string knob, bool dies)
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_WAKE_WITHOUT_MEMORY"] = knob });
        await CallAsync(simulator, "POST", "/sleep");
        await using var other = await StartAsync([], "--gpu-memory-utilization", "0.9");

        (await CallAsync(simulator, "POST", "/wake_up")).Status.ShouldBe(500);

        if (dies)
            (await simulator.Exit.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken)).ShouldBe(1);
        else
            (await CallAsync(simulator, "GET", "/is_sleeping")).Body.ShouldBe("""{"is_sleeping":true}""");
    }

    [Fact]
    public async Task Sleep_with_too_little_ram_is_ended_by_the_kernel()
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_RAM_MIB"] = "1999" });

        await Should.ThrowAsync<HttpRequestException>(CallAsync(simulator, "POST", "/sleep"));

        (await simulator.Exit.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken)).ShouldBe(137);
    }

    [Fact]
    public async Task Pause_holds_requests_until_resume()
    {
        await using var simulator = await StartAsync();

        (await CallAsync(simulator, "POST", "/pause?mode=wait")).ShouldBe((200, """{"status":"paused"}"""));
        (await CallAsync(simulator, "GET", "/is_paused")).ShouldBe((200, """{"is_paused":true}"""));
        var request = simulator.SendAsync(Chat, Hello);
        await Deadline.UntilAsync(() => LoadAsync(simulator), load => load == 1);
        (await CallAsync(simulator, "POST", "/resume")).ShouldBe((200, """{"status":"resumed"}"""));

        (await request).Status.ShouldBe(200);
        (await CallAsync(simulator, "GET", "/is_paused")).ShouldBe((200, """{"is_paused":false}"""));
        (await CallAsync(simulator, "POST", "/pause?mode=nap")).ShouldBe((400, """{"error":"Invalid pause mode: nap"}"""));
    }

    [Fact]
    public async Task Requests_are_aborted_by_their_ids()
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_ITL_MS"] = "10" });
        simulator.Http.DefaultRequestHeaders.Add("X-Request-Id", "one");
        var request = simulator.SendAsync(Chat, Long);
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:generation_tokens_total" + Labels), tokens => tokens > 0);

        (await CallAsync(simulator, "POST", "/abort_requests", """{"request_ids":["chatcmpl-two"]}""")).ShouldBe((200, """{"status":"aborted","aborted":0}"""));
        (await CallAsync(simulator, "POST", "/abort_requests", """{"request_ids":["chatcmpl-one"]}""")).ShouldBe((200, """{"status":"aborted","aborted":1}"""));

        ((string?)(await request).Body["choices"]![0]!["finish_reason"]).ShouldBe("abort");
    }

    [Theory]
    [InlineData("POST", "/reset_prefix_cache", "")]
    [InlineData("POST", "/reset_mm_cache", "")]
    [InlineData("POST", "/reset_encoder_cache", "")]
    [InlineData("GET", "/get_world_size", """{"world_size":1}""")]
    public async Task Small_dev_routes_answer(string method, string path, string body)
    {
        await using var simulator = await StartAsync();

        (await CallAsync(simulator, method, path)).ShouldBe((200, body));
    }

    [Fact]
    public async Task Server_information_leaves_keys_out()
    {
        await using var simulator = await StartAsync(new() { ["VLLM_API_KEY"] = "hush" });

        var info = JsonNode.Parse((await CallAsync(simulator, "GET", "/server_info?config_format=json")).Body)!;

        info.AsObject().Select(member => member.Key).ShouldBe(["vllm_config", "vllm_env", "system_env"]);
        info["vllm_env"]!.ToJsonString().ShouldBe("""{"VLLM_SERVER_DEV_MODE":"1"}""");
    }

    private Task<RunningSimulator> StartAsync() => StartAsync([]);

    private Task<RunningSimulator> StartAsync(Dictionary<string, string> knobs, params string[] flags)
    {
        var environment = new Dictionary<string, string>
        {
            ["VLLM_SERVER_DEV_MODE"] = "1",
            ["VLLM_SIM_GPU_DIR"] = _directory,
            ["VLLM_SIM_WEIGHT_MIB"] = "2000",
            ["VLLM_SIM_MODEL_MAX_LEN"] = "16384",
            ["VLLM_SIM_SLEEP_GBPS"] = "50",
            ["VLLM_SIM_WAKE_GBPS"] = "50",
        };
        foreach (var (name, value) in knobs)
            environment[name] = value;
        return RunningSimulator.StartWithAsync(environment, [.. new[] { "m", "--enable-sleep-mode", "--enable-server-load-tracking", "--gpu-memory-utilization", "0.5" }, .. flags]);
    }

    private static async Task<(int Status, string Body)> CallAsync(RunningSimulator simulator, string method, string path, string? body = null)
    {
        using var request = new HttpRequestMessage(new(method), path) { Content = body is null ? null : new StringContent(body) };
        using var response = await simulator.Http.SendAsync(request, TestContext.Current.CancellationToken);
        return ((int)response.StatusCode, await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
    }

    /// <summary>Requests under way. The gauges do not tell: a sleeping engine leaves them as they are.</summary>
    private static async Task<int> LoadAsync(RunningSimulator simulator) =>
        (int)JsonNode.Parse((await CallAsync(simulator, "GET", "/load")).Body)!["server_load"]!;

    private static Task<double> StateAsync(RunningSimulator simulator, string state) =>
        simulator.MetricAsync($"vllm:engine_sleep_state{{engine=\"0\",model_name=\"m\",sleep_state=\"{state}\"}}");

    private static string Text(JsonNode body) => (string)body["choices"]![0]!["message"]!["content"]!;

    private int HeldMib() => Read("holds", 3);

    private int RamMib() => Read("ram", 2);

    private int Read(string folder, int field)
    {
        var path = Path.Combine(_directory, folder);
        if (!Directory.Exists(path) || Directory.GetFiles(path) is not [var file])
            return 0;
        using var reader = new StreamReader(new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        return int.Parse(reader.ReadLine()!.Split(',')[field]);
    }
}
