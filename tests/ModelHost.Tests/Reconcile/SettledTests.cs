using System.Net;
using System.Net.Http.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Gateway;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Reconcile;

/// <summary>Reconciliation with a node that does as it is told, down to what it is asked.</summary>
public sealed class SettledTests
{
    private const string AgainSoon = "Lifecycle:RelaunchDelay=00:00:00.050";

    // silence is told by seconds: not for a test whose node is never silent
    private static readonly string[] Quick = ["Settings:DeploymentsSyncIntervalSeconds=1", "Settings:DeploymentFailureThreshold=1", AgainSoon];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Starts, stops, extensions, failures and deletions in an order that the seed gives.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task What_is_as_it_is_wanted_is_not_asked_for_written_or_told_again(int seed)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: AgainSoon);
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        await LinkedAsync(host, node);
        var random = new Random(seed);
        var ids = new List<int>();
        for (var step = 0; step < 40; step++)
        {
            var id = ids.Count > 0 ? ids[random.Next(ids.Count)] : 0;
            switch (random.Next(ids.Count == 0 ? 1 : 7))
            {
                case 0:
                    ids.Add(await host.Client.StartModelAsync(Request(node, step)));
                    break;
                case 1:
                    await AskAsync(host, $"/stop/{id}", []);
                    break;
                case 2:
                    await AskAsync(host, $"/{id}/extend", new JsonObject { ["hours"] = 1 });
                    break;
                case 3:
                    await AskAsync(host, $"/{id}/pin", new JsonObject { ["pinned"] = random.Next(2) == 0 });
                    break;
                case 4:
                    await AskAsync(host, $"/{id}/restart", new JsonObject { ["owner"] = "tests" });
                    break;
                case 5:
                    node.Fail((await RowsAsync(host)).Single(row => row.Id == id).Uid);
                    break;
                case 6:
                    (await host.Client.DeleteAsync(new Uri($"/api/deployments/{id}", UriKind.Relative), Ct)).EnsureSuccessStatusCode().Dispose();
                    ids.Remove(id);
                    break;
            }
        }
        // a row may look settled while its engine has just ended, or while the end of another one is still to be asked for
        await Deadline.UntilAsync(async () =>
        {
            await node.PassAsync();
            return node.Difference(await RowsAsync(host));
        }, difference => difference.Length == 0, what: "all to come to rest");
        await node.PassAsync();
        using var changes = host.Services.GetRequiredService<ChangeFeed>().Subscribe(16);
        var (rows, asked) = (await RowsAsync(host), node.Asked);

        for (var pass = 0; pass < 3; pass++)
            await node.PassAsync();

        asked.ShouldNotBeEmpty();
        node.Asked.ShouldBe(asked);
        (await RowsAsync(host)).Select(row => (row.Id, row.Version, row.Status)).ShouldBe(rows.Select(row => (row.Id, row.Version, row.Status)));
        changes.Dispose();
        (await changes.ReadAllAsync(Ct).ToListAsync(Ct)).ShouldBeEmpty();
    }

    [Fact]
    public async Task Silence_stops_nothing_whatever_was_stored_meanwhile_and_a_stop_is_carried_out_afterwards()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: Quick);
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        await LinkedAsync(host, node);
        var (kept, stopped) = (await host.Client.StartModelAsync(Request(node, 0)), await host.Client.StartModelAsync(Request(node, 1)));
        await host.Client.StatusAsync(kept, "running");
        await host.Client.StatusAsync(stopped, "running");
        await node.PassAsync();
        var before = (await RowsAsync(host)).ToDictionary(row => row.Id, row => row.RunId);
        var asked = node.Asked.Count;

        node.IsSilent = true;
        await host.Client.StatusAsync(kept, "unreachable");
        await host.Client.StatusAsync(stopped, "unreachable");
        await AskAsync(host, $"/stop/{stopped}", []);
        await host.Client.PostAsync("/start", Request(node, 2)).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.unreachable");
        await node.PassAsync();
        var meanwhile = node.Asked.Skip(asked).ToArray();
        var held = await host.Client.JsonAsync($"/api/deployments/served-name/check?name=org/model-0");
        node.IsSilent = false;
        await host.Client.StatusAsync(stopped, "stopped");
        await host.Client.StatusAsync(kept, "running");

        meanwhile.ShouldBeEmpty();
        held.GetProperty("conflict_id").GetInt32().ShouldBe(kept, "it keeps its name");
        (await RowsAsync(host)).ToDictionary(row => row.Id, row => row.RunId).ShouldBe(before);
        node.Asked.Skip(asked).Distinct().ShouldBe([$"stop {before[stopped]}"]);
    }

    [Fact]
    public async Task A_model_that_is_shown_as_running_is_routed_to()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: AgainSoon);
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        await LinkedAsync(host, node);
        node.Starts = false;
        var ids = new List<int>();
        for (var number = 0; number < 40; number++)
            ids.Add(await host.Client.StartModelAsync(Request(node, number)));
        await node.PassAsync();

        // all of them are stored in one pass, one after the other
        node.Starts = true;
        var (routes, left) = (host.Services.GetRequiredService<RouteSource>(), ids.ToList());
        await Deadline.UntilAsync(async () =>
        {
            var running = (await RowsAsync(host)).Where(row => row.Status == DeploymentStatus.Running && left.Remove(row.Id)).ToArray();
            foreach (var row in running)
                routes.Current.Find(row.ReadSpec().ModelName).Route.ShouldNotBeNull($"deployment {row.Id}");
            return left.Count;
        }, count => count == 0);
    }

    [Fact]
    public async Task A_node_that_cannot_be_reached_makes_no_answer_an_internal_error()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: Quick);
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        await LinkedAsync(host, node);
        var id = await host.Client.StartModelAsync(Request(node, 0));
        await host.Client.StatusAsync(id, "running");
        node.IsSilent = true;

        (await host.Client.GetAsync(new Uri($"/api/deployments/{id}/logs", UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.ServiceUnavailable, "node.unreachable"))
            .ShouldBe("Node scripted did not hand out the log.");
        await AskAsync(host, $"/stop/{id}", []);
        using var deleted = await host.Client.DeleteAsync(new Uri($"/api/deployments/{id}", UriKind.Relative), Ct);

        deleted.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await RowsAsync(host)).ShouldBeEmpty();
    }

    [Fact]
    public async Task What_an_engine_counted_last_is_counted_although_it_is_gone_at_the_next_look()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        await LinkedAsync(host, node);
        var id = await host.Client.StartModelAsync(Request(node, 0));
        await host.Client.StatusAsync(id, "running");
        node.LastRequests = 7;

        await host.Client.StopModelAsync(id);

        (await RowsAsync(host)).Single().TotalRequests.ShouldBe(7);
        await AskAsync(host, $"/{id}/restart", new JsonObject { ["owner"] = "tests" });
        await host.Client.StatusAsync(id, "running");
        (await RowsAsync(host)).Single().TotalRequests.ShouldBe(7);
    }

    private static JsonObject Request(ScriptedNode node, int number) => Api.StartRequest(node.Id, 8101 + number, $"org/model-{number}", change: request =>
        (request["duration_seconds"], request["max_failed_restarts"]) = (3600, 20));

    private static Task LinkedAsync(ControlPlane host, ScriptedNode node) =>
        Deadline.UntilAsync(() => host.Services.GetRequiredService<NodeRegistry>().Find(node.Id)?.Report is not null, what: "the node to be heard");

    /// <summary>Asks for something that may be refused where the deployment stands now, and never fails otherwise.</summary>
    private static async Task AskAsync(ControlPlane host, string path, JsonObject body)
    {
        using var answer = await host.Client.PostAsJsonAsync("/api/deployments" + path, body, Ct);
        answer.StatusCode.ShouldBeOneOf(HttpStatusCode.OK, HttpStatusCode.Conflict);
    }

    private static async Task<List<Deployment>> RowsAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return await db.Deployments.AsNoTracking().OrderBy(row => row.Id).ToListAsync(Ct);
    }
}
