using System.Net;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Records that nothing is started for.</summary>
public sealed class RecordTests
{
    [Theory]
    [InlineData(null, "stopped")]
    [InlineData("stopped", "stopped")]
    [InlineData("expired", "expired")]
    [InlineData("error", "error")]
    public async Task A_record_stands_where_it_is_put_and_starts_nothing(string? status, string stands)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");
        var request = Api.StartRequest(node, change: r => { r["status"] = status; r.Remove("owner"); });

        var made = await host.Client.PostedAsync("/", request);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node));
        await host.Client.StatusAsync(id, "running");
        var still = await host.Client.JsonAsync($"/api/deployments/{made.Id()}");
        await host.Client.StopModelAsync(id);

        (made.Text("status"), made.Text("owner")).ShouldBe((stands, null));
        still.Text("status").ShouldBe(stands);
    }

    [Fact]
    public async Task A_record_needs_a_node_that_is_known_but_not_one_that_answers()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        node.FallsSilent();

        await host.Client.PostedAsync("/", Api.StartRequest(node.Id, backend: "vllm"));
        await host.Client.PostAsync("/", Api.StartRequest(987)).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "node.not_found");
    }

    [Fact]
    public async Task A_record_of_a_port_or_name_that_is_held_is_a_conflict()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8101));

        await host.Client.PostAsync("/", Api.StartRequest(node.Id, 8101, "demo/other")).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.port_taken");
        await host.Client.PostAsync("/", Api.StartRequest(node.Id, 8102)).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.name_taken");
        // records hold nothing: there may be several of one thing
        await host.Client.PostedAsync("/", Api.StartRequest(node.Id, 8102, "demo/other"));
        await host.Client.PostedAsync("/", Api.StartRequest(node.Id, 8102, "demo/other"));
    }

    [Theory]
    [InlineData("status", "\"running\"", "status")]
    [InlineData("status", "\"paused_ram\"", "status")]
    [InlineData("status", "\"asleep\"", "status")]
    [InlineData("status", "7", "status")]
    [InlineData("port", "80", "port")]
    [InlineData("gpu_memory_fraction", "1.5", "gpu_memory_fraction")]
    [InlineData("model_name", "\"../x\"", "model_name")]
    [InlineData("owner", "\"\"", "owner")]
    [InlineData("gpu_idz", "[0]", "gpu_idz")]
    [InlineData("env_vars", "[{\"key\":\"HF_TOKEN\",\"value\":\"********\"}]", "env_vars")]
    public async Task Ranges_and_types_are_those_of_a_start(string field, string value, string named)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var request = Api.StartRequest(node.Id, change: r => r[field] = JsonNode.Parse(value));

        await host.Client.PostAsync("/", request).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", named);

        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
    }

    [Fact]
    public async Task A_record_is_started_by_a_restart()
    {
        await using var host = await ControlPlane.StartAsync();
        var record = await host.Client.PostedAsync("/", Api.StartRequest(await host.Client.NodeAsync("process"), change: r => r["extra_args"] = new JsonArray("--max-num-seqs", "7")));

        await host.Client.PostedAsync($"/{record.Id()}/restart", new JsonObject { ["owner"] = "later" });
        var running = await host.Client.StatusAsync(record.Id(), "running");
        await host.Client.StopModelAsync(record.Id());

        (running.Text("owner"), running.GetProperty("extra_args").ToString()).ShouldBe(("later", """["--max-num-seqs","7"]"""));
    }
}
