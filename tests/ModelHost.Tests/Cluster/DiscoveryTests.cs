using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Cluster;

/// <summary>Machines that are members, or were, and are no nodes.</summary>
public sealed class DiscoveryTests
{
    private static readonly string[] s_quick = ["Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Nothing_is_discovered_where_all_are_registered()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        await cluster.StatusAsync("gpu-1", "online");

        var answer = await cluster.Host.Client.JsonAsync("/api/nodes/discovered");

        answer.GetRawText().ShouldBe("""{"nodes":[],"consul_error":null}""");
    }

    [Fact]
    public async Task Member_that_has_not_reported_is_listed_until_it_does()
    {
        await using var cluster = await TestCluster.StartAsync();
        var uid = Guid.NewGuid().ToString("N");
        using (var client = await JoinAsync(cluster, uid))
        {
            var joined = await cluster.DiscoveredAsync("gpu-7");
            using var beat = await client.PostAsJsonAsync("/cluster/heartbeat", new { hostname = "gpu-7", port = 9, agent_version = "0.1.0" }, Ct);

            (joined!.Value.Text("status"), joined.Value.Text("node_uid")).ShouldBe(("joined", uid));
            beat.StatusCode.ShouldBe(HttpStatusCode.OK);
            (await cluster.DiscoveredAsync("gpu-7")).ShouldBeNull();
        }
        using var removed = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{(await cluster.NodeAsync("gpu-7"))!.Value.Id()}", UriKind.Relative), Ct);
        removed.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await cluster.DiscoveredAsync("gpu-7"))!.Value.Text("status").ShouldBe("joined");

        cluster.Clock.By = TimeSpan.FromDays(31.5);

        (await cluster.DiscoveredAsync("gpu-7")).ShouldBeNull("its certificate can be renewed no more");
    }

    [Fact]
    public async Task Revoked_node_is_listed_until_it_is_let_in_again_and_then_serves_what_ran_on()
    {
        await using var cluster = await TestCluster.StartAsync(configuration: s_quick);
        await using var agent = await cluster.AgentAsync();
        var node = await cluster.StatusAsync("gpu-1", "online");
        var id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(node));
        await cluster.Host.Client.StatusAsync(id, "running");

        using var removed = await cluster.Host.Client.DeleteAsync(new Uri($"/api/nodes/{node}?revoke=true", UriKind.Relative), Ct);
        var revoked = await Deadline.UntilAsync(() => cluster.DiscoveredAsync("gpu-1"), found => found?.GetProperty("last_heartbeat_at").ValueKind == JsonValueKind.String);
        (await cluster.NodeAsync("gpu-1")).ShouldBeNull();
        using var admitted = await cluster.Host.Client.PostAsync(new Uri($"/api/nodes/discovered/{agent.Uid}/admit", UriKind.Relative), null, Ct);
        var answer = await admitted.Content.ReadFromJsonAsync<JsonElement>(Ct);
        await cluster.StatusAsync("gpu-1", "online");
        var adopted = await Deadline.UntilAsync(() => cluster.Host.Client.JsonAsync("/api/deployments"), deployments => deployments.GetArrayLength() == 1);
        await cluster.Host.Client.StatusAsync(adopted[0].Id(), "running");
        using var again = await cluster.Host.Client.PostAsync(new Uri($"/api/nodes/discovered/{agent.Uid}/admit", UriKind.Relative), null, Ct);
        await cluster.Host.Client.StopModelAsync(adopted[0].Id());

        (removed.StatusCode, admitted.StatusCode, again.StatusCode).ShouldBe((HttpStatusCode.OK, HttpStatusCode.OK, HttpStatusCode.Conflict));
        (revoked!.Value.Text("status"), revoked.Value.Text("address"), revoked.Value.Text("node_uid")).ShouldBe(("revoked", "127.0.0.1", agent.Uid));
        revoked.Value.GetProperty("revoked_at").ValueKind.ShouldBe(JsonValueKind.String);
        answer.Text("status").ShouldBe("joined");
        (await cluster.DiscoveredAsync("gpu-1")).ShouldBeNull();
    }

    [Fact]
    public async Task Only_who_was_revoked_and_can_return_is_let_in()
    {
        await using var cluster = await TestCluster.StartAsync();
        var uid = Guid.NewGuid().ToString("N");
        using var client = await JoinAsync(cluster, uid);
        Task<string> AdmitAsync(string node, HttpStatusCode status, string code) =>
            cluster.Host.Client.PostAsync(new Uri($"/api/nodes/discovered/{node}/admit", UriKind.Relative), null, Ct).ShouldBeRefusedAsync(status, code);

        await AdmitAsync(Guid.NewGuid().ToString("N"), HttpStatusCode.NotFound, "node.not_discovered");
        await AdmitAsync("..%2F..%0d%0a" + new string('x', 2000), HttpStatusCode.NotFound, "node.not_discovered");
        await AdmitAsync(uid, HttpStatusCode.Conflict, "node.not_revoked");
        await cluster.Service.RevokeAsync(uid, "gpu-7", Ct);
        cluster.Clock.By = TimeSpan.FromDays(31.5);

        await AdmitAsync(uid, HttpStatusCode.Conflict, "node.certificate_over");
        (await cluster.DiscoveredAsync("gpu-7"))!.Value.Text("status").ShouldBe("revoked");
    }

    private static async Task<HttpClient> JoinAsync(TestCluster cluster, string uid)
    {
        var token = await cluster.TokenAsync();
        using var nobody = cluster.Client();
        using var joined = await nobody.PostAsJsonAsync("/cluster/join", TestCluster.JoinRequest(token, uid, "gpu-7"), Ct);
        joined.StatusCode.ShouldBe(HttpStatusCode.OK);
        return cluster.Client(cluster.CertificateOf(uid));
    }
}
