using System.Net;
using System.Text.Json.Nodes;
using ModelHost.Simulator.Options;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

/// <summary>What a release of vLLM has and another has not.</summary>
public sealed class ReleaseTests
{
    private const string Chat = "/v1/chat/completions";

    private const string Hello = """{"messages":[{"role":"user","content":"Hello"}]}""";

    private const string Long = """{"messages":[{"role":"user","content":"Hello"}],"ignore_eos":true,"max_tokens":10000}""";

    [Theory]
    [InlineData("0.17.1", "--swap-space 4", true)]
    [InlineData("0.18.0", "--swap-space 4", false)]
    [InlineData("0.17.1", "--shutdown-timeout 30", false)]
    [InlineData("v0.18.0", "--shutdown-timeout 30", true)]
    [InlineData("0.11.0", "--task embed", true)]
    [InlineData("0.28.0", "--task embed", false)]
    [InlineData("0.11.0", "--disable-log-requests", true)]
    [InlineData("0.17.0", "--disable-log-requests", false)]
    [InlineData("0.28.0", "--max-num-queued-reqs 5", false)]
    [InlineData("0.29.0", "--max-num-queued-reqs 5", true)]
    [InlineData("0.29.0rc1", "--max-num-queued-tokens 5000", true)]
    [InlineData("0.27.1", "--sse-keep-alive-interval 5", false)]
    public async Task Flags_come_and_go(string version, string flag, bool known)
    {
        await using var simulator = RunningSimulator.Begin(Version(version), ["m", .. flag.Split(' ')]);

        if (known)
            await simulator.Server.Ready;
        else
            (await simulator.Exit).ShouldBe(2);
        simulator.Error.Contains("unrecognized arguments: " + flag, StringComparison.Ordinal).ShouldBe(!known);
    }

    [Theory]
    [InlineData("0.8.5", 0.9)]
    [InlineData("0.11.0", 0.9)]
    [InlineData("0.28.0", 0.92)]
    [InlineData("nightly", 0.92)]
    public void The_share_of_memory_that_is_taken_has_grown(string version, double utilization) =>
        ServerOptions.Read(["m"], Version(version)).GpuMemoryUtilization.ShouldBe(utilization);

    [Theory]
    [InlineData("0.20.2", 2867)]
    [InlineData("0.21.0", 2517)]
    public async Task Graphs_are_taken_off_the_cache_since_0_21(string version, int cacheMib)
    {
        var environment = Version(version);
        environment["VLLM_SIM_GPU_MEMORY_MIB"] = "6144";
        environment["VLLM_SIM_WEIGHT_MIB"] = "1638";

        await using var simulator = await RunningSimulator.StartWithAsync(environment, "m", "--gpu-memory-utilization", "0.9", "--max-model-len", "2048");

        simulator.Output.ShouldContain(string.Create(System.Globalization.CultureInfo.InvariantCulture, $"Available KV cache memory: {cacheMib / 1024.0:F2} GiB"));
    }

