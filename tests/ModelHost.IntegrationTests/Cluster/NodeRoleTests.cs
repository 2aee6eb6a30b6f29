using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Cluster;

/// <summary><c>modelhost serve</c>, <c>modelhost token create</c> and <c>modelhost node</c> as processes, whose plugs are pulled.</summary>
public sealed class NodeRoleTests : IDisposable
{
    private readonly TestNode _controlPlane = new(), _node = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Neither_the_end_of_the_agent_nor_that_of_the_control_plane_stops_an_engine()
    {
        var (port, clusterPort, agentPort) = (TestPorts.Free(), TestPorts.Free(), TestPorts.Free());
        // degraded for as long as it takes to see it
        string[] serve = [$"Cluster:Listen=127.0.0.1:{clusterPort}", "--no-local-node", "Settings:NodeFailureThreshold=20"];
        await using var first = await ServeAsync(port, serve);
        using var client = new HttpClient { BaseAddress = first.Url };
        var token = await TokenAsync(first.Url);
        await using var agent = NodeProcess("--join", $"127.0.0.1:{clusterPort}", "--token", token, "--listen", $"127.0.0.1:{agentPort}");
        await agent.ListeningAsync();
        var node = await OnlineAsync(client);
        var id = await client.StartModelAsync(Api.StartRequest(node));
        await client.StatusAsync(id, "running");
        var engine = EnginePid();

        await agent.KillAsync();
        await Deadline.UntilAsync(() => client.JsonAsync("/api/nodes"), nodes => nodes[0].GetProperty("status").GetString() == "degraded", what: "the node to be degraded");
        EnginePid().ShouldBe(engine);
        await using var agentAgain = NodeProcess("--listen", $"127.0.0.1:{agentPort}"); // no token: it is a member
        await agentAgain.ListeningAsync();
        await OnlineAsync(client);
        await ServedAsync(client);

        await first.KillAsync();
        EnginePid().ShouldBe(engine);
        await using var second = await ServeAsync(port, serve);
        await client.StatusAsync(id, "running");
        EnginePid().ShouldBe(engine);
        await ServedAsync(client);
        (await client.JsonAsync($"/api/deployments/{id}/runs")).GetArrayLength().ShouldBe(1);
        await client.StopModelAsync(id);
    }

    /// <summary>With the intervals as they are by default.</summary>
    [Fact]
    public async Task Node_that_falls_silent_is_degraded_within_15_s_and_online_within_an_interval_of_its_return()
    {
        var clusterPort = TestPorts.Free();
        await using var host = await ModelHostProcess.ServeAsync(_controlPlane, TestPorts.Free(), $"Cluster:Listen=127.0.0.1:{clusterPort}", "--no-local-node");
        using var client = new HttpClient { BaseAddress = host.Url };
        await using var agent = NodeProcess("--join", $"127.0.0.1:{clusterPort}", "--token", await TokenAsync(host.Url), "--listen", "127.0.0.1:0");
        await agent.ListeningAsync();
        var id = await client.StartModelAsync(Api.StartRequest(await OnlineAsync(client)));
        await client.StatusAsync(id, "running");
        var engine = EnginePid();

        // its connections stay open, and nobody is there
        await SignalAsync(agent, "STOP");
        var silence = Stopwatch.StartNew();
        await StatusAsync(client, "degraded");
        var degraded = silence.Elapsed;
        await StatusAsync(client, "critical");
        var critical = silence.Elapsed;
        await SignalAsync(agent, "CONT");
        var back = Stopwatch.StartNew();
        await StatusAsync(client, "online");
        await client.StatusAsync(id, "running");
        var online = back.Elapsed;
        var runs = await client.JsonAsync($"/api/deployments/{id}/runs");
        await ServedAsync(client);

        degraded.ShouldBeLessThan(Deadline.Allowed(15));
        critical.ShouldBeLessThan(Deadline.Allowed(40));
        online.ShouldBeLessThan(Deadline.Allowed(10));
        EnginePid().ShouldBe(engine);
        runs.GetArrayLength().ShouldBe(1);
        TestContext.Current.TestOutputHelper?.WriteLine($"degraded after {degraded.TotalSeconds:0.0} s, critical after {critical.TotalSeconds:0.0} s, online {online.TotalSeconds:0.0} s after the return");
        await client.StopModelAsync(id);
    }

