using System.Diagnostics;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.IntegrationTests.Lifecycle;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Cluster;

/// <summary>
/// Three nodes with a network and a Docker engine each, and one control plane, as they come: with the intervals that count by default. It takes minutes, since cables stay out as long.
/// </summary>
public sealed class ThreeNodeTests(RealDockerFixture docker) : IDisposable
{
    // by default heartbeats are 10 s apart, deployments are looked at every 5 s and are unreachable after 3 looks, and nodes are critical after 3 intervals
    private const double DegradedWithin = 15, RightWithin = 10;
    private const int Port = 8101;
    private readonly TestNode _controlPlane = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Cut_cables_and_killed_processes_stop_no_engine_and_lose_no_record()
    {
        await using var lab = await NodeLab.StartAsync(docker.Docker, 3);
        var (port, clusterPort) = (TestPorts.Free(), TestPorts.Free());
        Task<ModelHostProcess> ServeAsync() => ModelHostProcess.ServeAsync(_controlPlane, port, $"Cluster:Listen={lab.Address}:{clusterPort}", "--no-local-node", "Releases:Url=");
        await using var first = await ServeAsync();
        using var client = new HttpClient { BaseAddress = first.Url };
        var agents = await Task.WhenAll(lab.Nodes.Select(async (node, i) =>
            await node.StartAgentAsync($"gpu-{i + 1}", "--join", $"{lab.Address}:{clusterPort}", "--token", await TokenAsync(client))));
        await using var firstAgent = agents[0];
        await using var secondAgent = agents[1];
        await using var thirdAgent = agents[2];
        var deployments = await Task.WhenAll(Enumerable.Range(1, 3).Select(i => DeployAsync(client, i)));
        await Task.WhenAll(deployments.Select(id => client.ReachAsync(id, "running", 120)));
        var key = await KeyAsync(client);
        using var gateway = new HttpClient { BaseAddress = first.Url, DefaultRequestHeaders = { Authorization = new AuthenticationHeaderValue("Bearer", key) } };
        var engines = await Task.WhenAll(lab.Nodes.Select(node => node.ContainersAsync()));
        engines.ShouldAllBe(engine => engine.Length == 1);
        await using (var early = Traffic.Direct(lab.Nodes[0], Port, key, "demo/lab-1"))
            await Deadline.UntilAsync(() => Task.FromResult(early), static asked => asked.Served > 0, what: "the key to be known on the node");
        await using var direct = Traffic.Direct(lab.Nodes[0], Port, key, "demo/lab-1");
        await using var third = Traffic.Through(gateway, "demo/lab-3");
        await Deadline.UntilAsync(() => direct.Served > 0 && third.Served > 0, what: "traffic");

        // a short cut: the node is missed, and nothing more
        await NodeLab.CutAsync(lab.Nodes[0]);
        var served = direct.Served;
        await Task.Delay(TimeSpan.FromSeconds(10), Ct);
        await NodeLab.JoinAsync(lab.Nodes[0]);
        await AllRightAsync(client, gateway, deployments, "the node that was cut off for 10 s");
        direct.Served.ShouldBeGreaterThan(served);

        // a long one, and meanwhile the agent of another node is killed
        var stream = Traffic.DirectStreamAsync(lab.Nodes[0], Port, key, "demo/lab-1", tokens: 600);
        await NodeLab.CutAsync(lab.Nodes[0]);
        var cut = Stopwatch.StartNew();
        await StatusAsync(client, "gpu-1", DegradedWithin, "degraded");
        await agents[1].KillAsync();
        await StatusAsync(client, "gpu-2", DegradedWithin, "degraded");
        (await lab.Nodes[1].ContainersAsync()).ShouldBe(engines[1]);
        await using var secondAgain = await lab.Nodes[1].StartAgentAsync("gpu-2");
        await StatusAsync(client, "gpu-2", RightWithin, "online");
        await ServedAsync(gateway, 2, RightWithin);
        await StatusAsync(client, "gpu-1", 60, "critical");
        await client.ReachAsync(deployments[0], "unreachable");
        served = direct.Served;
        await Task.Delay(TimeSpan.FromSeconds(Math.Max(0, 120 - cut.Elapsed.TotalSeconds)), Ct);
        direct.Served.ShouldBeGreaterThan(served);
        await NodeLab.JoinAsync(lab.Nodes[0]);
        await AllRightAsync(client, gateway, deployments, "the node that was cut off for two minutes");
        third.Failures.ShouldBeEmpty("what happens to other nodes touches this one's model not at all");
        await third.EndAsync();

        // the control plane
        served = direct.Served;
        await first.KillAsync();
        await Deadline.UntilAsync(() => direct.Served > served, what: "direct traffic without a control plane");
        await using var second = await ServeAsync();
        await AllRightAsync(client, gateway, deployments, "the control plane that was killed");

        (await stream).TrimEnd().ShouldEndWith("data: [DONE]");
        direct.Failures.ShouldBeEmpty("who asks a node directly notices nothing of all that");
        (await Task.WhenAll(lab.Nodes.Select(node => node.ContainersAsync()))).ShouldBe(engines);
        (await client.JsonAsync("/api/deployments")).EnumerateArray().Select(deployment => deployment.GetProperty("id").GetInt32()).Order().ShouldBe(deployments.Order());
        foreach (var id in deployments)
            (await client.JsonAsync($"/api/deployments/{id}/runs")).GetArrayLength().ShouldBe(1);
        await Task.WhenAll(deployments.Select(client.StopModelAsync));
        (await Task.WhenAll(lab.Nodes.Select(node => node.ContainersAsync()))).ShouldAllBe(engine => engine.Length == 0);
    }

