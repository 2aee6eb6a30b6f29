using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Runtimes;
using ModelHost.Cluster;
using ModelHost.Gateway;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Backends;

/// <summary>gRPC backends as deployments: asked for, loaded or refused, watched, shut down, taken over.</summary>
public sealed class BackendDeploymentTests(NodeScripts scripts) : IDisposable
{
    private const string Python = "python-backend";
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);
    private readonly TestNode _node = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public void Dispose() => _node.Dispose();

    [Fact]
    public async Task A_backend_is_a_deployment_like_any_other()
    {
        await using var host = await StartAsync();
        var id = await host.Client.ServeAsync(TestBackends.Request(1, Python, engineArgs: new() { ["served_model_name"] = "tiny-chat", ["options"] = new JsonArray("mark:free") }));

        var deployment = await host.Client.JsonAsync($"/api/deployments/{id}");
        deployment.GetProperty("backend").GetString().ShouldBe(Python);
        (await host.Client.JsonAsync("/v1/models")).GetProperty("data").EnumerateArray().Select(model => model.GetProperty("id").GetString()).ShouldBe(["tiny-chat"]);
        (await host.Client.JsonAsync("/system")).ToString().ShouldBe("""{"backends":["python-backend","simulator"],"loaded_models":[{"id":"tiny-chat","backend":"python-backend"}]}""");
        await host.Client.LoadedAsync(id);
        await host.Client.StopModelAsync(id);
        File.Exists(Path.Combine(_node.Data, "models", "freed")).ShouldBeTrue();
        Directory.GetFiles(Path.Combine(_node.Data, "engines")).ShouldBeEmpty();
    }

    [Fact]
    public async Task Options_of_the_deployment_are_loaded_with_the_model()
    {
        await using var host = await StartAsync();
        await host.Client.ServeAsync(TestBackends.Request(1, Python, "org/tiny.gguf", engineArgs: new()
        {
            ["context_size"] = 8192,
            ["gpu_layers"] = 7,
            ["threads"] = 3,
            ["f16"] = true,
            ["mmap"] = false,
            ["mmproj"] = "org/eyes.gguf",
            ["cache_type_k"] = "q8_0",
            ["flash_attention"] = false,
            ["lora_adapters"] = new JsonArray("a", "b"),
            ["lora_scales"] = new JsonArray(0.5, 1),
            ["options"] = new JsonArray("reasoning:low", "a:b c"),
            ["engine_args"] = new JsonObject { ["max_num_seqs"] = 4 },
            ["DType"] = "bfloat16",
        }));

        var reply = await host.Backend("org/tiny.gguf").PredictAsync(new PredictOptions { Prompt = "options" }, s_limit, Ct);

        var models = Path.Combine(_node.Data, "models");
        var loaded = JsonNode.Parse(reply.Message.ToStringUtf8())!;
        JsonNode.DeepEquals(loaded, new JsonObject
        {
            ["Model"] = "org/tiny.gguf",
            ["ContextSize"] = 8192,
            ["NBatch"] = 512,
            ["F16Memory"] = true,
            ["NGPULayers"] = 7,
            ["Threads"] = 3,
            ["ModelFile"] = $"{models}/org/tiny.gguf",
            ["MMProj"] = $"{models}/org/eyes.gguf",
            ["GPUMemoryUtilization"] = 0.4,
            ["FlashAttention"] = "false",
            ["ModelPath"] = models,
            ["LoraAdapters"] = new JsonArray("a", "b"),
            ["LoraScales"] = new JsonArray(0.5, 1),
            ["Options"] = new JsonArray("reasoning:low", "a:b c"),
            ["CacheTypeKey"] = "q8_0",
            ["DType"] = "bfloat16",
            ["EngineArgs"] = """{"max_num_seqs":4}""",
        }).ShouldBeTrue(loaded.ToString());
    }

    [Theory]
    [InlineData("bad-model", null, "load_failed", "The backend could not load the model: cannot load bad-model: no such file")]
    [InlineData("tiny", "raise:on_load", "load_failed", "the weights are not what they seem")]
    [InlineData("tiny", "die:on_load", "engine_exited", "exit code 7")]
    [InlineData("tiny", "hang:on_load", "load_timeout", "within 2 s")]
    public async Task A_model_that_cannot_be_loaded_is_an_error_and_leaves_no_process(string model, string? option, string code, string message)
    {
        await using var host = await StartAsync($"Node:BackendLoadTimeout=00:00:{(code == "load_timeout" ? 2 : 30):00}", "Lifecycle:RelaunchDelay=00:00:00.050");
        var request = TestBackends.Request(1, Python, model, engineArgs: new() { ["options"] = new JsonArray(option is null ? [] : [option]) });
        request["max_failed_restarts"] = 2;
        var id = await host.Client.StartModelAsync(request);

        var failed = await host.Client.StatusAsync(id, "error", 120);

        failed.GetProperty("error_code").GetString().ShouldBe(code);
        failed.GetProperty("last_error").GetString().ShouldNotBeNull().ShouldContain(message);
        await Deadline.UntilAsync(() => Sidecars().All(sidecar => !sidecar.IsAlive), what: "its process to end");
        (await host.Client.GetAsync(new Uri("/backend/monitor?model=" + model, UriKind.Relative), Ct)).StatusCode.ShouldBeOneOf(HttpStatusCode.OK, HttpStatusCode.InternalServerError);
    }

    [Theory]
    [InlineData("backend", "nobody-has-this", "backend", "'nobody-has-this' is not installed on node")]
    [InlineData("backend", "../evil", "backend", "no name of an installed backend")]
    [InlineData("extra_args", """["--addr", "0.0.0.0:1"]""", "extra_args", "takes its options by engine_args alone")]
    [InlineData("vllm_version", "0.9.0", "vllm_version", "has the version that is installed")]
    [InlineData("lora_modules", """[{"name": "a", "path": "org/a"}]""", "lora_modules", "serves no adapters by names of their own")]
    [InlineData("engine_args", """{"contxt_size": 1}""", "engine_args", "'contxt_size' is no option of gRPC backends")]
    [InlineData("engine_args", """{"context_size": "many"}""", "engine_args", "'context_size' takes a whole number")]
    [InlineData("engine_args", """{"context_size": 3000000000}""", "engine_args", "'context_size' takes a whole number")]
    [InlineData("engine_args", """{"options": "a:b"}""", "engine_args", "'options' takes a list: a text each")]
    [InlineData("engine_args", """{"mmproj": "../../etc/passwd"}""", "engine_args", "'mmproj' leads out of its folder")]
    [InlineData("engine_args", """{"model_path": "/etc"}""", "engine_args", "'model_path' is no option of gRPC backends, or is set by ModelHost")]
    [InlineData("engine_args", """{"proxy": {"upstream_url": "http://x"}}""", "engine_args", "is set by ModelHost")]
    [InlineData("env_vars", """[{"key": "LD_PRELOAD", "value": "x"}]""", "env_vars", "'LD_PRELOAD' may not be set")]
    [InlineData("env_vars", """[{"key": "LOCALAI_GRPC_AUTH_TOKEN", "value": "x"}]""", "env_vars", "is set by ModelHost")]
    public async Task What_a_backend_cannot_take_is_refused(string field, string value, string at, string message)
    {
        await using var host = await StartAsync();
        var request = TestBackends.Request(1, Python);
        request[field] = value[0] is '[' or '{' ? JsonNode.Parse(value) : value;

        using var answer = await host.Client.PostAsJsonAsync("/api/deployments/start", request, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        var problem = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        problem.GetProperty("errors").GetProperty(at)[0].GetString().ShouldNotBeNull().ShouldContain(message);
    }

    [Fact]
    public async Task A_backend_outlives_the_host_and_is_not_loaded_twice()
    {
        int id;
        string run;
        await using (var first = await StartAsync())
        {
            id = await first.Client.ServeAsync(TestBackends.Request(1, Python));
            run = first.Route().RunId;
        }

        await using var second = await ControlPlane.StartAsync(_node);

        await second.Client.StatusAsync(id, "running");
        await Deadline.UntilAsync(() => second.Services.GetRequiredService<RouteSource>().Current.Find("tiny").Route is { IsRoutable: true });
        second.Route().RunId.ShouldBe(run);
        (await second.Backend().PredictAsync(new PredictOptions { Prompt = "still here" }, s_limit, Ct)).Message.ToStringUtf8().ShouldBe("echo still here");
        (await second.Client.LoadedAsync(id)).ShouldBe(1);
        await second.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task The_end_of_the_agent_s_process_neither_ends_a_backend_nor_its_model()
    {
        await using var host = await ControlPlane.StartAsync();
        await _node.InstallAsync(scripts, Python);
        using var made = await host.Client.PostAsJsonAsync("/api/nodes/join-tokens", new { ttl_minutes = 60 }, Ct);
        var token = (await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("token").GetString()!;
        string[] agent = ["node", "--data", _node.Data, "--name", "gpu-1", "--listen", $"127.0.0.1:{TestPorts.Free()}",
            .. _node.Configuration.Where(setting => setting.StartsWith("Node:", StringComparison.Ordinal))];
        await using var first = ModelHostProcess.Start(
            [.. agent, "--join", $"127.0.0.1:{host.Services.GetRequiredService<ClusterListener>().Port}", "--token", token]);
        await first.ListeningAsync();
        var node = await Deadline.UntilAsync(
            async () => (await host.Client.JsonAsync("/api/nodes")).EnumerateArray().FirstOrDefault(node => node.GetProperty("hostname").GetString() == "gpu-1"),
            node => node.ValueKind == JsonValueKind.Object && node.GetProperty("status").GetString() == "online" && node.GetProperty("available_runtimes").GetRawText().Contains("process", StringComparison.Ordinal), 60);
        var id = await host.Client.ServeAsync(TestBackends.Request(node.GetProperty("id").GetInt32(), Python));
        var run = host.Route().RunId;

        await first.KillAsync();
        await using var second = ModelHostProcess.Start(agent);
        await second.ListeningAsync();

        await Deadline.UntilAsync(async () =>
        {
            try
            {
                return (await host.Backend().PredictAsync(new PredictOptions { Prompt = "still here" }, s_limit, Ct)).Message.ToStringUtf8();
            }
            catch (Exception e) when (e is RpcException or ShouldAssertException)
            {
                return e.Message;
            }
        }, text => text == "echo still here", 90);
        host.Route().RunId.ShouldBe(run);
        (await host.Client.LoadedAsync(id)).ShouldBe(1);
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task The_monitor_says_what_the_backend_said_and_a_hung_one_delays_nobody()
    {
        await using var host = await StartAsync();
        var (client, told) = (host.Client, new JsonObject { ["options"] = new JsonArray("busy:status") });
        await client.ServeAsync(TestBackends.Request(1, Python));
        await client.ServeAsync(TestBackends.Request(1, Python, "hung", 8102, new() { ["options"] = new JsonArray("hang:status") }));
        await client.ServeAsync(TestBackends.Request(1, Python, "busy", 8103, told));
        await client.ServeAsync(TestBackends.Request(1, Python, "broken", 8104, new() { ["options"] = new JsonArray("error:status") }));
        await client.ServeAsync(TestBackends.Request(1, Python, "mute", 8105, new() { ["options"] = new JsonArray("no:status") }));
        await host.Backend().PredictAsync(new PredictOptions { Prompt = "three more words" }, s_limit, Ct);

        var ready = await Deadline.UntilAsync(() => client.MonitorAsync(), status => status.GetProperty("memory").GetProperty("breakdown").TryGetProperty("weights", out _) && status.TryGetProperty("memory_info", out _));
        (State(ready), ready.GetProperty("memory").GetRawText()).ShouldBe((2, """{"total":1073741824,"breakdown":{"weights":536870912,"kv_cache":268435456}}"""));
        ready.GetProperty("memory_info").GetProperty("rss").GetInt64().ShouldBeGreaterThan(1_000_000);
        await Deadline.UntilAsync(() => client.MonitorAsync("hung"), status => State(status) == -1, what: "the hung one to be told of");
        await Deadline.UntilAsync(() => client.MonitorAsync("busy"), status => State(status) == 1);
        await Deadline.UntilAsync(() => client.MonitorAsync("broken"), status => State(status) == -1);
        // without Status there is what the kernel tells of the process
        var mute = await Deadline.UntilAsync(() => client.MonitorAsync("mute"), status => status.TryGetProperty("memory", out var memory) && memory.GetProperty("breakdown").TryGetProperty("rss", out _));
        State(mute).ShouldBe(2);
        await Deadline.UntilAsync(() => client.JsonAsync("/tokenMetrics?model=tiny"),
            tokens => tokens.GetRawText() == """{"tokens_per_second":12.5,"tokens_generated":4,"prompt_tokens_processed":7}""");
        string[] States(string text) => [.. text.Split('\n').Where(line => line.StartsWith("modelhost_backend_state", StringComparison.Ordinal)).Select(line => line[^2..].Trim())];
        var metrics = await Deadline.UntilAsync(() => client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct), text => States(text) is ["2", "-1", "1", "-1", "2"], what: "the states of all");
        metrics.ShouldContain("""modelhost_engine_memory_bytes{deployment="1",model="tiny",part="weights"} 536870912""");
    }

    [Fact]
    public async Task A_shutdown_waits_for_calls_unless_it_is_told_not_to()
    {
        await using var host = await StartAsync("Monitor:ShutdownGrace=00:00:01");
        var id = await host.Client.ServeAsync(TestBackends.Request(1, Python));
        var calls = host.Services.GetRequiredService<RouteSource>().Requests.Of(host.Route().DeploymentUid);
        calls.Begin();

        State(await host.Client.MonitorAsync()).ShouldBe(1);
        (await ShutdownAsync(host.Client, """{"model": "tiny"}""")).ShouldBe((500, """{"error":{"code":500,"message":"model is still busy: tiny","type":""}}"""));
        (await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("status").GetString().ShouldBe("running");
        (await ShutdownAsync(host.Client, """{"model": "tiny", "force": true}""")).ShouldBe((200, """{"message":"model stopped"}"""));

        (await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("status").GetString().ShouldBe("stopped");
        (await ShutdownAsync(host.Client, """{"model": "tiny"}""")).Status.ShouldBe(500);
    }

    [Fact]
    public async Task Vectors_are_stored_in_the_backend_that_a_request_names()
    {
        await using var host = await StartAsync();
        await host.Client.ServeAsync(TestBackends.Request(1, Python, "notes"));
        async Task<(int, string)> AskAsync(string what, string body)
        {
            using var answer = await host.Client.PostAsync(new Uri("/stores/" + what, UriKind.Relative), new StringContent(body, Encoding.UTF8, "application/json"), Ct);
            return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct));
        }
        const string Of = "\"backend\":\"python-backend\",\"store\":\"notes\"";

        (await AskAsync("set", $$"""{{{Of}},"keys":[[1,0],[0,1]],"values":["a","ä"]}""")).ShouldBe((200, ""));
        (await AskAsync("find", $$"""{{{Of}},"key":[0,2],"topk":1}""")).ShouldBe((200, """{"keys":[[0,1]],"values":["ä"],"similarities":[1]}"""));
        (await AskAsync("delete", $$"""{{{Of}},"keys":[[0,1]]}""")).ShouldBe((200, ""));
        (await AskAsync("get", $$"""{{{Of}},"keys":[[0,1],[1,0]]}""")).ShouldBe((200, """{"keys":[[1,0]],"values":["a"]}"""));
        (await AskAsync("set", $$"""{{{Of}},"keys":[[1,0]],"values":[]}""")).ShouldBe((500, """{"error":{"code":500,"message":"len(keys) = 1, len(values) = 0","type":""}}"""));
        (await AskAsync("find", $$"""{{{Of}},"key":[1],"topk":0}""")).Item1.ShouldBe(500);
        (await AskAsync("find", $$"""{{{Of}},"key":[0,0],"topk":1}""")).Item1.ShouldBe(500); // the backend divides by zero, and says so
        (await AskAsync("get", """{"backend":"python-backend","store":"other","keys":[[1]]}""")).Item1.ShouldBe(400);
        (await AskAsync("get", """{"backend":"nobody","store":"notes","keys":[[1]]}""")).Item1.ShouldBe(400);
        (await host.Client.JsonAsync("/api/usage")).GetProperty("total").GetProperty("requests").GetInt64().ShouldBe(5);
    }

    [Fact]
    public async Task A_backend_that_somebody_else_runs_is_used_and_left_running()
    {
        var port = TestPorts.Free();
        var address = new { Key = "an-external-token", At = $"127.0.0.1:{port}" };
        await using var host = await StartAsync($"Node:Backends:elsewhere:Address={address.At}", $"Node:Backends:elsewhere:Token={address.Key}");
        var id = await host.Client.StartModelAsync(TestBackends.Request(1, "elsewhere"));
        using (var running = External(port, address.Key))
        {
            await host.Client.StatusAsync(id, "running");
            (await host.Backend().PredictAsync(new PredictOptions { Prompt = "hi" }, s_limit, Ct)).Message.ToStringUtf8().ShouldBe("echo hi");
            State(await host.Client.MonitorAsync()).ShouldBe(2);
            running.Kill();
            await running.WaitForExitAsync(Ct);
        }
        // it is found gone after a while, and used again when it is back: with another run, since the model has to be loaded anew
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), found => found.GetProperty("status").GetString() != "running", 90, "its end to be seen");
        using var again = External(port, address.Key);
        await host.Client.StatusAsync(id, "running", 90);
        await Deadline.UntilAsync(() => host.Services.GetRequiredService<RouteSource>().Current.Find("tiny").Route is { IsRoutable: true });
        (await host.Backend().PredictAsync(new PredictOptions { Prompt = "hi" }, s_limit, Ct)).Message.ToStringUtf8().ShouldBe("echo hi");

        await host.Client.StopModelAsync(id);

        again.HasExited.ShouldBeFalse();
        again.Kill();
        await again.WaitForExitAsync(Ct);
    }

    [Theory]
    [InlineData("garbage")]
    [InlineData("silence")]
    public async Task What_is_no_backend_never_serves(string what)
    {
        using var listener = new System.Net.Sockets.TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var over = new CancellationTokenSource();
        var talking = TalkAsync(listener, what == "garbage", over.Token);
        await using var host = await StartAsync($"Node:Backends:odd:Address={listener.LocalEndpoint}", "Lifecycle:StartTimeout=00:00:04");
        var id = await host.Client.StartModelAsync(TestBackends.Request(1, "odd"));

        var failed = await host.Client.StatusAsync(id, "error", 90);

        failed.GetProperty("last_error").GetString().ShouldNotBeNullOrEmpty();
        await over.CancelAsync();
        await talking;
    }

    private static async Task TalkAsync(System.Net.Sockets.TcpListener listener, bool garbage, CancellationToken over)
    {
        var callers = new List<System.Net.Sockets.TcpClient>();
        try
        {
            while (true)
            {
                var caller = await listener.AcceptTcpClientAsync(over);
                callers.Add(caller);
                if (garbage)
                    await caller.GetStream().WriteAsync(Encoding.ASCII.GetBytes("HTTP/1.1 200 OK\r\n\r\nthis is no gRPC\0\xFF"), over);
            }
        }
        catch (Exception e) when (e is OperationCanceledException or IOException)
        {
            callers.ForEach(caller => caller.Dispose());
        }
    }

    private async Task<ControlPlane> StartAsync(params string[] configuration)
    {
        await _node.InstallAsync(scripts, Python);
        var host = await ControlPlane.StartAsync(_node, configuration: configuration);
        (await host.Client.NodeAsync("process")).ShouldBe(1);
        return host;
    }

    private static Process External(int port, string token) => Process.Start(new ProcessStartInfo(
        "/usr/bin/python3", [Path.Combine(RealDocker.RepositoryRoot, "tests", "bench", "backends", Python, "backend.py"), "--addr", $"127.0.0.1:{port}"])
    { Environment = { ["LOCALAI_GRPC_AUTH_TOKEN"] = token }, RedirectStandardOutput = true })!;

    private static int State(JsonElement status) => status.GetProperty("state").GetInt32();

    private static async Task<(int Status, string Body)> ShutdownAsync(HttpClient client, string body)
    {
        using var answer = await client.PostAsync(new Uri("/backend/shutdown", UriKind.Relative), new StringContent(body, Encoding.UTF8, "application/json"), Ct);
        return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct));
    }

    private IEnumerable<ProcessSidecar> Sidecars()
    {
        var folder = Path.Combine(_node.Data, "engines");
        return Directory.Exists(folder) ? Directory.GetFiles(folder, "*.json").Select(ProcessSidecar.Read).OfType<ProcessSidecar>() : [];
    }
}
