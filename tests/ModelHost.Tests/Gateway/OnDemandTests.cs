using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using ModelHost.Gateway;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Gateway;

/// <summary>Models that rest until they are asked for, with simulated engines on a real node.</summary>
public sealed class OnDemandTests
{
    private const string Model = "demo/tiny-chat";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Requests_for_a_model_that_rests_start_it_once_and_wait_for_it()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:HoldTimeout=00:02:00");
        var id = await RecordAsync(host, ("VLLM_SIM_LOAD_SECONDS", "0.5"));
        (await host.Client.JsonAsync("/v1/models")).GetProperty("data")[0].GetProperty("id").GetString().ShouldBe(Model);

        var answers = await Task.WhenAll(Enumerable.Range(0, 6).Select(i => host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(Model, stream: i % 2 == 0, maxTokens: 3), Ct)));

        foreach (var answer in answers)
        {
            using (answer)
                answer.StatusCode.ShouldBe(HttpStatusCode.OK, await answer.Content.ReadAsStringAsync(Ct));
        }
        var read = await host.Client.JsonAsync($"/api/deployments/{id}");
        (read.Text("status"), read.GetProperty("start_on_demand").GetBoolean(), read.Text("owner")).ShouldBe(("running", true, "tests"));
        (await RunsAsync(host, id)).ShouldBe(1);
        await HeldAsync(host, "");
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task A_model_that_was_shut_down_is_started_again_by_the_next_request_and_by_none_once_that_is_off()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:HoldTimeout=00:02:00");
        var id = await RecordAsync(host);
        (await ChatAsync(host)).ShouldBe((HttpStatusCode.OK, null));
        using (var shut = await host.Client.PostAsJsonAsync("/backend/shutdown", new JsonObject { ["model"] = Model }, Ct))
            shut.StatusCode.ShouldBe(HttpStatusCode.OK, await shut.Content.ReadAsStringAsync(Ct));
        await host.Client.StatusAsync(id, "stopped");

        (await ChatAsync(host)).ShouldBe((HttpStatusCode.OK, null));

        (await RunsAsync(host, id)).ShouldBe(2);
        (await host.Client.PostedAsync($"/{id}/start-on-demand", new JsonObject { ["start_on_demand"] = false })).GetProperty("start_on_demand").GetBoolean().ShouldBeFalse();
        await host.Client.StopModelAsync(id);
        await Deadline.UntilAsync(() => ChatAsync(host), answer => answer == (HttpStatusCode.NotFound, "model_not_found"));
        (await host.Client.JsonAsync("/v1/models")).GetProperty("data").GetArrayLength().ShouldBe(0);
        (await host.Client.JsonAsync($"/api/deployments/{id}")).Text("status").ShouldBe("stopped");
    }

    [Fact]
    public async Task As_many_wait_as_may_and_who_leaves_makes_room()
    {
        await using var host = await ControlPlane.StartAsync(configuration: ["Gateway:HoldTimeout=00:05:00", "Gateway:MaxHeldPerModel=1"]);
        var id = await RecordAsync(host, ("VLLM_SIM_HANG", "load"));
        using var leaving = new CancellationTokenSource();
        var first = host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(Model, stream: true), leaving.Token);
        await HeldAsync(host, $$"""modelhost_gateway_requests_held{model="{{Model}}"} 1""");

        using (var second = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(Model), Ct))
        {
            await second.ShouldBeOpenAiErrorAsync(HttpStatusCode.ServiceUnavailable, "model_loading", "model");
            second.Headers.RetryAfter!.Delta.ShouldBe(TimeSpan.FromSeconds(2));
        }
        first.IsCompleted.ShouldBeFalse("nothing is written before there is an answer");
        await leaving.CancelAsync();
        await Should.ThrowAsync<OperationCanceledException>(first);

        await HeldAsync(host, "");
        // who asked for it first is gone, and it goes on loading
        (await host.Client.StatusAsync(id, "loading")).Text("status").ShouldBe("loading");
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task A_request_waits_so_long_and_no_longer()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:HoldTimeout=00:00:00.5");
        var id = await RecordAsync(host, ("VLLM_SIM_HANG", "load"));

        (await ChatAsync(host)).ShouldBe((HttpStatusCode.ServiceUnavailable, "model_loading"));

        await host.Client.StatusAsync(id, "loading");
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task A_start_that_is_refused_is_told_and_not_tried_again_before_a_pause()
    {
        var log = new LogLines();
        await using var host = await ControlPlane.StartAsync(
            configure: services => services.AddLogging(logging => logging.AddProvider(log)), configuration: ["Lifecycle:RelaunchDelay=00:02:00", "Gateway:HoldTimeout=00:02:00"]);
        var id = await RecordAsync(host);
        var holder = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"), model: "demo/holder"));
        await host.Client.StatusAsync(holder, "running");

        foreach (var _ in Enumerable.Range(0, 3))
        {
            using var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(Model), Ct);
            await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.ServiceUnavailable, "model_start_failed", "model");
            answer.Headers.RetryAfter!.Delta.ShouldNotBeNull().ShouldBeInRange(TimeSpan.FromSeconds(1), TimeSpan.FromMinutes(2));
            (await answer.Content.ReadAsStringAsync(Ct)).ShouldContain("deployment.port_taken");
            (await answer.Content.ReadAsStringAsync(Ct)).ShouldNotContain("holder");
        }

        log.All.Count(line => line.Contains($"Deployment {id} is started by a request", StringComparison.Ordinal)).ShouldBe(1);
        (await host.Client.JsonAsync($"/api/deployments/{id}")).Text("status").ShouldBe("stopped");
        await host.Client.StopModelAsync(holder);
    }

    [Fact]
    public async Task A_start_that_fails_is_told_to_all_who_wait_and_the_next_request_may_start_it_after_a_pause()
    {
        await using var host = await ControlPlane.StartAsync(configuration: ["Lifecycle:RelaunchDelay=00:00:10", "Gateway:HoldTimeout=00:02:00"]);
        var id = await RecordAsync(host, request => request["max_failed_restarts"] = 1, ("VLLM_SIM_FAIL", "oom"));

        var answers = await Task.WhenAll(ChatAsync(host), ChatAsync(host));

        answers.ShouldAllBe(answer => answer.Status == HttpStatusCode.ServiceUnavailable && answer.Code == "model_start_failed");
        await host.Client.StatusAsync(id, "error");
        (await RunsAsync(host, id)).ShouldBe(1);
        (await host.Client.JsonAsync("/v1/models")).GetProperty("data").GetArrayLength().ShouldBe(1);
        await Deadline.UntilAsync(async () => (await ChatAsync(host), await RunsAsync(host, id)).Item2, runs => runs == 2, 90);
    }

    [Fact]
    public async Task Of_a_model_at_rest_on_two_nodes_the_one_that_can_be_started_is()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:HoldTimeout=00:02:00");
        var node = await host.Client.NodeAsync("process");
        var silent = await QuietNode.AddAsync(host);
        silent.FallsSilent();
        async Task<int> RestsAsync(int on) => (await host.Client.PostedAsync("", Api.StartRequest(on, model: Model, change: request => request["start_on_demand"] = true))).Id();
        var (first, second) = (await RestsAsync(silent.Id), await RestsAsync(node));

        (await ChatAsync(host)).ShouldBe((HttpStatusCode.OK, null));

        (await host.Client.JsonAsync($"/api/deployments/{first}")).Text("status").ShouldBe("stopped");
        await host.Client.StopModelAsync(second);
    }

    [Fact]
    public async Task A_key_for_other_models_starts_nothing()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:HoldTimeout=00:02:00");
        var id = await RecordAsync(host);
        var other = (await host.Client.MakeKeyAsync("""{"label":"a","models":["other"]}""")).Key;
        var its = (await host.Client.MakeKeyAsync($$"""{"label":"b","models":["{{Model}}"]}""")).Key;

        (await ChatAsync(host, other)).ShouldBe((HttpStatusCode.Forbidden, "model_forbidden"));
        (await host.Client.JsonAsync($"/api/deployments/{id}")).Text("status").ShouldBe("stopped");
        (await RunsAsync(host, id)).ShouldBe(0);

        (await ChatAsync(host, its)).ShouldBe((HttpStatusCode.OK, null));
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Those_who_wait_are_told_when_the_gateway_ends()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:HoldTimeout=00:05:00");
        var id = await RecordAsync(host, ("VLLM_SIM_HANG", "load"));
        var held = ChatAsync(host);
        await HeldAsync(host, $$"""modelhost_gateway_requests_held{model="{{Model}}"} 1""");

        await host.Services.GetRequiredService<GatewayDrain>().StoppingAsync(Ct);

        (await held).ShouldBe((HttpStatusCode.ServiceUnavailable, "shutting_down"));
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task A_model_that_rests_can_be_asked_for_after_a_restart_of_the_control_plane()
    {
        using var node = new TestNode();
        int id;
        await using (var first = await ControlPlane.StartAsync(node))
            id = await RecordAsync(first);
        await using var host = await ControlPlane.StartAsync(node, configuration: "Gateway:HoldTimeout=00:02:00");
        await Deadline.UntilAsync(() => host.Client.JsonAsync("/v1/models"), models => models.GetProperty("data").GetArrayLength() == 1);
        await host.Client.NodeAsync("process");

        (await ChatAsync(host)).ShouldBe((HttpStatusCode.OK, null));

        await host.Client.StopModelAsync(id);
    }

    private static Task<int> RecordAsync(ControlPlane host, params (string Key, string Value)[] variables) => RecordAsync(host, _ => { }, variables);

    private static async Task<int> RecordAsync(ControlPlane host, Action<JsonObject> change, params (string Key, string Value)[] variables)
    {
        var request = Api.StartRequest(await host.Client.NodeAsync("process"), model: Model, change: change);
        request["start_on_demand"] = true;
        request["env_vars"] = new JsonArray([.. variables.Select(variable => new JsonObject { ["key"] = variable.Key, ["value"] = variable.Value })]);
        return (await host.Client.PostedAsync("", request)).Id();
    }

    private static async Task<(HttpStatusCode Status, string? Code)> ChatAsync(ControlPlane host, string? key = null)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat(Model, maxTokens: 3)) };
        if (key is not null)
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", key);
        using var answer = await host.Client.SendAsync(request, Ct);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        return (answer.StatusCode, body.TryGetProperty("error", out var error) ? error.GetProperty("code").GetString() : null);
    }

    private static async Task<int> RunsAsync(ControlPlane host, int id)
    {
        var runs = await host.Client.JsonAsync($"/api/deployments/{id}/runs");
        return (runs.ValueKind == JsonValueKind.Array ? runs : runs.GetProperty("runs")).GetArrayLength();
    }

    /// <summary>Waits until the gauge of requests held says so; empty: there are none.</summary>
    private static Task<string> HeldAsync(ControlPlane host, string line) => Deadline.UntilAsync(
        () => host.Client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct),
        text => line.Length > 0 ? text.Contains(line, StringComparison.Ordinal) : !text.Contains("modelhost_gateway_requests_held{", StringComparison.Ordinal));
}