    [Theory]
    [InlineData("0.10.2", """{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}""")]
    [InlineData("0.11.0", """{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}""")]
    [InlineData("0.28.0", """{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}""")]
    public async Task Errors_were_flat_once(string version, string error)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Version(version), "m");

        using var response = await simulator.PostAsync(Chat, """{"model":"x","messages":[]}""");

        (await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)).ShouldBe(error);
        response.StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    [Theory]
    [InlineData("0.10.2", """{"object":"error","message":"Internal server error","type":"InternalServerError","param":null,"code":500}""")]
    [InlineData("0.28.0", """{"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}}""")]
    public async Task An_error_in_a_stream_has_the_shape_of_the_others(string version, string error)
    {
        var environment = Version(version);
        environment["VLLM_SIM_REQUEST_FAIL"] = "error";
        await using var simulator = await RunningSimulator.StartWithAsync(environment, "m");

        (await simulator.StreamAsync(Chat, Hello.Replace("}]", "}],\"stream\":true", StringComparison.Ordinal)))[^2].ShouldBe(error);
    }

    [Theory]
    [InlineData("m", "/v1/completions")]
    [InlineData("m", "/v1/responses")]
    [InlineData("m", "/inference/v1/generate")]
    [InlineData("m", "/v1/messages")]
    [InlineData("m", "/tokenize")]
    [InlineData("m", "/no/such/route")]
    [InlineData("openai/whisper-small", "/v1/audio/transcriptions")]
    [InlineData("BAAI/bge-m3", "/pooling")]
    [InlineData("BAAI/bge-m3", "/v2/embed")]
    public async Task Errors_were_flat_on_every_route(string model, string path)
    {
        foreach (var (version, members) in new[] { ("0.10.2", "object,message,type,param,code"), ("0.11.0", "error") })
        {
            await using var simulator = await RunningSimulator.StartWithAsync(Version(version), model);

            var (status, error) = await simulator.SendAsync(path, "{}");

            status.ShouldBeInRange(400, 404);
            error.AsObject().Select(member => member.Key).ShouldBe(members.Split(','));
        }
    }

    [Theory]
    [InlineData("/v1/completions", """{"prompt":"a","stream":true}""")]
    [InlineData("/inference/v1/generate", """{"token_ids":[1],"sampling_params":{},"stream":true}""")]
    public async Task An_error_in_a_stream_was_flat_on_every_route(string path, string body)
    {
        var environment = Version("0.10.2");
        environment["VLLM_SIM_REQUEST_FAIL"] = "error";
        await using var simulator = await RunningSimulator.StartWithAsync(environment, "m");

        (await simulator.StreamAsync(path, body))[^2]
            .ShouldBe("""{"object":"error","message":"Internal server error","type":"InternalServerError","param":null,"code":500}""");
    }

    [Theory]
    [InlineData("embed", "/v1/embeddings")]
    [InlineData("embedding", "/v1/embeddings")]
    [InlineData("classify", "/classify")]
    [InlineData("score", "/classify")]
    [InlineData("reward", "/classify")]
    public async Task A_task_decided_what_the_model_does(string task, string path)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Version("0.11.0"), "m", "--task", task);

        (await simulator.SendAsync(path, """{"input":"a"}""")).Status.ShouldBe(200);
        (await simulator.SendAsync(Chat, Hello)).Status.ShouldBe(404);
    }

    [Theory]
    [InlineData("m", "['generate']")]
    [InlineData("mistralai/Voxtral-Mini-3B-2507", "['generate', 'transcription']")]
    [InlineData("openai/whisper-small", "['transcription']")]
    [InlineData("BAAI/bge-m3", "['embed']")]
    [InlineData("BAAI/bge-reranker-v2-m3", "['classify']")]
    public async Task The_log_names_what_the_model_does(string model, string tasks)
    {
        await using var simulator = await RunningSimulator.StartAsync(model);

        simulator.Output.ShouldContain("Supported tasks: " + tasks);
    }

    [Theory]
    [InlineData("0.11.0", "reasoning_content")]
    [InlineData("0.16.0", "reasoning,reasoning_content")]
    [InlineData("0.17.0", "reasoning")]
    [InlineData("0.28.0", "reasoning")]
    public async Task Reasoning_changed_its_name(string version, string names)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Version(version), "m", "--reasoning-parser", "qwen3");

        var message = (await simulator.SendAsync(Chat, Hello)).Body["choices"]![0]!["message"]!.AsObject();

        message.Select(member => member.Key).Where(key => key.StartsWith("reasoning", StringComparison.Ordinal)).ShouldBe(names.Split(','));
        message.ContainsKey("tool_calls").ShouldBe(version != "0.28.0" && version != "0.18.0");
    }

    [Theory]
    [InlineData("0.11.0", 3)]
    [InlineData("0.28.0", 2)]
    public async Task Stream_options_alone_asked_for_usage_once(string version, int lastEvents)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Version(version), "m");

        var events = await simulator.StreamAsync(Chat, """{"messages":[],"stream":true,"stream_options":{},"max_tokens":1}""");

        // the role, the one token, [DONE], and the usage
        events.Length.ShouldBe(lastEvents + 1);
    }

    /// <summary>Members of a whole chat and of the first chunk of a streamed one, and its last chunks.</summary>
    [Theory]
    [InlineData("0.11.0", "token_ids", "prompt_tokens_details", "prompt_token_ids", false)]
    [InlineData("0.18.0", "token_ids", "completion_tokens_details", "prompt_token_ids", true)]
    [InlineData("0.28.0", "routed_experts", "completion_tokens_details", "prompt_text", true)]
    public async Task Answers_have_grown(string version, string choice, string usage, string opening, bool fingerprint)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Version(version), "m");

        var whole = (await simulator.SendAsync(Chat, Hello)).Body;
        var events = await simulator.StreamAsync(Chat, Hello.Replace("}]", "}],\"stream\":true", StringComparison.Ordinal));

        whole["choices"]![0]!.AsObject().Last().Key.ShouldBe(choice);
        whole["usage"]!.AsObject().Last().Key.ShouldBe(usage);
        (whole["system_fingerprint"] is not null).ShouldBe(fingerprint);
        JsonNode.Parse(events[0])!.AsObject().Last().Key.ShouldBe(opening);
        events[^2].Contains("system_fingerprint", StringComparison.Ordinal).ShouldBe(fingerprint);
    }

    [Fact]
    public async Task Usage_counts_the_tokens_of_reasoning()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--reasoning-parser", "qwen3");
        var request = Hello.Replace("}]", "}],\"n\":2,\"max_tokens\":8,\"ignore_eos\":true", StringComparison.Ordinal);

        var whole = (await simulator.SendAsync(Chat, request)).Body["usage"]!.ToJsonString();
        var events = await simulator.StreamAsync(Chat, request.Replace("\"n\"", "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"n\"", StringComparison.Ordinal));

        // the first half of each answer
        whole.ShouldBe("""{"prompt_tokens":10,"total_tokens":26,"completion_tokens":16,"prompt_tokens_details":null,"completion_tokens_details":{"reasoning_tokens":8}}""");
        JsonNode.Parse(events[^2])!["usage"]!.ToJsonString()
            .ShouldBe("""{"prompt_tokens":10,"total_tokens":26,"completion_tokens":16,"completion_tokens_details":{"reasoning_tokens":8}}""");
    }

    [Theory]
    [InlineData("0.11.0", 200)]
    [InlineData("0.28.0", 400)]
    public async Task Stop_strings_were_without_limit(string version, int status)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Version(version), "m");

        (await simulator.SendAsync(Chat, Hello.Replace("}]", "}],\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\"]", StringComparison.Ordinal))).Status.ShouldBe(status);
    }

    [Theory]
    [InlineData("0.11.0", "/v2/nothing", 404)]
    [InlineData("0.28.0", "/v2/nothing", 401)]
    [InlineData("0.11.0", "/v1/models", 401)]
    public async Task The_key_guards_more_in_newer_releases(string version, string path, int status)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Version(version), "m", "--api-key", "hush");

        using var response = await simulator.Http.GetAsync(path, TestContext.Current.CancellationToken);

        ((int)response.StatusCode).ShouldBe(status);
    }

    [Theory]
    [InlineData("0.10.2", "(EngineCore_0 pid=", "vLLM API server version 0.10.2", "Supported_tasks:", "Starting vLLM API server on http", "Model loading took 1.86 GiB and", "general shape")]
    [InlineData("0.11.0", "(EngineCore_DP0 pid=", "vLLM API server version 0.11.0", "Supported_tasks:", "Starting vLLM API server on http", "Model loading took 1.86 GiB and", "general shape")]
    [InlineData("0.17.1", "(EngineCore_DP0 pid=", "vLLM API server version 0.17.1", "Supported tasks:", "Starting vLLM server on http", "Model loading took 1.86 GiB memory and", "compile range (")]
    [InlineData("0.28.0", "(EngineCore pid=", "model   m", "Supported tasks:", "Starting vLLM server on http", "Model loading took 1.86 GiB memory and", "compile range (")]
    public async Task The_log_has_the_words_of_its_time(string version, params string[] texts)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Version(version), "m");

        foreach (var text in texts)
            simulator.Output.ShouldContain(text);
    }

    [Fact]
    public async Task The_logo_can_be_switched_off()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_DISABLE_LOG_LOGO"] = "1" }, "m");

        simulator.Output.ShouldContain("vLLM server version 0.28.0, serving model m");
        simulator.Output.ShouldNotContain("model   m");
    }

    [Fact]
    public async Task Before_0_12_a_request_kills_a_sleeping_engine()
    {
        await using var simulator = await StartSleepyAsync("0.11.0");
        await simulator.PostAsync("/sleep", "");

        (await simulator.SendAsync(Chat, Hello)).Status.ShouldBe(500);

        (await simulator.Exit.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken)).ShouldBe(1);
        simulator.Output.ShouldContain("CUDA error: an illegal memory access was encountered");
    }

    [Fact]
    public async Task Before_0_12_sleep_under_traffic_answers_200_and_kills_the_engine()
    {
        await using var simulator = await StartSleepyAsync("0.11.0");
        var request = simulator.SendAsync(Chat, Long);
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running{engine=\"0\",model_name=\"m\"}"), running => running == 1);

        using var sleep = await simulator.PostAsync("/sleep", "");

        sleep.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await request).Status.ShouldBe(500);
        (await simulator.Exit.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken)).ShouldBe(1);
    }

    [Theory]
    [InlineData("0.22.0", true)]
    [InlineData("0.23.0", false)]
    public async Task Up_to_0_22_a_request_after_a_partial_wake_kills_the_engine(string version, bool dies)
    {
        await using var simulator = await StartSleepyAsync(version);
        await simulator.PostAsync("/sleep?level=1", "");
        await simulator.PostAsync("/wake_up?tags=weights", "");

        var request = simulator.SendAsync(Chat, Hello);

        if (dies)
        {
            (await request).Status.ShouldBe(500);
            return;
        }
        await simulator.PostAsync("/wake_up?tags=kv_cache", "");
        (await request).Status.ShouldBe(200);
    }

    [Theory]
    [InlineData("0.17.1", false)]
    [InlineData("0.18.0", true)]
    public async Task Before_0_18_a_stop_loses_the_work_in_flight(string version, bool answered)
    {
        var environment = Version(version);
        environment["VLLM_SIM_ITL_MS"] = "20";
        await using var simulator = await RunningSimulator.StartWithAsync(environment, "m");
        var request = simulator.SendAsync(Chat, Long);
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"}"), tokens => tokens > 0);

        (await simulator.StopAsync()).ShouldBe(0);

        if (answered)
            ((string?)(await request).Body["choices"]![0]!["finish_reason"]).ShouldBe("abort");
        else
            await Should.ThrowAsync<HttpRequestException>(request);
        simulator.Output.Contains("[shutdown] API server: shutdown triggered", StringComparison.Ordinal).ShouldBe(answered);
    }

    private static Task<RunningSimulator> StartSleepyAsync(string version)
    {
        var environment = Version(version);
        (environment["VLLM_SERVER_DEV_MODE"], environment["VLLM_SIM_ITL_MS"]) = ("1", "10");
        return RunningSimulator.StartWithAsync(environment, "m", "--enable-sleep-mode");
    }

    private static Dictionary<string, string> Version(string version) => new() { ["VLLM_SIM_VERSION"] = version };
}
