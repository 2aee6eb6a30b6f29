using System.Net;
using System.Net.Http.Json;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Service;
using ModelHost.Cluster;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;
using ModelHost.Rpc;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Cluster;

/// <summary>Nodes on other machines while they serve, fall silent and come back; and who may command whom.</summary>
public sealed class RemoteNodeTests
{
    // the shortest times that the settings allow
    private static readonly string[] s_quick = ["Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Model_runs_on_the_node_and_is_served_through_its_agent()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var node = await cluster.StatusAsync("gpu-1", "online");

        var id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(node));
        await cluster.Host.Client.StatusAsync(id, "running");
        using var whole = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 5), Ct);
        using var stream = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", stream: true, maxTokens: 5), Ct);
        var events = await stream.Content.ReadAsStringAsync(Ct);
        var logs = await Deadline.UntilAsync(
            () => cluster.Host.Client.GetStringAsync(new Uri($"/api/deployments/{id}/logs", UriKind.Relative), Ct), text => text.Contains("vLLM", StringComparison.Ordinal), what: "the log to be read");
        var engines = Directory.GetFiles(Path.Combine(agent.Node.Data, "engines"), "*.json").Length;
        await cluster.Host.Client.StopModelAsync(id);

        whole.StatusCode.ShouldBe(HttpStatusCode.OK);
        events.ShouldContain("data: [DONE]");
        logs.ShouldContain("vLLM");
        engines.ShouldBe(1);
        Directory.GetFiles(Path.Combine(agent.Node.Data, "engines"), "*.json").ShouldBeEmpty();
    }

    [Fact]
    public async Task Silence_stops_nothing_and_the_return_is_seen()
    {
        // degraded for as long as it takes to see it
        await using var cluster = await TestCluster.StartAsync(configuration: [.. s_quick, "Settings:NodeFailureThreshold=20"]);
        using var surroundings = new TestNode();
        var port = TestPorts.Free(); // nobody else is given it while it is not listened at
        var token = await cluster.TokenAsync();
        var agent = await NodeAgent.StartAsync(cluster.Join, token, surroundings, time: cluster.Clock, port: port);
        var node = await cluster.StatusAsync("gpu-1", "online");
        var id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(node));
        await cluster.Host.Client.StatusAsync(id, "running");
        await agent.DisposeAsync();

        await cluster.StatusAsync("gpu-1", "degraded");
        cluster.Clock.By = TimeSpan.FromMinutes(1);
        await cluster.StatusAsync("gpu-1", "critical");
        var gone = await cluster.Host.Client.StatusAsync(id, "unreachable");
        using var unserved = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat"), Ct);
        using var logs = await cluster.Host.Client.GetAsync(new Uri($"/api/deployments/{id}/logs", UriKind.Relative), Ct);
        Directory.GetFiles(Path.Combine(surroundings.Data, "engines"), "*.json").Length.ShouldBe(1);
        await using var back = await NodeAgent.StartAsync(null, null, surroundings, time: cluster.Clock, port: port);
        await cluster.StatusAsync("gpu-1", "online");
        var running = await cluster.Host.Client.StatusAsync(id, "running");
        using var served = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 2), Ct);
        var runs = await cluster.Host.Client.JsonAsync($"/api/deployments/{id}/runs");
        await cluster.Host.Client.StopModelAsync(id);

        gone.GetProperty("port").GetInt32().ShouldBe(running.GetProperty("port").GetInt32());
        (unserved.StatusCode, logs.StatusCode, served.StatusCode).ShouldBe((HttpStatusCode.BadGateway, HttpStatusCode.ServiceUnavailable, HttpStatusCode.OK));
        runs.GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task Node_that_is_elsewhere_now_is_found_by_its_heartbeat()
    {
        await using var cluster = await TestCluster.StartAsync(configuration: s_quick);
        using var surroundings = new TestNode();
        var agent = await cluster.AgentAsync(node: surroundings);
        var node = await cluster.StatusAsync("gpu-1", "online");
        var id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(node));
        await cluster.Host.Client.StatusAsync(id, "running");
        await agent.DisposeAsync();

        await using var moved = await NodeAgent.StartAsync(null, null, surroundings, time: cluster.Clock);
        await Deadline.UntilAsync(() => cluster.NodeAsync("gpu-1"), found => found?.GetProperty("port").GetInt32() == moved.Url.Port);
        await cluster.StatusAsync("gpu-1", "online");
        await cluster.Host.Client.StatusAsync(id, "running");
        // its record is changed before its link is: until then it is asked where it was
        await ServedAsync(cluster);
        await cluster.Host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Restart_of_the_control_plane_touches_no_engine_and_finds_its_nodes()
    {
        using var surroundings = new TestNode();
        using var remote = new TestNode();
        var port = TestPorts.Free();
        int id;
        NodeAgent agent;
        await using (var cluster = await TestCluster.StartAsync(surroundings, $"Cluster:Listen=127.0.0.1:{port}"))
        {
            agent = await cluster.AgentAsync(node: remote);
            var node = await cluster.StatusAsync("gpu-1", "online");
            id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(node));
            await cluster.Host.Client.StatusAsync(id, "running");
        }
        await using var ending = agent;

        await using var again = await TestCluster.StartAsync(surroundings, $"Cluster:Listen=127.0.0.1:{port}");
        again.Join.ShouldBe($"127.0.0.1:{port}");
        await again.Host.Client.StatusAsync(id, "running");
        await again.StatusAsync("gpu-1", "online");
        await ServedAsync(again);
        var runs = await again.Host.Client.JsonAsync($"/api/deployments/{id}/runs");
        await again.Host.Client.StopModelAsync(id);

        runs.GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task Revoked_node_is_not_spoken_to_and_its_engines_go_on()
    {
        await using var cluster = await TestCluster.StartAsync(configuration: s_quick);
        await using var agent = await cluster.AgentAsync();
        var node = await cluster.StatusAsync("gpu-1", "online");
        var id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(node));
        await cluster.Host.Client.StatusAsync(id, "running");

        await cluster.Service.RevokeAsync(agent.Uid, "gpu-1", Ct);
        await cluster.StatusAsync("gpu-1", "critical");
        await cluster.Host.Client.StatusAsync(id, "unreachable");
        using var removed = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{node}?revoke=true", UriKind.Relative), Ct);

        removed.StatusCode.ShouldBe(HttpStatusCode.OK);
        await Deadline.UntilAsync(() => cluster.Host.Client.JsonAsync("/api/deployments"), deployments => deployments.GetArrayLength() == 0);
        (await cluster.NodeAsync("gpu-1")).ShouldBeNull();
        Directory.GetFiles(Path.Combine(agent.Node.Data, "engines"), "*.json").Length.ShouldBe(1);
    }

    [Fact]
    public async Task Heartbeat_that_was_let_in_before_a_revocation_registers_nothing_after_it()
    {
        await using var cluster = await TestCluster.StartAsync();
        using var certificate = cluster.CertificateOf(Guid.NewGuid().ToString("N"));
        var beat = new HeartbeatRequest { Hostname = "gone", Port = 9, AgentVersion = "0.1.0" };
        Task<Core.Result<HeartbeatAnswer>> HeardAsync() => cluster.Service.HeardAsync(ClusterName.Read(certificate)!, beat, IPAddress.Loopback, Ct);
        (await HeardAsync()).TryGet(out var heard, out _).ShouldBeTrue();

        using var removed = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{heard!.NodeId}?revoke=true", UriKind.Relative), Ct);
        var late = await HeardAsync();

        removed.StatusCode.ShouldBe(HttpStatusCode.OK);
        late.Failure.ShouldNotBeNull().Code.ShouldBe("cluster.certificate_refused");
        (await cluster.NodeAsync("gone")).ShouldBeNull();
    }

    [Fact]
    public async Task Removed_node_registers_again_and_what_runs_there_is_adopted()
    {
        await using var cluster = await TestCluster.StartAsync(configuration: s_quick);
        await using var agent = await cluster.AgentAsync();
        var node = await cluster.StatusAsync("gpu-1", "online");
        var before = await cluster.Host.Client.StartModelAsync(Api.StartRequest(node));
        await cluster.Host.Client.StatusAsync(before, "running");
        await cluster.Host.Client.PostAsJsonAsync($"/api/nodes/{node}/runtime", new { runtime = "podman" }, Ct);
        var history = cluster.Host.Services.GetRequiredService<NodeHistory>();
        await history.StoreAsync(cluster.Clock.GetUtcNow().AddMinutes(-1), [(node, new NodeFigures())], Ct);

        using var removed = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{node}", UriKind.Relative), Ct);
        var answer = await removed.Content.ReadFromJsonAsync<JsonElement>(Ct);
        var again = await cluster.StatusAsync("gpu-1", "online");
        var read = await cluster.Host.Client.JsonAsync($"/api/nodes/{again}");
        var points = (await cluster.Host.Client.JsonAsync($"/api/nodes/{again}/metrics/history")).GetProperty("points").EnumerateArray()
            .Count(point => point.GetProperty("recorded_at").GetDateTimeOffset() < cluster.Clock.GetUtcNow().AddSeconds(-50));
        var found = await Deadline.UntilAsync(() => cluster.Host.Client.JsonAsync("/api/deployments"), deployments => deployments.GetArrayLength() == 1);
        await cluster.Host.Client.StatusAsync(found[0].GetProperty("id").GetInt32(), "running");
        using var served = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 2), Ct);
        await cluster.Host.Client.StopModelAsync(found[0].GetProperty("id").GetInt32());

        (removed.StatusCode, served.StatusCode).ShouldBe((HttpStatusCode.OK, HttpStatusCode.OK));
        (answer.Text("hostname"), answer.GetProperty("deployments_deleted").GetInt32(), answer.Text("status")).ShouldBe(("gpu-1", 1, "deleted"));
        read.GetProperty("container_runtime").ValueKind.ShouldBe(JsonValueKind.Null);
        points.ShouldBe(0);
        found[0].GetProperty("node_id").GetInt32().ShouldBe((await cluster.StatusAsync("gpu-1", "online")));
    }

    [Fact]
    public async Task Node_that_joins_takes_over_what_was_set_for_it_by_hand_and_a_revocation_of_one_that_has_not_joined_is_none()
    {
        await using var cluster = await TestCluster.StartAsync(configuration: s_quick);
        var port = TestPorts.Free();
        using var made = await cluster.Host.Client.PostAsJsonAsync("/api/nodes", new { hostname = "first", ip_address = "127.0.0.1", port }, Ct);
        using var never = await cluster.Host.Client.PostAsJsonAsync("/api/nodes", new { hostname = "gpu-2", ip_address = "10.9.9.8" }, Ct);
        var (first, second) = ((await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).Id(), (await never.Content.ReadFromJsonAsync<JsonElement>(Ct)).Id());
        using var cordoned = await cluster.Host.Client.PostAsJsonAsync($"/api/nodes/{first}/maintenance", new { enabled = true }, Ct);

        var token = await cluster.TokenAsync(); // which opens the listener
        await using var agent = await NodeAgent.StartAsync(cluster.Join, token, time: cluster.Clock, port: port);
        var joined = await cluster.StatusAsync("gpu-1", "maintenance");
        await Deadline.UntilAsync(() => cluster.NodeAsync("gpu-1"), node => node?.Text("agent_version") is not null);
        var other = await cluster.StatusAsync("gpu-2", "unknown");
        using var removed = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{second}?revoke=true", UriKind.Relative), Ct);

        (joined, other, removed.StatusCode).ShouldBe((first, second, HttpStatusCode.OK));
        cluster.Host.Services.GetRequiredService<ClusterBook>().Members.Keys.ShouldBe([agent.Uid]);
    }

    [Theory]
    [InlineData("the name of another")]
    [InlineData("the address of another")]
    public async Task Member_that_tells_what_another_is_known_by_does_not_get_what_was_set_for_that(string lie)
    {
        await using var cluster = await TestCluster.StartAsync(configuration: s_quick);
        await using var victim = await cluster.AgentAsync("victim");
        await cluster.StatusAsync("victim", "online");
        // as it was before the victim joined, and will be once its record is deleted
        await using (var db = await cluster.Host.Services.GetRequiredService<Database>().OpenAsync(Ct))
            await db.Nodes.Where(node => node.Hostname == "victim").ExecuteUpdateAsync(set => set.SetProperty(n => n.Port, 1).SetProperty(n => n.Hostname, "before"), Ct);
        using var made = await cluster.Host.Client.PostAsJsonAsync(
            "/api/nodes", new { hostname = "wanted", ip_address = "127.0.0.1", port = lie.Contains("address", StringComparison.Ordinal) ? victim.Url.Port : 9000 }, Ct);
        var byHand = (await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).Id();
        var liar = cluster.CertificateOf(Guid.NewGuid().ToString("N"));
        using var client = cluster.Client(liar);

        using var beat = await client.PostAsJsonAsync("/cluster/heartbeat", lie.Contains("name", StringComparison.Ordinal)
            ? new { hostname = "wanted", port = 1, agent_version = "0.1.0" } : new { hostname = "liar", port = victim.Url.Port, agent_version = "0.1.0" }, Ct);
        var answer = await beat.Content.ReadFromJsonAsync<JsonElement>(Ct);

        answer.GetProperty("node_id").GetInt32().ShouldNotBe(byHand);
        var record = await cluster.Host.Client.JsonAsync($"/api/nodes/{byHand}");
        (record.Text("hostname"), record.Text("status"), record.GetProperty("registered_by_hand").GetBoolean()).ShouldBe(("wanted", "unknown", true));
    }

    [Fact]
    public async Task Node_in_the_control_plane_cannot_be_removed_nor_one_that_there_is_not()
    {
        await using var cluster = await TestCluster.StartAsync();
        var local = await cluster.Host.Client.NodeAsync();

        using var own = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{local}", UriKind.Relative), Ct);
        using var none = await cluster.Host.Client.DeleteAsync(new Uri("/api/nodes/999", UriKind.Relative), Ct);

        (own.StatusCode, none.StatusCode).ShouldBe((HttpStatusCode.Conflict, HttpStatusCode.NotFound));
    }

    [Fact]
    public async Task Agent_obeys_the_control_plane_of_its_cluster_alone()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var other = await TestCluster.StartAsync();
        await using var victim = await cluster.AgentAsync();
        await using var neighbour = await cluster.AgentAsync("gpu-2");
        await using var foreigner = await other.AgentAsync();
        using var ours = Authority(cluster).ControlPlane();
        using var theirs = Authority(other).ControlPlane();
        foreach (var (who, shown, obeyed) in ((string, X509Certificate2?, bool)[])
            [("nobody", null, false), ("another node", neighbour.Certificate, false), ("the node itself", victim.Certificate, false), ("a node of another cluster", foreigner.Certificate, false),
                ("the control plane of another cluster", theirs, false), ("its control plane", ours, true)])
        {
            using var client = Client(victim.Url, shown);
            var ask = () => client.UnaryAsync(NodeMethods.Report, new ReportRequest(), TimeSpan.FromSeconds(30), Ct);

            if (obeyed)
                (await ask()).NodeId.ShouldBe(victim.Uid, who);
            else
                (await Should.ThrowAsync<RpcException>(ask, who)).Code.ShouldBe(RpcCode.Unavailable, who);
            using var http = Http(shown);
            var relay = () => http.GetAsync(new Uri(victim.Url, "/engines/x/v1/models"), Ct);
            if (obeyed)
                (await relay()).StatusCode.ShouldBe(HttpStatusCode.ServiceUnavailable, who); // there is no such run
            else
                await Should.ThrowAsync<HttpRequestException>(relay, who);
        }
    }

    [Fact]
    public async Task Connection_ends_with_the_certificate_that_it_was_made_with()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        using var shown = Authority(cluster).ControlPlane();
        using var client = Client(agent.Url, shown);
        (await client.UnaryAsync(NodeMethods.Report, new ReportRequest(), TimeSpan.FromSeconds(30), Ct)).NodeId.ShouldBe(agent.Uid);

        cluster.Clock.By = TimeSpan.FromHours(24.1);

        var refused = await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(NodeMethods.Report, new ReportRequest(), TimeSpan.FromSeconds(30), Ct));
        refused.Code.ShouldBe(RpcCode.PermissionDenied);
    }

    [Fact]
    public async Task Node_that_says_it_is_where_another_is_commands_nothing_there()
    {
        await using var cluster = await TestCluster.StartAsync(configuration: s_quick);
        await using var victim = await cluster.AgentAsync();
        var liar = cluster.CertificateOf(Guid.NewGuid().ToString("N"));
        using var client = cluster.Client(liar);

        using var beat = await client.PostAsJsonAsync("/cluster/heartbeat", new { hostname = "liar", port = victim.Url.Port, agent_version = "0.1.0" }, Ct);
        beat.StatusCode.ShouldBe(HttpStatusCode.OK);
        var node = await cluster.StatusAsync("liar", "critical");

        using var start = await cluster.Host.Client.PostAsJsonAsync("/api/deployments/start", Api.StartRequest(node), Ct);
        start.IsSuccessStatusCode.ShouldBeFalse();
        await cluster.StatusAsync("gpu-1", "online");
        Directory.GetFiles(Path.Combine(victim.Node.Data, "engines"), "*.json").ShouldBeEmpty();
    }

    [Fact]
    public async Task Agent_of_a_version_too_far_off_is_not_spoken_to_until_it_is_updated()
    {
        await using var cluster = await TestCluster.StartAsync(configuration: s_quick);
        await using var agent = await cluster.AgentAsync();
        await cluster.StatusAsync("gpu-1", "online");
        var other = cluster.CertificateOf(Guid.NewGuid().ToString("N"));
        using var client = cluster.Client(other);

        using var beat = await client.PostAsJsonAsync("/cluster/heartbeat", new { hostname = "old", port = 1, agent_version = "99.0.0" }, Ct);
        await cluster.StatusAsync("old", "critical");

        (await cluster.NodeAsync("old"))!.Value.GetProperty("status_detail").GetString().ShouldNotBeNull().ShouldContain("99.0.0 is too new");
        // nothing is wrong with the other, but for a heartbeat that is late on a crowded machine
        await Deadline.UntilAsync(() => cluster.NodeAsync("gpu-1"), node => node!.Value.Text("status_detail") is null, what: "gpu-1 to be as it was");
    }

    [Theory]
    [InlineData("1.4.0", null)]
    [InlineData("1.3.9", null)]
    [InlineData("1.5.0", null)]
    [InlineData("1.2.0", "Update the agent.")]
    [InlineData("1.6.0", "Update the control plane.")]
    [InlineData("0.4.0", "Update the agent.")]
    [InlineData("2.4.0", "Update the control plane.")]
    [InlineData("", "can be read")]
    [InlineData("latest", "can be read")]
    public void Agents_one_minor_version_off_work(string agent, string? fault)
    {
        var told = AgentVersion.Fault(agent, new Version(1, 4, 2));

        if (fault is null)
            told.ShouldBeNull();
        else
            told.ShouldNotBeNull().ShouldContain(fault);
    }

    [Theory]
    [InlineData(10, 3, 0, 10)]
    [InlineData(10, 200, 0, 10)]
    [InlineData(10, 1000, 0, 50)]
    [InlineData(10, 1000, 1, 40)]
    [InlineData(1, 5, 1, 0.8)]
    public void Interval_grows_with_the_fleet_and_is_staggered(double interval, int nodes, double random, double expected) =>
        Heartbeats.Next(TimeSpan.FromSeconds(interval), nodes, random).TotalSeconds.ShouldBe(expected, 0.001);

    // a node that has not been heard yet has its models still: they load or are not reached, and are not unknown
    private static Task<HttpStatusCode> ServedAsync(TestCluster cluster) => Deadline.UntilAsync(
        async () =>
        {
            using var answer = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 2), Ct);
            answer.StatusCode.ShouldBeOneOf(HttpStatusCode.OK, HttpStatusCode.ServiceUnavailable, HttpStatusCode.BadGateway);
            return answer.StatusCode;
        },
        status => status == HttpStatusCode.OK);

    private static ClusterAuthority Authority(TestCluster cluster) => cluster.Host.Services.GetRequiredService<Lazy<ClusterAuthority>>().Value;

    private static RpcClient Client(Uri agent, X509Certificate2? shown) => new(agent, new RpcClientOptions { Tls = Tls(shown) });

    private static HttpClient Http(X509Certificate2? shown) => new(new SocketsHttpHandler { UseProxy = false, SslOptions = Tls(shown) });

    private static SslClientAuthenticationOptions Tls(X509Certificate2? shown) => new()
    {
        RemoteCertificateValidationCallback = (_, certificate, _, _) => certificate is not null,
        LocalCertificateSelectionCallback = (_, _, _, _, _) => shown!,
    };
}
