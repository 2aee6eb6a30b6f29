using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Runtimes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Launches of a deployment, one after the other, on the simulator as a process.</summary>
public sealed class RunTests
{
    private static readonly string[] Quick = ["Lifecycle:RelaunchDelay=00:00:00.100", "Lifecycle:MaxRelaunchDelay=00:00:01"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Engine_that_fails_at_every_start_is_given_up_after_the_limit_and_keeps_its_cause()
    {
        await using var host = await ControlPlane.StartAsync(configuration: Quick);
        var id = await host.Client.StartModelAsync(await RequestAsync(host, null, ("VLLM_SIM_FAIL", "oom")));

        var failed = await host.Client.StatusAsync(id, "error");
        await Deadline.UntilAsync(() => Engines(host).Length == 0, what: "what is left of it to go");
        var after = await host.Client.JsonAsync($"/api/deployments/{id}");
        var runs = await host.Client.JsonAsync($"/api/deployments/{id}/runs");

        failed.GetProperty("last_error").GetString().ShouldStartWith("Stopped after 3 failed starts. The GPU ran out of memory.");
        failed.GetProperty("error_code").GetString().ShouldBe("gpu_oom");
        (Text(after, "status"), Text(after, "last_error")).ShouldBe(("error", Text(failed, "last_error")));
        runs.GetArrayLength().ShouldBe(3);
        runs.EnumerateArray().Select(run => Text(run, "id")).Distinct().Count().ShouldBe(3);
        runs.EnumerateArray().ShouldAllBe(run => Text(run, "error_code") == "gpu_oom" && run.GetProperty("ended_at").ValueKind == JsonValueKind.String
            && run.GetProperty("ready_at").ValueKind == JsonValueKind.Null && run.GetProperty("exit_code").GetInt32() == 1);
        runs.EnumerateArray().Select(run => run.GetProperty("started_at").GetDateTimeOffset()).ShouldBeInOrder(SortDirection.Descending);
    }

    [Fact]
    public async Task Engine_that_cannot_succeed_is_tried_once()
    {
        await using var host = await ControlPlane.StartAsync(configuration: Quick);
        var id = await host.Client.StartModelAsync(await RequestAsync(host, request => request["extra_args"] = new JsonArray("--no-such-flag")));

        var failed = await host.Client.StatusAsync(id, "error");

        Text(failed, "error_code").ShouldBe("bad_args");
        Text(failed, "last_error").ShouldNotContain("Stopped after");
        (await host.Client.JsonAsync($"/api/deployments/{id}/runs")).GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task Engine_that_dies_while_it_serves_is_followed_by_another_under_the_same_id()
    {
        await using var host = await ControlPlane.StartAsync(configuration: Quick);
        var id = await host.Client.StartModelAsync(await RequestAsync(host, request => request["max_failed_restarts"] = 20));
        await host.Client.StatusAsync(id, "running");
        var first = Engines(host).ShouldHaveSingleItem();

        for (var killed = 1; killed <= 6; killed++)
        {
            var (run, pid) = Engines(host).ShouldHaveSingleItem();
            using (var engine = System.Diagnostics.Process.GetProcessById(pid))
                engine.Kill();
            var after = await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}/runs"),
                runs => Text(runs[0], "id") != run && runs[0].GetProperty("ready_at").ValueKind == JsonValueKind.String);
            (after.GetArrayLength(), Text(after[1], "id"), after[1].GetProperty("ended_at").ValueKind).ShouldBe((Math.Min(killed + 1, 5), run, JsonValueKind.String));
            await host.Client.StatusAsync(id, "running");
        }
        var runs = await host.Client.JsonAsync($"/api/deployments/{id}/runs");
        var logs = Directory.GetFiles(Path.Combine(host.Node.Data, "logs"), "*.log", SearchOption.AllDirectories).Select(Path.GetFileNameWithoutExtension);
        var last = runs.EnumerateArray().Last();
        var log = await host.Client.JsonAsync($"/api/deployments/{id}/logs?run={Text(last, "id")}");
        using var forgotten = await host.Client.GetAsync(new Uri($"/api/deployments/{id}/logs?run={first.Run}", UriKind.Relative), Ct);
        await host.Client.StopModelAsync(id);
        var stopped = (await host.Client.JsonAsync($"/api/deployments/{id}/runs"))[0];

        logs.ShouldBe(runs.EnumerateArray().Select(run => Text(run, "id")), ignoreOrder: true);
        runs.EnumerateArray().ShouldAllBe(run => run.GetProperty("load_seconds").GetDouble() > 0);
        (Text(last, "error_code"), last.GetProperty("deployment_id").GetInt32()).ShouldBe(("killed", id));
        log.GetProperty("lines").EnumerateArray().ShouldContain(line => line.GetString()!.Contains("failed (killed)", StringComparison.Ordinal));
        forgotten.StatusCode.ShouldBe(HttpStatusCode.NotFound);
        JsonSerializer.Deserialize<JsonElement>(await forgotten.Content.ReadAsStringAsync(Ct)).GetProperty("code").GetString().ShouldBe("run.not_found");
        (stopped.GetProperty("ended_at").ValueKind, stopped.GetProperty("error_code").ValueKind).ShouldBe((JsonValueKind.String, JsonValueKind.Null));
    }

