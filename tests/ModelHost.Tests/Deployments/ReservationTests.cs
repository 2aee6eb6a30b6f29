using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Ports and names of deployments that are there.</summary>
public sealed class ReservationTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_port_and_a_name_have_one_holder_until_it_stops()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");
        var holder = await host.Client.StartModelAsync(Api.StartRequest(node, 8101, change: request =>
        {
            request["engine_args"] = new JsonObject { ["served_model_name"] = "chat" };
            request["lora_modules"] = new JsonArray(new JsonObject { ["name"] = "sql", ["path"] = "org/sql-lora" });
        }));

        await ConflictAsync(host, Api.StartRequest(node, 8101, "demo/other"), "deployment.port_taken", $"Port 8101 on {Dns.GetHostName()} is held by deployment {holder} (demo/tiny-chat).");
        await ConflictAsync(host, Named(node, "chat"), "deployment.name_taken", $"held by deployment {holder} (demo/tiny-chat)");
        await ConflictAsync(host, Named(node, "sql"), "deployment.name_taken", "The name 'sql' is held");
        await ConflictAsync(host, Api.StartRequest(node, 8102, "chat"), "deployment.name_taken", "The name 'chat' is held");
        await ConflictAsync(host, Api.StartRequest(node, 8102, "demo/other", change: request =>
            request["lora_modules"] = new JsonArray(new JsonObject { ["name"] = "chat", ["path"] = "org/lora" })), "deployment.name_taken", "The name 'chat' is held");
        await host.Client.StopModelAsync(holder);
        var next = await host.Client.StartModelAsync(Named(node, "chat", 8101));
        await host.Client.StopModelAsync(next);
    }

    [Fact]
    public async Task Of_two_starts_at_once_one_gets_the_port()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => host.Client.PostAsJsonAsync("/api/deployments/start", Api.StartRequest(node, 8101, $"demo/model-{i}"), Ct)));

        answers.Count(answer => answer.StatusCode == HttpStatusCode.OK).ShouldBe(1);
        answers.Count(answer => answer.StatusCode == HttpStatusCode.Conflict).ShouldBe(7);
        foreach (var deployment in (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().ToArray())
            await host.Client.StopModelAsync(deployment.GetProperty("id").GetInt32());
    }

    [Fact]
    public async Task A_row_that_cannot_be_read_is_shown_and_holds_up_nobody()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");
        await using (var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct))
        {
            db.Deployments.Add(new Deployment
            {
                Uid = Guid.NewGuid().ToString(),
                NodeId = node,
                Spec = """{"version":99}""",
                Wanted = WantedState.Running,
                Status = DeploymentStatus.Running,
                RunId = Guid.NewGuid().ToString("N"),
                ReservedPort = 8105,
            });
            await db.SaveChangesAsync(Ct);
        }

        var id = await host.Client.StartModelAsync(Api.StartRequest(node));
        await host.Client.StatusAsync(id, "running");
        var listed = await host.Client.JsonAsync("/api/deployments");
        await host.Client.StopModelAsync(id);

        listed.EnumerateArray().Select(d => (d.GetProperty("model_name").GetString(), d.GetProperty("port").GetInt32())).ShouldContain(("unknown", 8105));
    }

    private static JsonObject Named(int node, string name, int port = 8102) =>
        Api.StartRequest(node, port, "demo/other", change: request => request["engine_args"] = new JsonObject { ["served_model_name"] = name });

    private static async Task ConflictAsync(ControlPlane host, JsonObject request, string code, string detail)
    {
        using var answer = await host.Client.PostAsJsonAsync("/api/deployments/start", request, Ct);
        var problem = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.Conflict, problem.ToString());
        problem.GetProperty("code").GetString().ShouldBe(code);
        problem.GetProperty("detail").GetString()!.ShouldContain(detail);
    }
}