    public void Dispose() => _controlPlane.Dispose();

    private static async Task<string> TokenAsync(HttpClient client)
    {
        using var made = await client.PostAsJsonAsync("/api/nodes/join-tokens", new { }, Ct);
        return (await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).Text("token");
    }

    private static async Task<string> KeyAsync(HttpClient client)
    {
        using var made = await client.PostAsJsonAsync("/api/api-keys", new { label = "tests" }, Ct);
        return (await made.EnsureSuccessStatusCode().Content.ReadFromJsonAsync<JsonElement>(Ct)).Text("key");
    }

    private static async Task<int> DeployAsync(HttpClient client, int i)
    {
        var node = await StatusAsync(client, $"gpu-{i}", 60, "online");
        return await client.StartModelAsync(Api.StartRequest(node, Port, $"demo/lab-{i}", "vllm", request =>
        {
            request["vllm_version"] = "0.28.0";
            request["env_vars"] = new JsonArray(Variable("VLLM_SIM_ITL_MS", "200"), Variable("VLLM_SIM_OUTPUT_TOKENS", "600"));
        }));
        static JsonObject Variable(string key, string value) => new() { ["key"] = key, ["value"] = value };
    }

    /// <summary>Waits for a node's status, no longer than demanded.</summary>
    /// <returns>Its id.</returns>
    private static async Task<int> StatusAsync(HttpClient client, string hostname, double seconds, params string[] statuses)
    {
        var since = Stopwatch.StartNew();
        var node = await Deadline.UntilAsync(
            async () => (await client.JsonAsync("/api/nodes")).EnumerateArray().SingleOrDefault(node => node.Text("hostname") == hostname),
            node => node.ValueKind == JsonValueKind.Object && statuses.Contains(node.Text("status")), Deadline.Allowed(seconds).TotalSeconds, $"{hostname} to be {string.Join(" or ", statuses)}");
        Tell($"{hostname} was {node.Text("status")}", since);
        return node.GetProperty("id").GetInt32();
    }

    /// <summary>Waits until all nodes are online, all deployments run and all models are served: one interval, no longer.</summary>
    private static async Task AllRightAsync(HttpClient client, HttpClient gateway, int[] deployments, string after)
    {
        var since = Stopwatch.StartNew();
        double Left() => Math.Max(0.1, (Deadline.Allowed(RightWithin) - since.Elapsed).TotalSeconds);
        await Deadline.UntilAsync(() => client.JsonAsync("/api/nodes"), nodes => nodes.EnumerateArray().All(node => node.Text("status") == "online"), Left(), $"all nodes to be online after {after}");
        await Deadline.UntilAsync(() => client.JsonAsync("/api/deployments"), all => deployments.All(id =>
            all.EnumerateArray().Any(deployment => deployment.GetProperty("id").GetInt32() == id && deployment.Status() == "running")), Left(), $"all deployments to run after {after}");
        for (var i = 1; i <= deployments.Length; i++)
            await ServedAsync(gateway, i, Left());
        Tell($"all was right after {after}", since);
    }

    // how long it took really: what is allowed grows with the load of the machine
    private static void Tell(string what, Stopwatch since) => TestContext.Current.TestOutputHelper!.WriteLine($"{what} in {since.Elapsed.TotalSeconds:0.0} s");

    private static Task<HttpStatusCode> ServedAsync(HttpClient gateway, int i, double seconds) => Deadline.UntilAsync(
        async () =>
        {
            using var answer = await gateway.PostAsJsonAsync("/v1/chat/completions", Api.Chat($"demo/lab-{i}", maxTokens: 2), Ct);
            return answer.StatusCode;
        },
        status => status == HttpStatusCode.OK, Deadline.Allowed(seconds).TotalSeconds, $"demo/lab-{i} to be served");
}