    [Fact]
    public async Task Engine_that_never_becomes_ready_is_an_error_and_ended()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Lifecycle:StartTimeout=00:00:03");
        var id = await host.Client.StartModelAsync(await RequestAsync(host, null, ("VLLM_SIM_HANG", "load")));

        var failed = await host.Client.StatusAsync(id, "error");
        await Deadline.UntilAsync(() => Engines(host).Length == 0, what: "the engine to be ended");

        Text(failed, "error_code").ShouldBe("start_timeout");
        Text(failed, "last_error").ShouldContain("not ready within 3 s");
        Text((await host.Client.JsonAsync($"/api/deployments/{id}/runs"))[0], "error_code").ShouldBe("start_timeout");
    }

    [Fact]
    public async Task Lease_ends_the_engine_and_an_extension_reaches_the_node()
    {
        await using var host = await ControlPlane.StartAsync();
        var ended = await host.Client.StartModelAsync(await RequestAsync(host, request => request["duration_seconds"] = 2));
        var kept = await host.Client.StartModelAsync(await RequestAsync(host, request =>
            (request["port"], request["duration_seconds"], request["engine_args"]) = (8102, 3600, new JsonObject { ["served_model_name"] = "kept" })));
        var running = await host.Client.StatusAsync(kept, "running");

        var extended = await ExtendAsync(kept, ("hours", 2));
        var expected = running.GetProperty("expires_at").GetDateTimeOffset() + TimeSpan.FromHours(2);
        var lease = await Deadline.UntilAsync(() => Task.FromResult(LeaseOf(host, kept)), lease => lease?.ExpiresAt == expected, what: "the node to acknowledge");
        await host.Client.StatusAsync(ended, "expired");
        var refused = await ExtendAsync(ended, ("hours", 1));
        var forever = await ExtendAsync(kept, ("infinite", true));
        var none = await Deadline.UntilAsync(() => Task.FromResult(LeaseOf(host, kept)), lease => lease is { ExpiresAt: null, DurationSeconds: null }, what: "the node to acknowledge");
        var without = await host.Client.JsonAsync($"/api/deployments/{kept}");
        var again = await ExtendAsync(kept, ("hours", 1));
        await host.Client.StopModelAsync(kept);

        extended.GetProperty("expires_at").GetDateTimeOffset().ShouldBe(expected);
        (lease!.ExpiresAt, lease.DurationSeconds).ShouldBe((expected, 3 * 3600));
        Text(refused, "code").ShouldBe("deployment.wrong_status");
        forever.GetProperty("expires_at").ValueKind.ShouldBe(JsonValueKind.Null);
        (none!.ExpiresAt, none.DurationSeconds).ShouldBe(((DateTimeOffset?)null, (int?)null));
        (without.GetProperty("expires_at").ValueKind, without.GetProperty("duration_seconds").ValueKind).ShouldBe((JsonValueKind.Null, JsonValueKind.Null));
        Text(again, "code").ShouldBe("deployment.no_expiry");
        await Deadline.UntilAsync(() => Engines(host).Length == 0, what: "the engines to be ended");

        async Task<JsonElement> ExtendAsync(int id, (string Field, JsonNode Value) by)
        {
            using var answer = await host.Client.PostAsJsonAsync($"/api/deployments/{id}/extend", new JsonObject { [by.Field] = by.Value }, Ct);
            return await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        }
    }

    private static Core.Deployments.Lease? LeaseOf(ControlPlane host, int id) =>
        Core.Deployments.Lease.FromJson(host.Services.GetRequiredService<Features.Nodes.NodeRegistry>().All.Single().LastReport!.Engines
            .FirstOrDefault(engine => Core.Deployments.LaunchSpec.FromJson(engine.LaunchSpec)!.DeploymentId == id)?.Lease);

    private static (string Run, int Pid)[] Engines(ControlPlane host) =>
        // one that is removed at this moment is none any more
        [.. Directory.GetFiles(Path.Combine(host.Node.Data, "engines"), "*.json").Select(ProcessSidecar.Read).OfType<ProcessSidecar>().Select(engine => (engine.RunId, engine.Pid ?? 0))];

    private static string Text(JsonElement element, string property) => element.GetProperty(property).GetString() ?? "";

    private static async Task<JsonObject> RequestAsync(ControlPlane host, Action<JsonObject>? change, params (string Key, string Value)[] variables) =>
        Api.StartRequest(await host.Client.NodeAsync("process"), change: request =>
        {
            request["env_vars"] = new JsonArray([.. variables.Select(variable => new JsonObject { ["key"] = variable.Key, ["value"] = variable.Value })]);
            change?.Invoke(request);
        });
}