    private static async Task SignalAsync(ModelHostProcess process, string signal)
    {
        using var kill = Process.Start("kill", [$"-{signal}", $"{process.Id}"]);
        await kill.WaitForExitAsync(Ct);
    }

    private static Task<JsonElement> StatusAsync(HttpClient client, string status) =>
        Deadline.UntilAsync(() => client.JsonAsync("/api/nodes"), nodes => nodes[0].GetProperty("status").GetString() == status, 120, $"the node to be {status}");

    [Fact]
    public async Task Agent_ends_when_it_is_told_to_and_its_engine_goes_on()
    {
        var clusterPort = TestPorts.Free();
        await using var host = await ServeAsync(TestPorts.Free(), "--cluster-listen", $"127.0.0.1:{clusterPort}", "--no-local-node");
        using var client = new HttpClient { BaseAddress = host.Url };
        await using var agent = NodeProcess("--join", $"127.0.0.1:{clusterPort}", "--token", await TokenAsync(host.Url, "--node", "gpu-1"), "--listen", "127.0.0.1:0");
        await agent.ListeningAsync();
        var id = await client.StartModelAsync(Api.StartRequest(await OnlineAsync(client)));
        await client.StatusAsync(id, "running");
        var engine = EnginePid();

        (await agent.StopAsync()).ShouldBe(0);

        EnginePid().ShouldBe(engine);
        agent.Output.ShouldContain(line => line.Contains("its engines go on", StringComparison.Ordinal));
        string.Join('\n', agent.Output.Concat(host.Output)).ShouldNotContain("mh_join_");
    }

    /// <summary>Over a planned restart of the agent, and while the control plane is gone, the public port of an engine goes on; the engine notices nothing.</summary>
    [Fact]
    public async Task Public_port_is_back_within_a_second_of_the_agents_start_and_needs_no_control_plane()
    {
        _node.DirectListen = "127.0.0.1";
        var (clusterPort, port) = (TestPorts.Free(), TestPorts.Free());
        await using var host = await ServeAsync(TestPorts.Free(), $"Cluster:Listen=127.0.0.1:{clusterPort}", "--no-local-node");
        using var client = new HttpClient { BaseAddress = host.Url };
        using var direct = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{port}") };
        await using var agent = NodeProcess("--join", $"127.0.0.1:{clusterPort}", "--token", await TokenAsync(host.Url), "--listen", "127.0.0.1:0");
        await agent.ListeningAsync();
        var id = await client.StartModelAsync(Api.StartRequest(await OnlineAsync(client), port, change: request => request["env_vars"] =
            new JsonArray(new JsonObject { ["key"] = "VLLM_SIM_ITL_MS", ["value"] = "20" }, new JsonObject { ["key"] = "VLLM_SIM_OUTPUT_TOKENS", ["value"] = "100000" })));
        await client.StatusAsync(id, "running");
        direct.DefaultRequestHeaders.Authorization = new("Bearer", await KeyAsync(client));
        await DirectlyServedAsync(direct);
        var engine = EnginePid();

        using var stream = await ChatAsync(direct, tokens: 100);
        await using var watch = PortWatch.Start(port);
        (await agent.StopAsync()).ShouldBe(0);
        (await stream.Content.ReadAsStringAsync(Ct)).TrimEnd().ShouldEndWith("[DONE]", customMessage: "a stream under way is finished");
        await watch.LostAsync();
        var began = TimeProvider.System.GetTimestamp();
        await using var again = NodeProcess("--listen", "127.0.0.1:0");
        var allowed = Deadline.Allowed(1);
        await watch.BackAsync();
        var took = TimeProvider.System.GetElapsedTime(began);
        TestContext.Current.TestOutputHelper!.WriteLine($"listens {took.TotalMilliseconds:0} ms after the start of the process; nobody listened for {watch.Gap.TotalMilliseconds:0} ms");
        using (var first = await ChatAsync(direct, tokens: 2))
            first.StatusCode.ShouldBe(HttpStatusCode.OK, "its engine is known from before");
        took.ShouldBeLessThan(allowed);
        EnginePid().ShouldBe(engine);

        await host.KillAsync();
        using (var alone = await ChatAsync(direct, tokens: 2))
            alone.StatusCode.ShouldBe(HttpStatusCode.OK);
        await again.KillAsync();
        await using var third = NodeProcess("--listen", "127.0.0.1:0");
        await DirectlyServedAsync(direct);
        direct.DefaultRequestHeaders.Authorization = null;
        using (var keyless = await ChatAsync(direct, tokens: 2))
            keyless.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        EnginePid().ShouldBe(engine);
    }

