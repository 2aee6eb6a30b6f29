using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Data;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>What a start would find, said beforehand.</summary>
public sealed class PlanTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task What_fits_is_told_its_gpus()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host, gpus: 2);
        await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8101, change: r => (r["gpu_ids"], r["gpu_memory_fraction"]) = (new JsonArray(0), 0.7)));

        var plan = await host.Client.PostedAsync("/plan", Plan(node.Id, 0.5));

        (plan.GetProperty("fits").GetBoolean(), plan.GetProperty("warm_enabled").GetBoolean(), plan.GetProperty("would_offload").GetArrayLength()).ShouldBe((true, false, 0));
        (plan.GetProperty("blocked_reason").ValueKind, plan.GetProperty("gpu_ids").ToString()).ShouldBe((JsonValueKind.Null, "[1]"));
        plan.GetProperty("gpus").EnumerateArray().Select(gpu => (gpu.GetProperty("index").GetInt32(), gpu.Text("reason")))
            .ShouldBe([(0, "0.7 of its memory is promised to other deployments"), (1, null)]);
    }

    [Fact]
    public async Task What_does_not_fit_is_told_why_for_every_gpu()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host, gpus: 2);
        node.Says(new NodeReport
        {
            Hostname = "quiet",
            Runtimes = { "process" },
            Gpus =
            {
                new Gpu { Index = 0, Name = "A", MemoryTotalBytes = 1000L << 20, MemoryUsedBytes = 600L << 20 },
                new Gpu { Index = 1, Name = "B" },
            },
        });

        var plan = await host.Client.PostedAsync("/plan", Plan(node.Id, 0.5));

        plan.GetProperty("fits").GetBoolean().ShouldBeFalse();
        plan.Text("blocked_reason").ShouldBe(
            "1 GPU needed with 0.5 of the memory free, 0 found (GPU 0: 500 MiB needed, 400 MiB of 1000 MiB free; GPU 1: its memory is unknown).");
        plan.GetProperty("gpu_ids").ValueKind.ShouldBe(JsonValueKind.Null);
        plan.GetProperty("gpus").EnumerateArray().Select(gpu => gpu.Text("reason")).ShouldBe(["500 MiB needed, 400 MiB of 1000 MiB free", "its memory is unknown"]);
        plan.GetProperty("gpus")[0].GetProperty("memory_free_mb").GetDouble().ShouldBe(400);
        (await host.Client.PostedAsync("/plan", Plan(node.Id, 0.5, r => r["skip_resource_check"] = true))).GetProperty("fits").GetBoolean().ShouldBeTrue();
    }

    [Fact]
    public async Task A_port_and_a_name_that_are_held_are_named()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8101));

        var plan = await host.Client.PostedAsync("/plan", Api.StartRequest(node.Id, 8101));

        plan.GetProperty("fits").GetBoolean().ShouldBeFalse();
        plan.Text("blocked_reason")!.ShouldStartWith($"Port 8101 on quiet is held by deployment {id} (demo/tiny-chat). The name 'demo/tiny-chat' is held by deployment {id}");
    }

    [Fact]
    public async Task A_node_that_cannot_take_it_is_a_reason_and_one_that_is_not_there_an_error()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);

        (await host.Client.PostedAsync("/plan", Plan(node.Id, 0.5, r => r["backend"] = "vllm"))).Text("blocked_reason")!.ShouldContain("needed docker or podman, available process");
        node.FallsSilent();
        var silent = await host.Client.PostedAsync("/plan", Plan(node.Id, 0.5));
        (silent.GetProperty("fits").GetBoolean(), silent.Text("blocked_reason")).ShouldBe((false, "Node quiet does not answer."));
        await host.Client.PostAsync("/plan", Plan(987, 0.5)).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "node.not_found");
    }

    [Fact]
    public async Task A_plan_and_the_start_after_it_say_the_same_and_the_plan_changes_nothing()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host, gpus: 3);
        for (var i = 0; i < 6; i++)
        {
            var request = Api.StartRequest(node.Id, 8101 + i, $"demo/model-{i}", change: r => r["gpu_memory_fraction"] = 0.6);
            var before = await DumpAsync(host);

            var plan = await host.Client.PostedAsync("/plan", request.DeepClone().AsObject());

            (await DumpAsync(host)).ShouldBe(before);
            using var started = await host.Client.PostAsync("/start", request);
            started.IsSuccessStatusCode.ShouldBe(plan.GetProperty("fits").GetBoolean());
            var answer = JsonDocument.Parse(await started.Content.ReadAsStringAsync(Ct)).RootElement;
            if (started.IsSuccessStatusCode)
                answer.GetProperty("gpu_ids").ToString().ShouldBe(plan.GetProperty("gpu_ids").ToString());
            else
                plan.Text("blocked_reason").ShouldBe(answer.Text("detail") + ".");
        }
    }

    [Theory]
    [InlineData("port", "80", "port")]
    [InlineData("port", null, "port")]
    [InlineData("node_id", "\"x\"", "node_id")]
    [InlineData("gpu_memory_fraction", "0", "gpu_memory_fraction")]
    [InlineData("gpu_ids", "[7]", "gpu_ids")]
    [InlineData("gpu_ids", "[0,0]", "gpu_ids")]
    [InlineData("tensor_parallel_size", "3", "tensor_parallel_size")]
    [InlineData("gpu_idz", "[0]", "gpu_idz")]
    public async Task A_plan_of_nothing_is_refused(string field, string? value, string named)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host, gpus: 2);
        var request = Plan(node.Id, 0.5, r => r[field] = value is null ? null : JsonNode.Parse(value));

        await host.Client.PostAsync("/plan", request).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", named);
    }

    private static JsonObject Plan(int node, double fraction, Action<JsonObject>? change = null)
    {
        var request = Api.StartRequest(node, 8105, "demo/planned", change: r => r["gpu_memory_fraction"] = fraction);
        request.Remove("owner");
        change?.Invoke(request);
        return request;
    }

    private static async Task<string> DumpAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return JsonSerializer.Serialize(new
        {
            Rows = await db.Deployments.AsNoTracking().OrderBy(d => d.Id).ToListAsync(Ct),
            Names = await db.PublicNames.AsNoTracking().OrderBy(n => n.Name).ToListAsync(Ct),
            Keys = await db.IdempotencyRecords.CountAsync(Ct),
        });
    }
}
