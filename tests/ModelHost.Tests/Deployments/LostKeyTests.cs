using System.Net;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>The keys with which the values of variables were encrypted are gone.</summary>
public sealed class LostKeyTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_start_that_is_pending_fails_once_with_its_cause_and_without_its_variables_nothing_starts()
    {
        using var surroundings = new TestNode();
        int pending, plain, rested;
        await using (var host = await ControlPlane.StartAsync(surroundings))
        {
            var node = await QuietNode.AddAsync(host);
            pending = await host.Client.StartModelAsync(Request(node.Id, 8101, "demo/pending"));
            plain = await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8102, "demo/plain"));
            rested = (await host.Client.PostedAsync("/", Request(node.Id, 8103, "demo/rested"))).Id();
        }
        surroundings.LoseKeys();

        await using var second = await ControlPlane.StartAsync(surroundings);
        // they were waiting for a node that did nothing
        await MoveAsync(second);
        var failed = await second.Client.StatusAsync(pending, "error");
        await second.Client.StatusAsync(plain, "running");
        var runs = await second.Client.JsonAsync($"/api/deployments/{pending}/runs");
        await second.Client.PostAsync($"/{pending}/restart", new JsonObject { ["owner"] = "tests" })
            .ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.variables_unreadable");
        var detail = await second.Client.PostAsync($"/{rested}/restart", new JsonObject { ["owner"] = "tests" })
            .ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.variables_unreadable");
        var again = await second.Client.StartModelAsync(Request(failed.GetProperty("node_id").GetInt32(), 8101, "demo/pending"));
        await second.Client.StatusAsync(again, "running");
        await second.Client.StopModelAsync(again);
        await second.Client.StopModelAsync(plain);

        failed.Text("error_code").ShouldBe("variables_unreadable");
        failed.Text("last_error").ShouldBe(DeploymentFailures.VariablesGone);
        runs.EnumerateArray().ShouldHaveSingleItem().Text("error_code").ShouldBe("variables_unreadable");
        detail.ShouldBe($"Deployment {rested}: {DeploymentFailures.VariablesGone}");
    }

    [Fact]
    public async Task An_engine_that_runs_goes_on()
    {
        using var surroundings = new TestNode();
        int id;
        await using (var host = await ControlPlane.StartAsync(surroundings))
        {
            id = await host.Client.StartModelAsync(Request(await host.Client.NodeAsync("process"), 8101, "demo/running"));
            await host.Client.StatusAsync(id, "running");
        }
        surroundings.LoseKeys();

        await using var second = await ControlPlane.StartAsync(surroundings);
        await second.Client.NodeAsync("process");
        await using var socket = await EventSocket.OpenAsync(second.Url);
        using var pinned = await second.Client.PostAsync($"/{id}/pin", new JsonObject { ["pinned"] = true });
        await socket.NextAsync("deployments_changed");
        var running = await second.Client.StatusAsync(id, "running");
        var runs = await second.Client.JsonAsync($"/api/deployments/{id}/runs");
        await second.Client.StopModelAsync(id);

        pinned.StatusCode.ShouldBe(HttpStatusCode.OK);
        running.GetProperty("last_error").ValueKind.ShouldBe(System.Text.Json.JsonValueKind.Null);
        runs.GetArrayLength().ShouldBe(1);
    }

    private static JsonObject Request(int node, int port, string model) => Api.StartRequest(node, port, model, change: request =>
        request["env_vars"] = new JsonArray(new JsonObject { ["key"] = "HF_TOKEN", ["value"] = "hf_a-secret-of-the-tests" }));

    private static async Task MoveAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        var node = (await db.Nodes.SingleAsync(node => node.Hostname != "quiet", Ct)).Id;
        await db.Deployments.ExecuteUpdateAsync(row => row.SetProperty(d => d.NodeId, node), Ct);
        await db.Nodes.Where(other => other.Id != node).ExecuteDeleteAsync(Ct);
        await host.Client.NodeAsync("process");
    }
}
