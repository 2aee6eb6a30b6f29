using System.Net;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Features.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Launches whose answer waits for what they come to.</summary>
public sealed class WaitTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Start_restart_and_import_answer_when_the_model_runs()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");

        var started = await host.Client.PostedAsync("/start?wait=true", Api.StartRequest(node));
        await host.Client.StopModelAsync(started.Id());
        var restarted = await host.Client.PostedAsync($"/{started.Id()}/restart?wait=true", new JsonObject { ["owner"] = "tests" });
        var manifest = JsonNode.Parse(await host.Client.GetStringAsync(new Uri($"/api/deployments/{started.Id()}/manifest", UriKind.Relative), Ct));
        await host.Client.StopModelAsync(started.Id());
        var imported = await host.Client.PostedAsync("/from-manifest?wait=true", new JsonObject { ["manifest"] = manifest, ["node_id"] = node, ["port"] = 8102, ["owner"] = "tests" });
        await host.Client.StopModelAsync(imported.Id());

        new[] { started, restarted, imported }.Select(answer => answer.Text("status")).ShouldBe(["running", "running", "running"]);
    }

    [Fact]
    public async Task A_model_that_fails_ends_the_wait_with_its_cause()
    {
        await using var host = await ControlPlane.StartAsync();
        var request = Api.StartRequest(await host.Client.NodeAsync("process"), change: r => r["env_vars"] = new JsonArray(new JsonObject { ["key"] = "VLLM_SIM_FAIL", ["value"] = "oom" }));

        var failed = await host.Client.PostedAsync("/start?wait=true", request);

        failed.Text("status").ShouldBe("error");
        failed.Text("last_error")!.ShouldStartWith("Stopped after 3 failed starts. The GPU ran out of memory.");
    }

    [Fact]
    public async Task A_wait_ends_at_its_limit_with_the_deployment_as_it_stands()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        host.Services.GetRequiredService<DeploymentWaits>().Limit = TimeSpan.FromMilliseconds(200);

        var answer = await host.Client.PostedAsync("/start?wait=true", Api.StartRequest(node.Id));

        answer.Text("status").ShouldBe("starting");
    }

    [Theory]
    [InlineData(DeploymentStatus.Stopping)]
    [InlineData(DeploymentStatus.Stopped)]
    [InlineData(DeploymentStatus.Expired)]
    [InlineData(DeploymentStatus.PausedRam)]
    public async Task A_wait_ends_when_the_launch_has_come_to_something_else(DeploymentStatus status)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var waiting = host.Client.PostedAsync("/start?wait=true", Api.StartRequest(node.Id));
        var listed = await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/deployments"), rows => rows.GetArrayLength() == 1);
        await node.SetAsync(listed[0].Id(), DeploymentStatus.Unreachable);
        waiting.IsCompleted.ShouldBeFalse();

        await node.SetAsync(listed[0].Id(), status);

        (await waiting).Text("status").ShouldBe(status.ToWire());
    }

    [Fact]
    public async Task A_deployment_deleted_meanwhile_is_not_found()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var waiting = host.Client.PostAsync("/start?wait=true", Api.StartRequest(node.Id));
        var listed = await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/deployments"), rows => rows.GetArrayLength() == 1);

        using (await host.Client.DeleteAsync(new Uri($"/api/deployments/{listed[0].Id()}", UriKind.Relative), Ct))
            await waiting.ShouldBeRefusedAsync(HttpStatusCode.NotFound, "deployment.not_found");
    }

    [Fact]
    public async Task Whoever_leaves_cancels_nothing_and_may_wait_again_with_the_same_key()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var request = Api.StartRequest(node.Id);
        using (var impatient = new CancellationTokenSource())
        {
            using var message = new HttpRequestMessage(HttpMethod.Post, "/api/deployments/start?wait=true")
            {
                Content = System.Net.Http.Json.JsonContent.Create(request),
                Headers = { { "Idempotency-Key", "key-1" } },
            };
            var waiting = host.Client.SendAsync(message, impatient.Token);
            await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/deployments"), rows => rows.GetArrayLength() == 1);
            await impatient.CancelAsync();
            await Should.ThrowAsync<OperationCanceledException>(() => waiting);
        }

        var again = host.Client.PostedAsync("/start?wait=true", request, "key-1");
        var listed = (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().ShouldHaveSingleItem();
        await node.SetAsync(listed.Id(), DeploymentStatus.Running);
        var answer = await again;

        (answer.Id(), answer.Text("status"), listed.Text("status")).ShouldBe((listed.Id(), "running", "starting"));
        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task A_host_that_stops_is_not_held_up_by_those_who_wait()
    {
        var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        using var client = new HttpClient { BaseAddress = host.Url };
        var waiting = client.PostedAsync("/start?wait=true", Api.StartRequest(node.Id));
        await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/deployments"), rows => rows.GetArrayLength() == 1);

        await host.DisposeAsync();

        (await waiting).Text("status").ShouldBe("starting");
    }

    [Fact]
    public async Task Waiting_is_asked_for_by_true_or_false()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);

        await host.Client.PostAsync("/start?wait=please", Api.StartRequest(node.Id)).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", "wait");
        (await host.Client.PostedAsync("/start?wait=false", Api.StartRequest(node.Id))).Text("status").ShouldBe("starting");
    }
}
