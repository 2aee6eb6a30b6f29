using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Cluster;
using ModelHost.Core.Nodes;
using ModelHost.Features.Nodes;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Nodes;

/// <summary>What is stored of nodes by hand.</summary>
public sealed class NodeChangeTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_node_is_read_with_the_figures_of_its_machine()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.NodeAsync("process");

        var node = await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/nodes/{id}"), n => n.GetProperty("cpu_percent").ValueKind == JsonValueKind.Number
            && n.GetProperty("disk_usage") is { ValueKind: JsonValueKind.Object } disk && disk.GetProperty("hf_cache_gb").ValueKind == JsonValueKind.Number);

        node.GetProperty("cpu_count").GetInt32().ShouldBeGreaterThan(0);
        node.GetProperty("memory_percent").GetDouble().ShouldBeInRange(0.1, 100);
        node.GetProperty("memory_used_mb").GetDouble().ShouldBeInRange(1, node.GetProperty("memory_total_mb").GetDouble());
        node.GetProperty("disk_usage").GetProperty("hf_cache_gb").GetDouble().ShouldBe(0);
        node.GetProperty("available_runtimes").EnumerateArray().Select(runtime => runtime.GetString()).ShouldBe(["process"]);
        node.GetProperty("agent_version").GetString().ShouldNotBeNullOrEmpty();
        node.GetProperty("warm_offload_enabled").GetBoolean().ShouldBeTrue();
        (await host.Client.JsonAsync("/api/nodes"))[0].GetProperty("id").GetInt32().ShouldBe(id);
    }

    [Fact]
    public async Task What_is_set_is_answered_told_and_survives_a_restart()
    {
        using var surroundings = new TestNode();
        int id;
        await using (var host = await ControlPlane.StartAsync(surroundings))
        {
            id = await host.Client.NodeAsync("process");
            await using var socket = await EventSocket.OpenAsync(host.Url);

            (await SentAsync(host, HttpMethod.Post, $"/{id}/runtime", """{"runtime":"podman"}""")).Text("container_runtime").ShouldBe("podman");
            await socket.NextAsync("nodes_changed");
            var warm = await SentAsync(host, HttpMethod.Post, $"/{id}/warm-cache", """{"enabled":false,"ram_cache_limit_mb":2048}""");
            await socket.NextAsync("nodes_changed");
            var cordoned = await SentAsync(host, HttpMethod.Post, $"/{id}/maintenance", """{"gpu_ids":[],"enabled":true,"drain":false}""");
            await socket.NextAsync("nodes_changed");

            (warm.GetProperty("warm_offload_enabled").GetBoolean(), warm.GetProperty("ram_cache_limit_mb").GetInt32()).ShouldBe((false, 2048));
            (cordoned.Text("status"), cordoned.GetProperty("maintenance").GetBoolean()).ShouldBe(("maintenance", true));
        }
        await using var again = await ControlPlane.StartAsync(surroundings);
        await again.Client.NodeAsync("process");

        var node = await again.Client.JsonAsync($"/api/nodes/{id}");

        (node.Text("container_runtime"), node.GetProperty("ram_cache_limit_mb").GetInt32(), node.Text("status")).ShouldBe(("podman", 2048, "maintenance"));
        (await SentAsync(again, HttpMethod.Post, $"/{id}/runtime", """{"runtime":null}""")).GetProperty("container_runtime").ValueKind.ShouldBe(JsonValueKind.Null);
        (await SentAsync(again, HttpMethod.Post, $"/{id}/warm-cache", """{"enabled":true}""")).GetProperty("ram_cache_limit_mb").ValueKind.ShouldBe(JsonValueKind.Null);
        (await SentAsync(again, HttpMethod.Post, $"/{id}/maintenance", """{"enabled":false}""")).Text("status").ShouldBe("online");
    }

    [Theory]
    [InlineData("POST", "/{id}/runtime", """{"runtime":"lxc"}""", 400, "validation", "runtime")]
    [InlineData("POST", "/{id}/runtime", """{"runtime":"Docker"}""", 400, "validation", "runtime")]
    [InlineData("POST", "/{id}/runtime", """{"runtime":7}""", 400, "validation", "runtime")]
    [InlineData("POST", "/{id}/runtime", "{}", 400, "validation", "runtime")]
    [InlineData("POST", "/{id}/runtime", """{"runtime":null,"force":true}""", 400, "validation", "force")]
    [InlineData("POST", "/{id}/runtime", "[]", 400, "validation", "")]
    [InlineData("POST", "/999/runtime", """{"runtime":null}""", 404, "node.not_found", null)]
    [InlineData("POST", "/{id}/warm-cache", """{}""", 400, "validation", "enabled")]
    [InlineData("POST", "/{id}/warm-cache", """{"enabled":null}""", 400, "validation", "enabled")]
    [InlineData("POST", "/{id}/warm-cache", """{"enabled":"yes"}""", 400, "validation", "enabled")]
    [InlineData("POST", "/{id}/warm-cache", """{"enabled":true,"ram_cache_limit_mb":0}""", 400, "validation", "ram_cache_limit_mb")]
    [InlineData("POST", "/{id}/warm-cache", """{"enabled":true,"ram_cache_limit_mb":-1}""", 400, "validation", "ram_cache_limit_mb")]
    [InlineData("POST", "/{id}/warm-cache", """{"enabled":true,"ram_cache_limit_mb":3e9}""", 400, "validation", "ram_cache_limit_mb")]
    [InlineData("POST", "/{id}/warm-cache", """{"enabled":true,"limit":5}""", 400, "validation", "limit")]
    [InlineData("POST", "/999/warm-cache", """{"enabled":true}""", 404, "node.not_found", null)]
    [InlineData("POST", "/{id}/maintenance", """{"gpu_ids":[]}""", 400, "validation", "enabled")]
    [InlineData("POST", "/{id}/maintenance", """{"enabled":true,"gpu_ids":[0,9]}""", 400, "validation", "gpu_ids")]
    [InlineData("POST", "/{id}/maintenance", """{"enabled":true,"gpu_ids":[-1]}""", 400, "validation", "gpu_ids")]
    [InlineData("POST", "/{id}/maintenance", """{"enabled":true,"gpu_ids":["0"]}""", 400, "validation", "gpu_ids[0]")]
    [InlineData("POST", "/{id}/maintenance", """{"enabled":true,"gpu_ids":0}""", 400, "validation", "gpu_ids")]
    [InlineData("POST", "/{id}/maintenance", """{"enabled":false,"drain":true}""", 400, "validation", "drain")]
    [InlineData("POST", "/{id}/maintenance", """{"enabled":true,"drain_timeout_seconds":5}""", 400, "validation", "drain_timeout_seconds")]
    [InlineData("POST", "/{id}/maintenance", """{"enabled":true,"drain":true,"drain_timeout_seconds":86401}""", 400, "validation", "drain_timeout_seconds")]
    [InlineData("POST", "/{id}/maintenance", """{"enabled":true,"gpus":[0]}""", 400, "validation", "gpus")]
    [InlineData("POST", "/999/maintenance", """{"enabled":true}""", 404, "node.not_found", null)]
    [InlineData("POST", "", """{"hostname":"gpu-7"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"ip_address":"10.0.0.7"}""", 400, "validation", "hostname")]
    [InlineData("POST", "", """{"hostname":"gpu_7","ip_address":"10.0.0.7"}""", 400, "validation", "hostname")]
    [InlineData("POST", "", """{"hostname":"-gpu","ip_address":"10.0.0.7"}""", 400, "validation", "hostname")]
    [InlineData("POST", "", """{"hostname":"gpu..7","ip_address":"10.0.0.7"}""", 400, "validation", "hostname")]
    [InlineData("POST", "", """{"hostname":"gpu\n","ip_address":"10.0.0.7"}""", 400, "validation", "hostname")]
    [InlineData("POST", "", """{"hostname":"<script>","ip_address":"10.0.0.7"}""", 400, "validation", "hostname")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"10.0.0"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"010.0.0.7"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"7"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"gpu-7.example"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"0.0.0.0"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"255.255.255.255"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"224.0.0.1"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"ff02::1"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"::"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"fe80::1%eth0"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"[::1]:80"}""", 400, "validation", "ip_address")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"10.0.0.7","port":0}""", 400, "validation", "port")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"10.0.0.7","port":65536}""", 400, "validation", "port")]
    [InlineData("POST", "", """{"hostname":"gpu-7","ip_address":"10.0.0.7","uid":"x"}""", 400, "validation", "uid")]
    [InlineData("PATCH", "/{id}", """{"hostname":"other"}""", 409, "node.not_by_hand", null)]
    [InlineData("PATCH", "/{id}", """{"name":"other"}""", 400, "validation", "name")]
    [InlineData("PATCH", "/{id}", """{"ip_address":"no"}""", 400, "validation", "ip_address")]
    [InlineData("PATCH", "/999", """{"hostname":"other"}""", 404, "node.not_found", null)]
    [InlineData("DELETE", "/999", "", 404, "node.not_found", null)]
    [InlineData("GET", "/999", "", 404, "node.not_found", null)]
    public async Task What_cannot_be_is_refused_by_name_and_changes_nothing(string method, string path, string body, int status, string code, string? field)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var node = await QuietNode.AddAsync(host, gpus: 2);
        var before = (await host.Client.JsonAsync("/api/nodes")).GetRawText();

        await SendAsync(host, new HttpMethod(method), path.Replace("{id}", $"{node.Id}", StringComparison.Ordinal), body)
            .ShouldBeRefusedAsync((HttpStatusCode)status, code, field);

        (await host.Client.JsonAsync("/api/nodes")).GetRawText().ShouldBe(before);
    }

    [Fact]
    public async Task A_node_is_registered_changed_and_deleted_by_hand()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: "Settings:DefaultWarmOffloadEnabled=false");
        await using var socket = await EventSocket.OpenAsync(host.Url);

        var made = await SentAsync(host, HttpMethod.Post, "", """{"hostname":"gpu-7.example","ip_address":"FD00::0007"}""");
        await socket.NextAsync("nodes_changed");
        var id = made.Id();
        await SendAsync(host, HttpMethod.Post, "", """{"hostname":"gpu-7.example","ip_address":"10.0.0.9"}""").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.hostname_taken");
        await SendAsync(host, HttpMethod.Post, "", """{"hostname":"gpu-8","ip_address":"fd00::7"}""").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.address_taken");
        var other = await SentAsync(host, HttpMethod.Post, "", """{"hostname":"gpu-8","ip_address":"fd00::7","port":9001}""");
        var moved = await SentAsync(host, HttpMethod.Patch, $"/{id}", """{"ip_address":"10.0.0.7","port":9100}""");
        await socket.NextAsync("nodes_changed");
        await SendAsync(host, HttpMethod.Patch, $"/{id}", """{"hostname":"gpu-8"}""").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.hostname_taken");
        await SendAsync(host, HttpMethod.Patch, $"/{id}", """{"ip_address":"fd00::7","port":9001}""").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.address_taken");
        var deleted = await SentAsync(host, HttpMethod.Delete, $"/{id}", "");

        (made.Text("ip_address"), made.GetProperty("port").GetInt32(), made.Text("status"), made.GetProperty("warm_offload_enabled").GetBoolean())
            .ShouldBe(("fd00::7", 9000, "unknown", false));
        (moved.Text("hostname"), moved.Text("ip_address"), moved.GetProperty("port").GetInt32()).ShouldBe(("gpu-7.example", "10.0.0.7", 9100));
        deleted.GetRawText().ShouldBe("""{"hostname":"gpu-7.example","deployments_deleted":0,"status":"deleted"}""");
        (await host.Client.JsonAsync("/api/nodes")).EnumerateArray().Select(node => node.Id()).ShouldBe([other.Id()]);
        await SendAsync(host, HttpMethod.Delete, $"/{id}", "").ShouldBeRefusedAsync(HttpStatusCode.NotFound, "node.not_found");
    }

    [Fact]
    public async Task Of_many_requests_for_one_name_one_gets_it()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);

        var answers = await Task.WhenAll(Enumerable.Range(1, 20).Select(i => SendAsync(host, HttpMethod.Post, "", $$"""{"hostname":"gpu-7","ip_address":"10.0.0.{{i}}"}""")));

        answers.Count(answer => answer.StatusCode == HttpStatusCode.OK).ShouldBe(1);
        answers.Count(answer => answer.StatusCode == HttpStatusCode.Conflict).ShouldBe(19);
    }

    [Theory]
    [InlineData("other", "10.0.0.7", 9007, true, true)]
    [InlineData("gpu-8", "10.0.0.7", 9007, true, true)] // a name says nothing
    [InlineData("gpu-7", "10.0.0.7", 9007, false, false)] // it did not prove to be there
    [InlineData("gpu-7", "10.0.0.9", 9009, true, false)]
    [InlineData("other", "10.0.0.7", 9009, true, false)]
    [InlineData("other", "10.0.0.9", 9007, true, false)]
    public async Task A_node_that_proves_to_be_there_takes_the_record_over_that_was_made_for_it_by_hand(string hostname, string address, int port, bool isProved, bool isTaken)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var nodes = host.Services.GetRequiredService<NodeService>();
        await SentAsync(host, HttpMethod.Post, "", """{"hostname":"gpu-8","ip_address":"10.0.0.8","port":9008}""");
        var made = (await SentAsync(host, HttpMethod.Post, "", """{"hostname":"gpu-7","ip_address":"10.0.0.7","port":9007}""")).Id();
        await SentAsync(host, HttpMethod.Post, $"/{made}/runtime", """{"runtime":"podman"}""");
        (await nodes.ListRemoteAsync(Ct)).ShouldBeEmpty("nobody has proved to be these");

        var seen = new NodeSeen(Guid.NewGuid().ToString("N"), hostname, IPAddress.Parse(address), port);
        var id = await nodes.EnsureAsync(seen, isProved, Ct);
        var another = await nodes.EnsureAsync(seen with { Uid = Guid.NewGuid().ToString("N") }, isProved, Ct);

        (id == made).ShouldBe(isTaken);
        another.ShouldNotBe(id, "a node is taken over once");
        another.ShouldNotBe(made);
        var taken = await host.Client.JsonAsync($"/api/nodes/{id}");
        (taken.Text("hostname"), taken.Text("ip_address"), taken.GetProperty("port").GetInt32(), taken.GetProperty("registered_by_hand").GetBoolean(), taken.Text("container_runtime"))
            .ShouldBe((hostname, address, port, false, isTaken ? "podman" : null));
        await SendAsync(host, HttpMethod.Patch, $"/{id}", """{"hostname":"mine"}""").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.not_by_hand");
        (await nodes.ListRemoteAsync(Ct)).ShouldContain((id, seen));
    }

    [Fact]
    public async Task A_purge_of_figures_counts_them()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: "Settings:NodesSyncIntervalSeconds=300");
        var node = await QuietNode.AddAsync(host);
        var history = host.Services.GetRequiredService<NodeHistory>();
        for (var i = 1; i <= 3; i++)
            await history.StoreAsync(DateTimeOffset.UtcNow.AddSeconds(-60 * i), [(node.Id, new NodeFigures())], Ct);

        using var answer = await host.Client.PostAsync(new Uri("/api/admin/purge", UriKind.Relative), new StringContent("""{"targets":["metrics"]}""", Encoding.UTF8, "application/json"), Ct);

        var purged = JsonDocument.Parse(await answer.Content.ReadAsStringAsync(Ct)).RootElement.GetProperty("purged");
        purged.GetProperty("node_metrics").GetInt32().ShouldBe(3);
        (await host.Client.JsonAsync($"/api/nodes/{node.Id}/metrics/history")).GetProperty("points").GetArrayLength().ShouldBe(0);
    }

    [Fact]
    public async Task A_port_is_checked_on_the_node_and_among_what_is_promised()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.NodeAsync("process");
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var taken = ((IPEndPoint)listener.LocalEndpoint).Port;
        var model = await host.Client.StartModelAsync(Api.StartRequest(id, port: 18_473));
        var promised = await CheckAsync(host, id, "18473");
        await host.Client.StatusAsync(model, "running");
        await host.Client.StopModelAsync(model);

        (promised.GetProperty("available").GetBoolean(), promised.Text("reason")!.Contains($"deployment {model}", StringComparison.Ordinal)).ShouldBe((false, true));
        (await CheckAsync(host, id, $"{taken}")).GetProperty("available").GetBoolean().ShouldBeFalse();
        (await CheckAsync(host, id, "18473")).GetRawText().ShouldBe("""{"available":true,"reason":null}""");
    }

    [Theory]
    [InlineData("", "port")]
    [InlineData("?port=0", "port")]
    [InlineData("?port=65536", "port")]
    [InlineData("?port=x", "port")]
    public async Task A_port_that_there_is_not_is_refused(string query, string field)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var node = await QuietNode.AddAsync(host);

        await host.Client.GetAsync(new Uri($"/api/nodes/{node.Id}/ports/check{query}", UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);
    }

    [Fact]
    public async Task A_port_of_a_node_that_does_not_answer_is_not_known()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var node = await QuietNode.AddAsync(host);
        var path = new Uri($"/api/nodes/{node.Id}/ports/check?port=9000", UriKind.Relative);
        (await host.Client.GetAsync(path, Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
        node.FallsSilent();

        await host.Client.GetAsync(path, Ct).ShouldBeRefusedAsync(HttpStatusCode.ServiceUnavailable, "node.unreachable");
        await host.Client.GetAsync(new Uri("/api/nodes/999/ports/check?port=9000", UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "node.not_found");
    }

    private static async Task<JsonElement> CheckAsync(ControlPlane host, int node, string port) =>
        await host.Client.JsonAsync($"/api/nodes/{node}/ports/check?port={port}");

    internal static async Task<HttpResponseMessage> SendAsync(ControlPlane host, HttpMethod method, string path, string body)
    {
        using var request = new HttpRequestMessage(method, "/api/nodes" + path);
        if (body.Length > 0)
            request.Content = new StringContent(body, Encoding.UTF8, "application/json");
        return await host.Client.SendAsync(request, Ct);
    }

    internal static async Task<JsonElement> SentAsync(ControlPlane host, HttpMethod method, string path, string body)
    {
        using var answer = await SendAsync(host, method, path, body);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK, text);
        return JsonDocument.Parse(text).RootElement;
    }
}
