using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Features.Deployments;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Starting again what ended.</summary>
public sealed class RestartTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_stopped_deployment_runs_again_as_it_was()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"), change: request =>
        {
            request["duration_seconds"] = 3600;
            request["env_vars"] = new JsonArray(new JsonObject { ["key"] = "VLLM_SIM_LOAD_SECONDS", ["value"] = "0.1" });
        }));
        var first = await host.Client.StatusAsync(id, "running");
        using (var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 5), Ct))
            answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        await CountedAsync(1);
        await host.Client.StopModelAsync(id);

        var answered = await host.Client.PostedAsync($"/{id}/restart", new JsonObject { ["owner"] = "another" });
        var second = await host.Client.StatusAsync(id, "running");
        using var chat = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 5), Ct);
        await CountedAsync(2);
        await host.Client.StopModelAsync(id);

        first.GetProperty("expires_at").ValueKind.ShouldBe(JsonValueKind.String);
        (answered.Text("status"), answered.Text("owner")).ShouldBe(("starting", "another"));
        (second.GetProperty("expires_at").ValueKind, second.GetProperty("duration_seconds").ValueKind).ShouldBe((JsonValueKind.Null, JsonValueKind.Null));
        second.GetProperty("env_vars").ToString().ShouldBe("""[{"key":"VLLM_SIM_LOAD_SECONDS","value":"********"}]""");
        chat.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("total_requests").GetInt64().ShouldBe(2);

        // an engine is read once more at its end, but what a busy machine does not get to know in time is not counted
        Task CountedAsync(int requests) => Deadline.UntilAsync(
            async () => (await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("total_requests").GetInt64(), count => count == requests, what: "the requests to be counted");
    }

    [Theory]
    [InlineData(DeploymentStatus.Stopped)]
    [InlineData(DeploymentStatus.Expired)]
    [InlineData(DeploymentStatus.Error)]
    public async Task A_restart_is_a_new_run_with_the_values_that_were_stored(DeploymentStatus status)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id, change: request =>
        {
            request["duration_seconds"] = 60;
            request["env_vars"] = new JsonArray(new JsonObject { ["key"] = "HF_TOKEN", ["value"] = "kept" });
        }));
        await node.ChangeAsync(id, row => (row.LastError, row.ExpiresAt, row.TotalRequests, row.CountedRequests, row.RunSeen, row.EngineVersion) = ("oom", DateTimeOffset.UnixEpoch, 9, 9, true, "0.9.1"));
        await node.SetAsync(id, status);
        var before = await node.RowAsync(id);

        var answer = await host.Client.PostedAsync($"/{id}/restart", new JsonObject { ["owner"] = "another", ["duration_seconds"] = 120 });

        var row = await node.RowAsync(id);
        row.RunId.ShouldNotBe(before.RunId);
        Guid.TryParse(row.RunId, out _).ShouldBeTrue();
        (row.Uid, row.Wanted, row.Status, row.ReservedPort, row.RunSeen).ShouldBe((before.Uid, WantedState.Running, DeploymentStatus.Starting, 8101, false));
        (row.LastError, row.ExpiresAt, row.TotalRequests, row.CountedRequests).ShouldBe((null, null, 9, 0));
        host.Services.GetRequiredService<EnvironmentVault>().Open(row.EnvValues).ShouldBe(new Dictionary<string, string> { ["HF_TOKEN"] = "kept" });
        var spec = row.ReadSpec();
        (spec.Owner, spec.DurationSeconds, spec.EngineVersion, spec.DeploymentId).ShouldBe(("another", 120, "0.9.1", id));
        (answer.Text("vllm_version"), answer.GetProperty("duration_seconds").GetInt32()).ShouldBe(("0.9.1", 120));
        (await host.Client.JsonAsync("/api/deployments/served-name/check?name=demo/tiny-chat")).GetProperty("conflict_id").GetInt32().ShouldBe(id);
    }

    [Theory]
    [InlineData(DeploymentStatus.Starting, "starting")]
    [InlineData(DeploymentStatus.Loading, "loading")]
    [InlineData(DeploymentStatus.Running, "running")]
    [InlineData(DeploymentStatus.PausedRam, "paused_ram")]
    [InlineData(DeploymentStatus.Stopping, "stopping")]
    [InlineData(DeploymentStatus.Unreachable, "unreachable")]
    public async Task What_has_not_ended_is_not_restarted(DeploymentStatus status, string word)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        await node.SetAsync(id, status);
        var before = await node.RowAsync(id);

        var detail = await host.Client.PostAsync($"/{id}/restart", new JsonObject { ["owner"] = "another" }).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.wrong_status");

        detail.ShouldBe($"Deployment {id} is {word}; it can be restarted only while stopped, expired or error.");
        (await node.RowAsync(id)).Version.ShouldBe(before.Version);
    }

    [Fact]
    public async Task A_restart_finds_its_port_and_names_taken_as_a_start_does()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8101));
        await node.SetAsync(id, DeploymentStatus.Stopped);
        var other = await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8101, "demo/other"));
        Task<HttpResponseMessage> RestartAsync() => host.Client.PostAsync($"/{id}/restart", new JsonObject { ["owner"] = "another" });

        (await RestartAsync().ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.port_taken")).ShouldBe($"Port 8101 on quiet is held by deployment {other} (demo/other).");
        await node.SetAsync(other, DeploymentStatus.Stopped);
        var third = await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8102));
        (await RestartAsync().ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.name_taken")).ShouldContain($"held by deployment {third} ");
        await node.SetAsync(third, DeploymentStatus.Stopped);
        node.FallsSilent();
        await RestartAsync().ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.unreachable");
        node.Says(new NodeReport { Hostname = "quiet", Runtimes = { "docker" } });
        await RestartAsync().ShouldBeRefusedAsync(HttpStatusCode.Conflict, "node.no_runtime");
        (await node.RowAsync(id)).Status.ShouldBe(DeploymentStatus.Stopped);
    }

    [Fact]
    public async Task Gpus_that_were_chosen_are_chosen_again_and_those_asked_for_are_kept()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host, gpus: 2);
        var chosen = await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8101, "demo/chosen", change: r => r["gpu_memory_fraction"] = 0.8));
        (await node.RowAsync(chosen)).ReadSpec().GpuIds.ShouldBe([0]);
        var asked = await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8102, "demo/asked", change: r => (r["gpu_ids"], r["gpu_memory_fraction"]) = (new JsonArray(1), 0.8)));
        await node.SetAsync(chosen, DeploymentStatus.Stopped);
        await node.SetAsync(asked, DeploymentStatus.Stopped);
        // each of them finds its GPU taken
        var first = await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8103, "demo/first", change: r => (r["gpu_ids"], r["gpu_memory_fraction"]) = (new JsonArray(0), 0.8)));

        await host.Client.PostedAsync($"/{chosen}/restart", new JsonObject { ["owner"] = "tests" });
        var refused = await host.Client.PostAsync($"/{asked}/restart", new JsonObject { ["owner"] = "tests" }).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.no_capacity");

        (await node.RowAsync(chosen)).ReadSpec().GpuIds.ShouldBe([1]);
        refused.ShouldBe("GPU 1: 0.8 of its memory is promised to other deployments");
        first.ShouldNotBe(chosen);
    }

    [Fact]
    public async Task What_is_left_of_a_failed_run_is_ended()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        await node.SetAsync(id, DeploymentStatus.Error);
        var run = (await node.RowAsync(id)).RunId;
        node.Says(new NodeReport { Hostname = "quiet", Runtimes = { "process" }, Engines = { new Engine { RunId = run, Phase = EnginePhase.Failed } } });

        await host.Client.PostedAsync($"/{id}/restart", new JsonObject { ["owner"] = "tests" });

        node.Stopped.ShouldBe([run]);
    }

    [Theory]
    [InlineData("""{}""", "owner")]
    [InlineData("""{"owner":null}""", "owner")]
    [InlineData("""{"owner":" "}""", "owner")]
    [InlineData("""{"owner":"a","duration_seconds":0}""", "duration_seconds")]
    [InlineData("""{"owner":"a","duration_seconds":"60"}""", "duration_seconds")]
    [InlineData("""{"owner":"a","env_vars":[{"key":"HF_TOKEN","value":"********"}]}""", "env_vars")]
    public async Task A_restart_that_says_something_else_is_refused(string body, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        await node.SetAsync(id, DeploymentStatus.Stopped);

        await host.Client.PostAsync($"/{id}/restart", JsonNode.Parse(body)!.AsObject()).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);

        (await node.RowAsync(id)).Status.ShouldBe(DeploymentStatus.Stopped);
    }

    [Fact]
    public async Task A_deployment_that_is_not_there_is_not_restarted()
    {
        await using var host = await ControlPlane.StartAsync();

        await host.Client.PostAsync("/987/restart", new JsonObject { ["owner"] = "tests" }).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "deployment.not_found");
    }
}
