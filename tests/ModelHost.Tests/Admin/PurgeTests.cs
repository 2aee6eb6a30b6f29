using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Runtimes;
using ModelHost.Data;
using ModelHost.TestKit;
using ModelHost.Tests.Gateway;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Admin;

public sealed class PurgeTests
{
    private static readonly Uri Route = new("/api/admin/purge", UriKind.Relative);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(null, """{"purged":{"deployments":1,"node_metrics":0,"nodes":1,"deployment_configs":2}}""")]
    [InlineData("{}", """{"purged":{"deployments":1,"node_metrics":0,"nodes":1,"deployment_configs":2}}""")]
    [InlineData("""{"targets":[]}""", """{"purged":{"deployments":1,"node_metrics":0,"nodes":1,"deployment_configs":2}}""")]
    [InlineData("""{"targets":null}""", """{"purged":{"deployments":1,"node_metrics":0,"nodes":1,"deployment_configs":2}}""")]
    [InlineData("""{"targets":["nodes"]}""", """{"purged":{"deployments":1,"node_metrics":0,"nodes":1}}""")]
    [InlineData("""{"targets":["configs","deployments"]}""", """{"purged":{"deployments":1,"deployment_configs":2}}""")]
    [InlineData("""{"targets":["metrics","metrics"]}""", """{"purged":{"node_metrics":0}}""")]
    [InlineData("""{"targets":["configs"]}""", """{"purged":{"deployment_configs":2}}""")]
    public async Task What_is_asked_for_goes_in_order_and_is_counted(string? body, string expected)
    {
        // no sample is taken meanwhile
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: "Settings:NodesSyncIntervalSeconds=300");
        await using var node = await FillAsync(host);
        await using var socket = await EventSocket.OpenAsync(host.Url);

        using var answer = await PostAsync(host, body);

        (await answer.Content.ReadAsStringAsync(Ct)).ShouldBe(expected);
        var purged = JsonDocument.Parse(expected).RootElement.GetProperty("purged");
        var (rows, configs, names) = await CountAsync(host);
        rows.ShouldBe(purged.TryGetProperty("deployments", out _) ? 0 : 1);
        names.ShouldBe(rows);
        configs.ShouldBe(purged.TryGetProperty("deployment_configs", out _) ? 0 : 2);
        if (purged.TryGetProperty("deployments", out _) || purged.TryGetProperty("deployment_configs", out _))
            (await socket.NextAsync("deployments_changed")).TryGetProperty("ids", out _).ShouldBeFalse();
        if (purged.TryGetProperty("node_metrics", out _))
            await socket.NextAsync("nodes_changed");
    }

    [Theory]
    [InlineData("""{"targets":["deployments","keys","x"]}""", "targets", "'keys', 'x'")]
    [InlineData("""{"targets":["Deployments"]}""", "targets", "'Deployments'")]
    [InlineData("""{"targets":[null]}""", "targets", "'null'")]
    [InlineData("""{"target":["configs"]}""", "target", "is no field")]
    [InlineData("""{"targets":"configs"}""", "targets", "wrong type")]
    [InlineData("""{"targets":[7]}""", "targets[0]", "wrong type")]
    [InlineData("[]", "", "JSON object")]
    [InlineData("{", "", "not valid JSON")]
    public async Task A_bad_request_is_named_and_deletes_nothing(string body, string field, string said)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        await using var node = await FillAsync(host);

        using var answer = await PostAsync(host, body);

        var problem = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest, problem.ToString());
        problem.GetProperty("errors").EnumerateObject().ShouldHaveSingleItem().Name.ShouldBe(field);
        problem.GetProperty("detail").GetString()!.ShouldContain(said);
        (await CountAsync(host)).ShouldBe((1, 2, 1));
    }

    [Fact]
    public async Task A_linked_node_is_there_again_under_its_id_and_takes_deployments()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");
        var uid = await UidAsync(host);

        (await PostAsync(host, null)).EnsureSuccessStatusCode();

        (await host.Client.NodeAsync("process")).ShouldBe(node);
        (await UidAsync(host)).ShouldBe(uid);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node));
        await host.Client.StatusAsync(id, "running");
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Engines_run_on()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process")));
        await host.Client.StatusAsync(id, "running");
        var engine = Directory.GetFiles(Path.Combine(host.Node.Data, "engines"), "*.json").ShouldHaveSingleItem();
        var before = ProcessSidecar.Read(engine)!;

        using var answer = await PostAsync(host, """{"targets":["deployments"]}""");

        (await answer.Content.ReadAsStringAsync(Ct)).ShouldBe("""{"purged":{"deployments":1}}""");
        // two looks at the node later at least
        await host.Client.NodeAsync("process");
        var other = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"), 8102, "demo/other"));
        await host.Client.StatusAsync(other, "running");
        var after = ProcessSidecar.Read(engine)!;
        (after.IsAlive, after.Pid).ShouldBe((true, before.Pid));
        await host.Client.StopModelAsync(other);
    }

    [Fact]
    public async Task The_gateway_forgets_at_once()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        await using var engine = await StandInEngine.StartAsync(host, _ => Task.CompletedTask);
        (await host.Client.JsonAsync("/v1/models")).GetProperty("data").GetArrayLength().ShouldBe(1);

        (await PostAsync(host, """{"targets":["deployments"]}""")).EnsureSuccessStatusCode();

        (await host.Client.JsonAsync("/v1/models")).GetProperty("data").GetArrayLength().ShouldBe(0);
        (await host.Client.GetAsync(new Uri("/readyz", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Settings_stay()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        (await host.Client.PutAsJsonAsync("/api/settings", new { default_port = 9001 }, Ct)).EnsureSuccessStatusCode();

        (await PostAsync(host, null)).EnsureSuccessStatusCode();

        (await host.Client.JsonAsync("/api/settings")).GetProperty("default_port").GetInt32().ShouldBe(9001);
    }

    /// <summary>A node that never begins its one deployment, and two configurations.</summary>
    private static async Task<ScriptedNode> FillAsync(ControlPlane host)
    {
        var node = await ScriptedNode.LinkAsync(host, Ct);
        node.Starts = false;
        await host.Client.NodeAsync("process");
        await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        foreach (var name in (string[])["a", "b"])
            (await host.Client.PostAsJsonAsync("/api/configs", new { name, payload = new { port = 1 } }, Ct)).EnsureSuccessStatusCode();
        return node;
    }

    private static async Task<(int Deployments, int Configs, int Names)> CountAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return (await db.Deployments.CountAsync(Ct), await db.Configs.CountAsync(Ct), await db.PublicNames.CountAsync(Ct));
    }

    private static async Task<string> UidAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return (await db.Nodes.SingleAsync(Ct)).Uid;
    }

    private static Task<HttpResponseMessage> PostAsync(ControlPlane host, string? body) =>
        host.Client.PostAsync(Route, body is null ? null : new StringContent(body, Encoding.UTF8, "application/json"), Ct);
}
