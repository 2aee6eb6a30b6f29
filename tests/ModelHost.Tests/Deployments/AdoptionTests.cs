using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>The database is lost, or an older copy of it is put back, while engines run.</summary>
public sealed class AdoptionTests
{
    private const string Secret = "hf_a-secret-of-the-tests";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task What_runs_comes_back_with_everything_after_the_database_is_lost()
    {
        using var node = new TestNode();
        JsonElement before;
        string uid;
        await using (var host = await ControlPlane.StartAsync(node))
        {
            // a stopped one before it, so that the id is not the first
            await host.Client.StopModelAsync(await host.Client.StartModelAsync(Request(await host.Client.NodeAsync("process"), "first", 8201)));
            var id = await host.Client.StartModelAsync(FullRequest(await host.Client.NodeAsync("process"), "lost"));
            await host.Client.StatusAsync(id, "running");
            await ExtendAsync(host, id, 2);
            await host.Client.PostedAsync($"/{id}/start-on-demand", new JsonObject { ["start_on_demand"] = true });
            uid = await AcknowledgedAsync(host, id, 2);
            before = await host.Client.JsonAsync($"/api/deployments/{id}");
        }
        DeleteDatabase(node);

        await using var second = await ControlPlane.StartAsync(node);
        var after = await Deadline.UntilAsync(() => second.Client.JsonAsync("/api/deployments"), all => all.GetArrayLength() == 1 && Text(all[0], "status") == "running");
        var row = await RowAsync(second, after[0].GetProperty("id").GetInt32());
        var values = second.Services.GetRequiredService<EnvironmentVault>().Open(row.EnvValues)!;
        using var answer = await second.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("lost", maxTokens: 3), Ct);
        var refused = await StartAsync(second, Request(before.GetProperty("node_id").GetInt32(), "lost", 8299));
        await second.Client.StopModelAsync(row.Id);

