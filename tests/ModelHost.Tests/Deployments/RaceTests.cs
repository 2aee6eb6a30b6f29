using System.Net;
using System.Text.Json.Nodes;
using ModelHost.Core.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Requests at the same moment for what there is once.</summary>
public sealed class RaceTests
{
    private const int Rounds = 50;

    [Fact]
    public async Task Of_two_starts_for_a_port_exactly_one_wins_every_time()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        for (var round = 0; round < Rounds; round++)
        {
            await OneWinsAsync("deployment.port_taken",
                host.Client.PostAsync("/start", Api.StartRequest(node.Id, 8101 + round, $"demo/a-{round}")),
                host.Client.PostAsync("/start", Api.StartRequest(node.Id, 8101 + round, $"demo/b-{round}")));
        }

        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(Rounds);
    }

    [Fact]
    public async Task Of_two_starts_for_a_name_on_two_nodes_exactly_one_wins_every_time()
    {
        await using var host = await ControlPlane.StartAsync();
        var (node, other) = (await QuietNode.AddAsync(host), await QuietNode.AddAsync(host));
        for (var round = 0; round < Rounds; round++)
        {
            var name = new JsonObject { ["served_model_name"] = $"name-{round}" };
            await OneWinsAsync("deployment.name_taken",
                host.Client.PostAsync("/start", Api.StartRequest(node.Id, 8101 + round, "demo/a", change: r => r["engine_args"] = name.DeepClone())),
                host.Client.PostAsync("/start", Api.StartRequest(other.Id, 8101 + round, "demo/b", change: r => r["engine_args"] = name.DeepClone())));
        }
    }

    [Fact]
    public async Task Of_two_restarts_of_one_deployment_exactly_one_wins_every_time()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        for (var round = 0; round < Rounds; round++)
        {
            await node.SetAsync(id, DeploymentStatus.Stopped);
            await OneWinsAsync("deployment.wrong_status",
                host.Client.PostAsync($"/{id}/restart", new JsonObject { ["owner"] = "a" }),
                host.Client.PostAsync($"/{id}/restart", new JsonObject { ["owner"] = "b" }));
        }
    }

    [Fact]
    public async Task Extensions_at_the_same_moment_all_count()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id, change: r => r["duration_seconds"] = 60));

        var answers = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => host.Client.PostAsync($"/{id}/extend", new JsonObject { ["hours"] = 1 })));

        answers.ShouldAllBe(answer => answer.StatusCode == HttpStatusCode.OK);
        (await node.RowAsync(id)).ReadSpec().DurationSeconds.ShouldBe(60 + (4 * 3600));
    }

    private static async Task OneWinsAsync(string code, params Task<HttpResponseMessage>[] sent)
    {
        var answers = await Task.WhenAll(sent);
        answers.Count(answer => answer.StatusCode == HttpStatusCode.OK).ShouldBe(1);
        await Task.FromResult(answers.Single(answer => answer.StatusCode != HttpStatusCode.OK)).ShouldBeRefusedAsync(HttpStatusCode.Conflict, code);
    }
}
