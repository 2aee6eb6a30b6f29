using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Features.Deployments;
using ModelHost.Gateway;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Nodes;

/// <summary>Cordons, and what is placed and drained because of them.</summary>
public sealed class MaintenanceTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Nothing_is_placed_on_what_is_cordoned()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var node = await QuietNode.AddAsync(host, gpus: 3);

        var some = await SetAsync(host, node.Id, """{"gpu_ids":[2,0],"enabled":true}""");
        var refused = await host.Client.PostAsync("/start", Start(node.Id, gpus: [0, 1])).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.gpus_cordoned");
        var skipped = await host.Client.PostAsync("/start", Start(node.Id, gpus: [2], skip: true)).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.gpus_cordoned");
        var chosen = await host.Client.PostedAsync("/start", Start(node.Id));
        var full = await host.Client.PostAsync("/start", Start(node.Id, port: 8102, size: 2)).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.no_capacity");
        var plan = await host.Client.PostedAsync("/plan", Start(node.Id, port: 8102, size: 2));
        var all = await SetAsync(host, node.Id, """{"gpu_ids":[1],"enabled":true}""");
        var none = await host.Client.PostAsync("/start", Start(node.Id, port: 8102, skip: true)).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.maintenance");
        var open = await SetAsync(host, node.Id, """{"enabled":false}""");
        var placed = await host.Client.PostedAsync("/start", Start(node.Id, port: 8102, gpus: [0], model: "demo/other"));

        State(some).ShouldBe(("online", false, true, "[0,2]"));
        refused.ShouldBe("GPU 0 of node quiet is under maintenance; it still has 1.");
        skipped.ShouldStartWith("GPU 2 of node quiet");
        chosen.GetProperty("gpu_ids").GetRawText().ShouldBe("[1]");
        full.ShouldContain("GPU 0: under maintenance; GPU 2: under maintenance");
        plan.GetProperty("fits").GetBoolean().ShouldBeFalse();
        plan.GetProperty("gpus")[2].GetRawText().ShouldContain("under maintenance");
        State(all).ShouldBe(("maintenance", true, false, "[0,1,2]"));
        none.ShouldBe("Node quiet is under maintenance and takes no deployments.");
        State(open).ShouldBe(("online", false, false, "[]"));
        placed.GetProperty("gpu_ids").GetRawText().ShouldBe("[0]");
        (await host.Client.JsonAsync($"/api/deployments/{chosen.Id()}")).Text("status").ShouldBe("starting", "a cordon ends nothing");

        static (string?, bool, bool, string) State(JsonElement node) => (
            node.Text("status"), node.GetProperty("maintenance").GetBoolean(), node.GetProperty("partial_maintenance").GetBoolean(), node.GetProperty("maintenance_gpus").GetRawText());
    }

    [Fact]
    public async Task A_deployment_is_not_restarted_on_what_is_cordoned()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var node = await QuietNode.AddAsync(host, gpus: 2);
        var id = (await host.Client.PostedAsync("/start", Start(node.Id, gpus: [1]))).Id();
        await node.SetAsync(id, DeploymentStatus.Stopped);
        var again = new JsonObject { ["owner"] = "tests" };

        await SetAsync(host, node.Id, """{"gpu_ids":[1],"enabled":true}""");
        await host.Client.PostAsync($"/{id}/restart", again).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.gpus_cordoned");
        await SetAsync(host, node.Id, """{"gpu_ids":[1],"enabled":false}""");

        (await host.Client.PostedAsync($"/{id}/restart", again)).Text("status").ShouldBe("starting");
    }

    [Fact]
    public async Task Gpus_of_a_node_that_has_told_none_cannot_be_named_but_the_node_can()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var id = (await NodeChangeTests.SentAsync(host, HttpMethod.Post, "", """{"hostname":"gpu-7","ip_address":"10.0.0.7"}""")).Id();

        await NodeChangeTests.SendAsync(host, HttpMethod.Post, $"/{id}/maintenance", """{"gpu_ids":[0],"enabled":true}""")
            .ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.gpus_unknown");

        (await SetAsync(host, id, """{"enabled":true}""")).Text("status").ShouldBe("maintenance");
        (await SetAsync(host, id, """{"enabled":false}""")).Text("status").ShouldBe("unknown");
    }

    [Fact]
    public async Task Only_what_uses_a_drained_gpu_is_stopped()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var node = await QuietNode.AddAsync(host, gpus: 3);
        var ids = new List<int>();
        foreach (var (port, gpus) in ((int, int[])[])[(8101, [0]), (8102, [1, 2]), (8103, [2]), (8104, [0])])
            ids.Add((await host.Client.PostedAsync("/start", Start(node.Id, port, gpus, model: $"demo/{port}", fraction: 0.3))).Id());
        await node.SetAsync(ids[3], DeploymentStatus.Stopped);
        await using var socket = await EventSocket.OpenAsync(host.Url);

        await SetAsync(host, node.Id, """{"gpu_ids":[2],"enabled":true,"drain":true}""");

        var told = await socket.NextAsync("deployments_changed");
        told.GetProperty("ids").EnumerateArray().Select(id => id.GetInt32()).ShouldBe([ids[1], ids[2]], ignoreOrder: true);
        var states = new List<string?>();
        foreach (var id in ids)
            states.Add((await host.Client.JsonAsync($"/api/deployments/{id}")).Text("status"));
        states.ShouldBe(["starting", "stopping", "stopping", "stopped"]);
        (await host.Client.JsonAsync($"/api/deployments/{ids[1]}")).Text("detail").ShouldBe("draining");
    }

    [Fact]
    public async Task A_drain_waits_for_requests_under_way_and_takes_no_new_ones()
    {
        await using var host = await ControlPlane.StartAsync();
        var (node, id) = await SlowModelAsync(host);
        var engine = (await host.Services.GetRequiredService<DeploymentReads>().UidsAsync(Ct))[id];
        using var stream = await StreamAsync(host);
        JsonElement draining;
        using (new HeldEngine(host.Node))
        {
            var routes = host.Services.GetRequiredService<RouteSource>();
            routes.Requests.Count(engine).ShouldBe(1);
            await SetAsync(host, node, """{"enabled":true,"drain":true}""");
            await Deadline.UntilAsync(() => routes.Current.Find("demo/tiny-chat").Route is null, what: "the route to be gone");
            (await ChatStatusAsync(host)).ShouldBe(HttpStatusCode.NotFound);
            draining = await host.Client.JsonAsync($"/api/deployments/{id}");
        }
        var text = await new StreamReader(await stream.Content.ReadAsStreamAsync(Ct)).ReadToEndAsync(Ct);
        await host.Client.StatusAsync(id, "stopped");

        (draining.Text("status"), draining.Text("detail")).ShouldBe(("stopping", "draining"));
        text.TrimEnd().ShouldEndWith("[DONE]");
        text.ShouldNotContain("\"error\"");
        host.Services.GetRequiredService<RouteSource>().Requests.Count(engine).ShouldBe(0);
    }

    [Fact]
    public async Task A_drain_ends_at_its_limit_and_at_once_when_a_person_stops_it()
    {
        await using var host = await ControlPlane.StartAsync();
        var (node, id) = await SlowModelAsync(host, tokens: 100_000);
        using (await StreamAsync(host, tokens: 100_000))
        {
            await SetAsync(host, node, """{"enabled":true,"drain":true,"drain_timeout_seconds":2}""");
            await host.Client.StatusAsync(id, "stopped");
        }
        await SetAsync(host, node, """{"enabled":false}""");
        await host.Client.PostedAsync($"/{id}/restart?wait=true", new JsonObject { ["owner"] = "tests" });
        using (await StreamAsync(host, tokens: 100_000))
        {
            await SetAsync(host, node, """{"enabled":true,"drain":true,"drain_timeout_seconds":86400}""");
            await Deadline.UntilAsync(() => ChatStatusAsync(host), status => status == HttpStatusCode.NotFound);
            await host.Client.StopModelAsync(id);
        }
    }

    [Fact]
    public async Task A_drain_goes_on_over_a_restart_of_the_control_plane()
    {
        using var surroundings = new TestNode();
        int id;
        await using (var host = await ControlPlane.StartAsync(surroundings, configuration: "Gateway:DrainTimeout=00:00:01"))
        {
            (var node, id) = await SlowModelAsync(host, tokens: 100_000);
            using var stream = await StreamAsync(host, tokens: 100_000);
            await SetAsync(host, node, """{"enabled":true,"drain":true}""");
            await Deadline.UntilAsync(() => ChatStatusAsync(host), status => status == HttpStatusCode.NotFound);
            (await host.Client.JsonAsync($"/api/deployments/{id}")).Text("status").ShouldBe("stopping");
        }

        await using var again = await ControlPlane.StartAsync(surroundings);

        // who was served is gone with the first one
        await again.Client.StatusAsync(id, "stopped");
    }

    private static Task<JsonElement> SetAsync(ControlPlane host, int node, string body) =>
        NodeChangeTests.SentAsync(host, HttpMethod.Post, $"/{node}/maintenance", body);

    private static JsonObject Start(int node, int port = 8101, int[]? gpus = null, string model = "demo/tiny-chat", int? size = null, bool skip = false, double fraction = 0.4) =>
        Api.StartRequest(node, port, model, change: request =>
        {
            request["gpu_memory_fraction"] = fraction;
            if (gpus is not null)
                request["gpu_ids"] = new JsonArray([.. gpus.Select(gpu => JsonValue.Create(gpu))]);
            if (size is not null)
                request["tensor_parallel_size"] = size;
            if (skip)
                request["skip_resource_check"] = true;
        });

    /// <summary>A model that answers a token in 20 ms.</summary>
    private static async Task<(int Node, int Id)> SlowModelAsync(ControlPlane host, int tokens = 400)
    {
        var node = await host.Client.NodeAsync("process");
        var id = await host.Client.StartModelAsync(Api.StartRequest(node, change: request => request["env_vars"] = new JsonArray(
            new JsonObject { ["key"] = "VLLM_SIM_ITL_MS", ["value"] = "20" }, new JsonObject { ["key"] = "VLLM_SIM_OUTPUT_TOKENS", ["value"] = $"{tokens}" })));
        await host.Client.StatusAsync(id, "running");
        return (node, id);
    }

    private static async Task<HttpResponseMessage> StreamAsync(ControlPlane host, int tokens = 400)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat("demo/tiny-chat", stream: true, maxTokens: tokens)) };
        var answer = await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        return answer;
    }

    private static async Task<HttpStatusCode> ChatStatusAsync(ControlPlane host)
    {
        using var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 1), Ct);
        return answer.StatusCode;
    }
}