    /// <summary>As of an agent, of the local node of <c>serve</c>.</summary>
    [Fact]
    public async Task Public_port_of_the_local_node_is_back_within_a_second_of_the_start_of_serve()
    {
        _controlPlane.DirectListen = "127.0.0.1";
        var (port, own) = (TestPorts.Free(), TestPorts.Free());
        using var direct = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{port}") };
        await using (var first = await ServeAsync(own))
        {
            using var client = new HttpClient { BaseAddress = first.Url };
            await client.StatusAsync(await client.StartModelAsync(Api.StartRequest(await client.NodeAsync("process"), port)), "running");
            await DirectlyServedAsync(direct);
            var metrics = await Deadline.UntilAsync(() => client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct), page => page.Contains("modelhost_direct_request_duration_seconds_count{", StringComparison.Ordinal)
                && page.Contains("modelhost_direct_active_requests{deployment=\"1\",model=\"demo/tiny-chat\"} 0", StringComparison.Ordinal));
            metrics.ShouldContain("modelhost_direct_request_duration_seconds_count{model=\"demo/tiny-chat\",route=\"/v1/chat/completions\",status=\"200\"} ");
            (await first.StopAsync()).ShouldBe(0);
        }

        await using var watch = PortWatch.Start(port);
        await watch.LostAsync();
        var began = TimeProvider.System.GetTimestamp();
        var starting = ServeAsync(own);
        var allowed = Deadline.Allowed(1);
        await watch.BackAsync();
        var took = TimeProvider.System.GetElapsedTime(began);
        TestContext.Current.TestOutputHelper!.WriteLine($"listens {took.TotalMilliseconds:0} ms after the start of the process");
        using (var answer = await ChatAsync(direct, tokens: 2))
            answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        took.ShouldBeLessThan(allowed);
        await using var second = await starting;
    }

    [Theory]
    [InlineData("to join, this node needs --join HOST:8443")]
    [InlineData("the token is none", "--join", "127.0.0.1:1", "--token", "x")]
    [InlineData("the control plane at 127.0.0.1:1 cannot be reached", "--join", "127.0.0.1:1", "--token", "mh_join_AAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    [InlineData("'gpu' is no host with a port", "--join", "gpu")]
    [InlineData("'9000' is no IP address with a port", "--listen", "9000")]
    [InlineData("there is no section 'Gateway', only Node, ", "Gateway:RetryAfter=00:00:01")]
    public async Task Node_that_cannot_begin_says_why_in_one_line(string why, params string[] arguments)
    {
        await using var process = ModelHostProcess.Start(["node", "--data", _node.Data, .. arguments]);

        (await process.ExitAsync()).ShouldBe(1);
        process.Output.ShouldHaveSingleItem().ShouldContain(why);
    }

    [Fact]
    public async Task Token_of_another_cluster_does_not_let_in()
    {
        var clusterPort = TestPorts.Free();
        await using var host = await ServeAsync(TestPorts.Free(), "--cluster-listen", $"127.0.0.1:{clusterPort}", "--no-local-node");

        await using var process = ModelHostProcess.Start("node", "--data", _node.Data, "--join", $"127.0.0.1:{clusterPort}",
            "--token", "mh_join_AAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");

        (await process.ExitAsync()).ShouldBe(1);
        process.Output.ShouldHaveSingleItem().ShouldContain("is not the control plane that made the token");
    }

    [Fact]
    public async Task Token_cannot_be_made_where_nobody_listens()
    {
        await using var process = ModelHostProcess.Start("token", "create", "--data", _controlPlane.Data, "--url", $"http://127.0.0.1:{TestPorts.Free()}");

        (await process.ExitAsync()).ShouldBe(1);
        process.Output.ShouldHaveSingleItem().ShouldContain("no token was made by http://127.0.0.1");
    }

    public void Dispose()
    {
        _controlPlane.Dispose();
        _node.Dispose();
    }

    private Task<ModelHostProcess> ServeAsync(int port, params string[] more) => ModelHostProcess.ServeAsync(_controlPlane, port, [
        "Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1", .. more]);

    private ModelHostProcess NodeProcess(params string[] arguments) => ModelHostProcess.Start(
        ["node", "--data", _node.Data, "--name", "gpu-1", .. arguments, .. _node.Configuration.Where(setting => setting.StartsWith("Node:", StringComparison.Ordinal))]);

    private async Task<string> TokenAsync(Uri url, params string[] more)
    {
        await using var process = ModelHostProcess.Start(["token", "create", "--data", _controlPlane.Data, "--url", url.OriginalString, .. more]);
        (await process.ExitAsync()).ShouldBe(0, string.Join('\n', process.Output));
        await Deadline.UntilAsync(() => process.Output.Count >= 3);
        process.Output.ShouldContain(line => line.Contains("modelhost node --join", StringComparison.Ordinal));
        return process.Output.Single(line => line.StartsWith("mh_join_", StringComparison.Ordinal));
    }

    private static async Task<int> OnlineAsync(HttpClient client)
    {
        var nodes = await Deadline.UntilAsync(() => client.JsonAsync("/api/nodes"),
            nodes => nodes.GetArrayLength() == 1 && nodes[0].GetProperty("status").GetString() == "online" && Api.HasTold(nodes[0], "process"), what: "the node to be online");
        return nodes[0].GetProperty("id").GetInt32();
    }

    // a node that has not been heard yet has its models still: they are not unknown; an agent that has just begun may not have found its engine yet,
    // and a model whose node was silent is unreachable until it has been looked after again
    private static Task<HttpStatusCode> ServedAsync(HttpClient client) => Deadline.UntilAsync(
        async () =>
        {
            using var answer = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 2), Ct);
            answer.StatusCode.ShouldBeOneOf([HttpStatusCode.OK, HttpStatusCode.ServiceUnavailable, HttpStatusCode.BadGateway], await answer.Content.ReadAsStringAsync(Ct));
            return answer.StatusCode;
        },
        status => status == HttpStatusCode.OK);

    private static async Task<string> KeyAsync(HttpClient client)
    {
        using var made = await client.PostAsJsonAsync("/api/api-keys", new { label = "tests" }, Ct);
        return (await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("key").GetString()!;
    }

    private static async Task<HttpResponseMessage> ChatAsync(HttpClient client, int tokens)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat("demo/tiny-chat", stream: true, maxTokens: tokens)) };
        return await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
    }

    private static Task<HttpStatusCode?> DirectlyServedAsync(HttpClient client) => Deadline.UntilAsync<HttpStatusCode?>(
        async () =>
        {
            try
            {
                using var answer = await ChatAsync(client, tokens: 2);
                return answer.StatusCode;
            }
            catch (HttpRequestException)
            {
                return null;
            }
        },
        status => status == HttpStatusCode.OK, what: "the public port to serve");

    private int EnginePid() => TestNode.EnginePid(_node.Data);

    /// <summary>Connects to a port again and again, and notes since when nobody listens.</summary>
    private sealed class PortWatch : IAsyncDisposable
    {
        private readonly CancellationTokenSource _ended = new();
        private readonly TaskCompletionSource _back = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource _lost = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private Task _watching = Task.CompletedTask;

        /// <summary>How long nobody listened.</summary>
        public TimeSpan Gap { get; private set; }

        public static PortWatch Start(int port)
        {
            var watch = new PortWatch();
            watch._watching = watch.WatchAsync(port);
            return watch;
        }

        /// <summary>Waits until it has seen that nobody listens.</summary>
        public Task LostAsync() => _lost.Task.WaitAsync(TimeSpan.FromSeconds(60), Ct);

        /// <summary>Waits until somebody listens again.</summary>
        public Task BackAsync() => _back.Task.WaitAsync(TimeSpan.FromSeconds(60), Ct);

        public async ValueTask DisposeAsync()
        {
            await _ended.CancelAsync();
            await _watching;
            _ended.Dispose();
        }

        private async Task WatchAsync(int port)
        {
            long? lost = null;
            while (!_ended.IsCancellationRequested)
            {
                using var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
                try
                {
                    await socket.ConnectAsync(IPAddress.Loopback, port);
                    if (lost is { } since)
                    {
                        Gap = TimeProvider.System.GetElapsedTime(since);
                        _back.TrySetResult();
                        return;
                    }
                }
                catch (SocketException)
                {
                    lost ??= TimeProvider.System.GetTimestamp();
                    _lost.TrySetResult();
                }
                await Task.Delay(5, _ended.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }
}