        row.Uid.ShouldBe(uid);
        foreach (var field in (string[])["id", "owner", "pinned", "start_on_demand", "port", "model_name", "max_failed_restarts", "duration_seconds", "env_vars", "engine_args", "extra_args", "gpu_memory_fraction", "backend"])
            after[0].GetProperty(field).ToString().ShouldBe(before.GetProperty(field).ToString(), field);
        after[0].GetProperty("start_on_demand").GetBoolean().ShouldBeTrue();
        after[0].GetProperty("expires_at").GetDateTimeOffset().ShouldBe(before.GetProperty("expires_at").GetDateTimeOffset());
        after[0].GetProperty("last_error").ValueKind.ShouldBe(JsonValueKind.Null);
        values["HF_TOKEN"].ShouldBe(Secret);
        answer.IsSuccessStatusCode.ShouldBeTrue(await answer.Content.ReadAsStringAsync(Ct));
        refused.GetProperty("code").GetString().ShouldBe("deployment.name_taken");
    }

    [Fact]
    public async Task What_others_took_meanwhile_is_said_and_taken_back_when_it_is_free()
    {
        using var node = new TestNode();
        await using (var host = await ControlPlane.StartAsync(node))
            await host.Client.StatusAsync(await host.Client.StartModelAsync(Request(await host.Client.NodeAsync("process"), "wanted", 8201)), "running");
        DeleteDatabase(node);
        int newcomer;
        // whoever was first to ask while the node had not been heard holds id, port and name
        await using (var host = await ControlPlane.StartAsync(node, configuration: "Node:ProcessRuntime=false"))
        {
            await host.Client.NodeAsync();
            newcomer = await SquatAsync(host, "wanted", 8201);
        }

        await using var second = await ControlPlane.StartAsync(node);
        var all = await Deadline.UntilAsync(() => second.Client.JsonAsync("/api/deployments"), all => all.EnumerateArray().Any(d => Text(d, "status") == "running"));
        var found = all.EnumerateArray().Single(d => Text(d, "status") == "running");
        var id = found.GetProperty("id").GetInt32();
        using (await second.Client.DeleteAsync(new Uri($"/api/deployments/{newcomer}", UriKind.Relative), Ct))
        {
        }
        var healed = await Deadline.UntilAsync(() => second.Client.JsonAsync($"/api/deployments/{id}"), d => d.GetProperty("last_error").ValueKind == JsonValueKind.Null);
        using var answer = await Deadline.UntilAsync(
            () => second.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("wanted", maxTokens: 3), Ct), answer => answer.IsSuccessStatusCode);
        var row = await RowAsync(second, id);
        await second.Client.StopModelAsync(id);

        id.ShouldNotBe(newcomer);
        Text(found, "last_error").ShouldContain($"port 8201 is held by deployment {newcomer}");
        Text(found, "last_error").ShouldContain($"'wanted' is held by deployment {newcomer}");
        Text(found, "error_code").ShouldBe("claims_held");
        Text(healed, "status").ShouldBe("running");
        row.ReservedPort.ShouldBe(8201);
    }

    [Fact]
    public async Task An_older_copy_of_the_database_takes_over_what_came_after_it()
    {
        using var node = new TestNode();
        var copy = Path.Combine(node.Data, "copy.db");
        int kept, extended, pinned;
        string run;
        DateTimeOffset? end;
        await using (var host = await ControlPlane.StartAsync(node, configuration: ["Lifecycle:RelaunchDelay=00:00:00.100"]))
        {
            var nodeId = await host.Client.NodeAsync("process");
            extended = await host.Client.StartModelAsync(Request(nodeId, "extended", 8201, r => r["duration_seconds"] = 3600));
            kept = await host.Client.StartModelAsync(Request(nodeId, "kept", 8202, r => r["max_failed_restarts"] = 5));
            pinned = await host.Client.StartModelAsync(Request(nodeId, "pinned", 8204, r => r["duration_seconds"] = 3600));
            foreach (var id in (int[])[extended, kept, pinned])
                await host.Client.StatusAsync(id, "running");
            Backup(node, copy);

            end = await ExtendAsync(host, extended, 5);
            await AcknowledgedAsync(host, extended, 1);
            await host.Client.PostedAsync($"/{pinned}/pin", new JsonObject { ["pinned"] = true });
            await host.Client.PostedAsync($"/{pinned}/start-on-demand", new JsonObject { ["start_on_demand"] = true });
            await AcknowledgedAsync(host, pinned, 2);
            // another run of the one, and a deployment that the copy knows nothing of
            run = (await RowAsync(host, kept)).RunId;
            Kill(node, run);
            await Deadline.UntilAsync(() => RowAsync(host, kept), row => row.RunId != run && row.Status == Core.Deployments.DeploymentStatus.Running);
            run = (await RowAsync(host, kept)).RunId;
            await host.Client.StatusAsync(await host.Client.StartModelAsync(Request(nodeId, "later", 8203)), "running");
        }
        DeleteDatabase(node);
        File.Move(copy, Path.Combine(node.Data, "modelhost.db"));
        var pids = Pids(node);

        await using var second = await ControlPlane.StartAsync(node);
        var all = await Deadline.UntilAsync(() => second.Client.JsonAsync("/api/deployments"),
            all => all.GetArrayLength() == 4 && all.EnumerateArray().All(d => Text(d, "status") == "running"));
        // long enough for a pass that would end one of them
        await Deadline.UntilAsync(() => RowAsync(second, kept), row => row.RunId == run);
        await Deadline.UntilAsync(() => RowAsync(second, extended), row => row.LeaseVersion == 1);
        await Deadline.UntilAsync(() => RowAsync(second, pinned), row => row.LeaseVersion == 2);
        var rows = (await Task.WhenAll(all.EnumerateArray().Select(d => RowAsync(second, d.GetProperty("id").GetInt32())))).ToDictionary(row => row.ReadSpec().PublicName);
        var after = Pids(node);
        foreach (var row in rows.Values)
            await second.Client.StopModelAsync(row.Id);

        rows["kept"].RunId.ShouldBe(run);
        rows["kept"].Id.ShouldBe(kept);
        rows["extended"].ExpiresAt.ShouldBe(end);
        (rows["pinned"].ReadSpec().Pinned, rows["pinned"].StartOnDemand).ShouldBe((true, true));
        rows["extended"].ReadSpec().DurationSeconds.ShouldBe(6 * 3600);
        after.ShouldBe(pids, ignoreOrder: true);
    }

    [Fact]
    public async Task A_run_with_which_the_node_went_on_alone_is_the_deployments()
    {
        using var node = new TestNode();
        string run;
        int id;
        await using (var host = await ControlPlane.StartAsync(node))
        {
            id = await host.Client.StartModelAsync(Request(await host.Client.NodeAsync("process"), "rebooted", 8201, r => r["max_failed_restarts"] = 1));
            await host.Client.StatusAsync(id, "running");
            run = (await RowAsync(host, id)).RunId;
        }
        Kill(node, run);
        var record = Path.Combine(node.Data, "runs", run + ".json");
        var text = JsonNode.Parse(await File.ReadAllTextAsync(record, Ct))!;
        text["boot_id"] = "another";
        await File.WriteAllTextAsync(record, text.ToJsonString(), Ct);

        await using var second = await ControlPlane.StartAsync(node);
        var row = await Deadline.UntilAsync(() => RowAsync(second, id), row => row.RunId != run && row.Status == Core.Deployments.DeploymentStatus.Running);
        var runs = await second.Client.JsonAsync($"/api/deployments/{id}/runs");
        await second.Client.StopModelAsync(id);

        runs.EnumerateArray().Select(r => Text(r, "id")).ShouldBe([row.RunId, run]);
        row.FailedStarts.ShouldBe(0);
    }

    [Fact]
    public async Task What_was_deleted_runs_on_as_a_rogue_and_does_not_come_back()
    {
        using var node = new TestNode();
        await using (var host = await ControlPlane.StartAsync(node))
        {
            var id = await host.Client.StartModelAsync(Request(await host.Client.NodeAsync("process"), "deleted", 8201));
            await host.Client.StatusAsync(id, "running");
            (await host.Client.DeleteAsync(new Uri($"/api/deployments/{id}", UriKind.Relative), Ct)).EnsureSuccessStatusCode().Dispose();
            await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/nodes"), nodes => nodes[0].GetProperty("rogue_container_count").GetInt32() == 1);
        }

        await using var second = await ControlPlane.StartAsync(node);
        await Deadline.UntilAsync(() => second.Client.JsonAsync("/api/nodes"),
            nodes => nodes[0].GetProperty("rogue_container_count") is { ValueKind: JsonValueKind.Number } count && count.GetInt32() == 1);
        // its name and port are free, and a start after it goes through a whole round of reconciliation
        var other = await second.Client.StartModelAsync(Request(await second.Client.NodeAsync("process"), "deleted", 8201));
        await second.Client.StatusAsync(other, "running");
        var all = await second.Client.JsonAsync("/api/deployments");
        await second.Client.StopModelAsync(other);

        all.EnumerateArray().ShouldHaveSingleItem().GetProperty("id").GetInt32().ShouldBe(other);
        Pids(node).Count.ShouldBe(1);
    }

    private static JsonObject Request(int nodeId, string name, int port, Action<JsonObject>? change = null) => Api.StartRequest(nodeId, port, change: request =>
    {
        request["engine_args"] = new JsonObject { ["served_model_name"] = name };
        change?.Invoke(request);
    });

    /// <summary>A request with all that has to come back.</summary>
    private static JsonObject FullRequest(int nodeId, string name) => Request(nodeId, name, 8202, request =>
    {
        (request["owner"], request["pinned"], request["max_failed_restarts"], request["duration_seconds"]) = ("team-a", true, 7, 3600);
        request["extra_args"] = new JsonArray("--enforce-eager");
        request["env_vars"] = new JsonArray(
            new JsonObject { ["key"] = "HF_TOKEN", ["value"] = Secret }, new JsonObject { ["key"] = "VLLM_SIM_TTFT_MS", ["value"] = "1" });
    });

    private static async Task<JsonElement> StartAsync(ControlPlane host, JsonObject request)
    {
        using var answer = await host.Client.PostAsJsonAsync("/api/deployments/start", request, Ct);
        return await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
    }

    /// <summary>Waits until the node has a version of the lease, and gives the uid.</summary>
    private static async Task<DateTimeOffset> ExtendAsync(ControlPlane host, int id, double hours)
    {
        using var answer = await host.Client.PostAsJsonAsync($"/api/deployments/{id}/extend", new JsonObject { ["hours"] = hours }, Ct);
        answer.EnsureSuccessStatusCode();
        return (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("expires_at").GetDateTimeOffset();
    }

    private static async Task<string> AcknowledgedAsync(ControlPlane host, int id, long version)
    {
        var row = await RowAsync(host, id);
        var path = Path.Combine(host.Node.Data, "runs", row.RunId + ".json");
        await Deadline.UntilAsync(() => JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(path)).GetProperty("lease").GetProperty("version").GetInt64() == version);
        return row.Uid;
    }

    private static async Task<Deployment> RowAsync(ControlPlane host, int id)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return await db.Deployments.AsNoTracking().SingleAsync(d => d.Id == id, Ct);
    }

    /// <summary>Stores a deployment that holds a port and a name and waits for its node to get a runtime.</summary>
    private static async Task<int> SquatAsync(ControlPlane host, string name, int port)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        var node = await db.Nodes.SingleAsync(Ct);
        var row = new Deployment
        {
            Uid = Guid.NewGuid().ToString(),
            NodeId = node.Id,
            RunId = Guid.NewGuid().ToString("N"),
            ReservedPort = port,
            Status = Core.Deployments.DeploymentStatus.Starting,
            Spec = new Core.Deployments.LaunchSpec { ModelName = "demo/other", Owner = "tests", Port = port, Runtime = "docker" }.ToJson(),
        };
        db.Deployments.Add(row);
        await db.SaveChangesAsync(Ct);
        db.PublicNames.Add(new PublicName { Name = name, DeploymentId = row.Id });
        await db.SaveChangesAsync(Ct);
        return row.Id;
    }

    private static void DeleteDatabase(TestNode node)
    {
        SqliteConnection.ClearAllPools();
        foreach (var file in Directory.GetFiles(node.Data, "modelhost.db*"))
            File.Delete(file);
    }

    private static void Backup(TestNode node, string copy)
    {
        using var source = new SqliteConnection($"Data Source={Path.Combine(node.Data, "modelhost.db")};Pooling=false");
        using var target = new SqliteConnection($"Data Source={copy};Pooling=false");
        source.Open();
        target.Open();
        source.BackupDatabase(target);
    }

    private static void Kill(TestNode node, string run)
    {
        var sidecar = JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(Path.Combine(node.Data, "engines", run + ".json")));
        using var engine = System.Diagnostics.Process.GetProcessById(sidecar.GetProperty("pid").GetInt32());
        engine.Kill();
        engine.WaitForExit();
    }

    private static List<int> Pids(TestNode node) => [.. Directory.GetFiles(Path.Combine(node.Data, "engines"), "*.json")
        .Select(path => JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(path)).GetProperty("pid").GetInt32())];

    private static string Text(JsonElement element, string property) => element.GetProperty(property).GetString() ?? "";
}
