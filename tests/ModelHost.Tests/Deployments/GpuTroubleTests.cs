using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Simulator.Gpu;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>
/// A node whose <c>nvidia-smi</c> fails, hangs or says half of it while models run: nothing that runs is touched, what was known stays
/// known and is marked, and nothing new is placed blindly.
/// </summary>
public sealed class GpuTroubleTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("mismatch", "Driver/library version mismatch")]
    [InlineData("no-driver", "couldn't communicate with the NVIDIA driver")]
    [InlineData("no-permission", "Insufficient Permissions")]
    [InlineData("no-devices", "nvidia-smi does not list GPU 0, 1 any more")]
    [InlineData("garbage", "nvidia-smi answered")]
    [InlineData("truncated", "that are not understood, the first: 0, GPU-")]
    [InlineData("flood", "nvidia-smi answered more than 1024 KiB")]
    [InlineData("hang", "nvidia-smi did not answer within 15 s")]
    public async Task Trouble_at_run_time_leaves_models_running_and_gpus_known(string trouble, string reason)
    {
        using var node = new TestNode(gpus: 2);
        await using var host = trouble == "hang" ? await StartAsync(node, "00:00:15") : await StartAsync(node);
        var nodeId = await ReadyAsync(host);
        var id = await RunAsync(host, Request(node, nodeId));

        node.SmiPlays(trouble);
        var told = await NodeAsync(host, read => read.GetProperty("gpu_error").GetString()?.Contains(reason, StringComparison.Ordinal) is true, "the trouble to be told");
        var refused = await RefusedAsync(host, Request(node, nodeId, 8102));
        var refusedUnchecked = await RefusedAsync(host, Request(node, nodeId, 8102, skip: true));
        var during = await host.Client.JsonAsync($"/api/deployments/{id}");
        await ChatAsync(host);
        node.SmiPlays("");
        await ReadyAsync(host);
        var second = await RunAsync(host, Request(node, nodeId, 8102));

        told.GetProperty("gpu_error").GetString().ShouldNotBeNull().ShouldContain(reason);
        var gpus = told.GetProperty("gpu_usage").EnumerateArray().ToArray();
        gpus.Length.ShouldBe(2);
        gpus.ShouldAllBe(gpu => gpu.GetProperty("stale").GetString() == told.GetProperty("gpu_error").GetString());
        gpus.ShouldAllBe(gpu => gpu.GetProperty("memory_total_mb").GetDouble() == 81559 && gpu.GetProperty("read_at").ValueKind == JsonValueKind.String);
        told.GetProperty("status").GetString().ShouldBe("online");
        foreach (var refusal in new[] { refused, refusedUnchecked })
        {
            (refusal.Status, refusal.Code).ShouldBe((HttpStatusCode.Conflict, "node.gpus_unknown"));
            refusal.Detail.ShouldContain(reason);
        }
        during.GetProperty("status").GetString().ShouldBe("running");
        (await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("status").GetString().ShouldBe("running");
        second.ShouldNotBe(id);
    }

    [Fact]
    public async Task Models_are_found_again_by_a_node_that_starts_in_trouble()
    {
        using var node = new TestNode(gpus: 1);
        int id;
        await using (var first = await StartAsync(node))
            id = await RunAsync(first, Request(node, await ReadyAsync(first)));

        node.SmiPlays("mismatch");
        await using var host = await StartAsync(node);
        var told = await NodeAsync(host, read => read.GetProperty("gpu_error").GetString()?.Contains("mismatch") is true, "the trouble to be told");
        await host.Client.StatusAsync(id, "running");
        await Deadline.UntilAsync(async () => (await PostChatAsync(host)).IsSuccessStatusCode, answered => answered, what: "the model to answer");
        var refused = await RefusedAsync(host, Request(node, told.GetProperty("id").GetInt32(), 8102));
        await host.Client.StopModelAsync(id);

        told.GetProperty("gpu_usage").GetArrayLength().ShouldBe(0);
        (refused.Status, refused.Code).ShouldBe((HttpStatusCode.Conflict, "node.gpus_unknown"));
    }

    [Fact]
    public async Task Of_two_gpus_the_one_that_answers_is_used()
    {
        using var node = new TestNode(gpus: 2);
        await using var host = await StartAsync(node);
        var nodeId = await ReadyAsync(host);

        node.SmiPlays("lost 0");
        var told = await NodeAsync(host, read => read.GetProperty("gpu_error").GetString()?.StartsWith("a card does not answer", StringComparison.Ordinal) is true, "the loss to be told");
        var refused = await RefusedAsync(host, Request(node, nodeId, gpu: 0));
        var placed = await host.Client.StartModelAsync(Request(node, nodeId));

        told.GetProperty("gpu_error").GetString().ShouldStartWith("a card does not answer: Unable to determine the device handle for GPU0000:CB:00.0");
        told.GetProperty("gpu_usage").EnumerateArray().Select(gpu => gpu.GetProperty("stale").ValueKind).ShouldBe([JsonValueKind.String, JsonValueKind.Null]);
        (refused.Status, refused.Code).ShouldBe((HttpStatusCode.Conflict, "deployment.no_capacity"));
        refused.Detail.ShouldStartWith("GPU 0: its figures are not current: a card does not answer");
        (await host.Client.JsonAsync($"/api/deployments/{placed}")).GetProperty("gpu_ids")[0].GetInt32().ShouldBe(1);
        await host.Client.StopModelAsync(placed);
    }

    [Fact]
    public async Task Processes_are_told_apart_by_their_deployment()
    {
        using var node = new TestNode(gpus: 1);
        await using var host = await StartAsync(node);
        var nodeId = await ReadyAsync(host);
        using var foreign = GpuHold.Open(node.GpuFolder, GpuDevice.ReadAll(node.GpuFolder), ["VLLM::EngineCore"], Environment.ProcessId);
        foreign.Set(1000);
        var id = await RunAsync(host, Request(node, nodeId));

        var gpu = (await NodeAsync(host, read => Processes(read) == 2 && read.GetProperty("rogue_process_count").GetInt32() == 1, "both processes to show"))
            .GetProperty("gpu_usage")[0];
        var engines = await host.Client.JsonAsync($"/api/nodes/{nodeId}/gpu-processes");
        await host.Client.StopModelAsync(id);
        var after = await NodeAsync(host, read => Processes(read) == 1, "the engine's process to go");

        gpu.GetProperty("memory_others_mb").GetDouble().ShouldBe(1000);
        gpu.GetProperty("processes").EnumerateArray().Select(process => (process.GetProperty("pid").GetInt32() == Environment.ProcessId, Id(process)))
            .ShouldBe([(true, null), (false, id)], ignoreOrder: true);
        engines.EnumerateArray().Select(process => (process.GetProperty("gpu_index").GetInt32(), process.GetProperty("process_name").GetString(),
            process.GetProperty("tracked").GetBoolean(), process.GetProperty("key").GetString())).ShouldBe(
            [(0, "VLLM::EngineCore", false, null), (0, "VLLM::EngineCore", true, "demo/tiny-chat:8101")], ignoreOrder: true);
        after.GetProperty("gpu_usage")[0].GetProperty("processes")[0].GetProperty("pid").GetInt32().ShouldBe(Environment.ProcessId);
    }

    [Fact]
    public async Task Processes_that_cannot_be_read_are_unknown_and_not_none()
    {
        using var node = new TestNode(gpus: 1);
        await using var host = await StartAsync(node);
        var nodeId = await ReadyAsync(host);

        node.SmiPlays("no-apps");
        var told = await NodeAsync(host, read => read.GetProperty("gpu_process_error").GetString()?.Contains("exit code 3") is true, "the refusal to be told");
        using var processes = await host.Client.GetAsync(new Uri($"/api/nodes/{nodeId}/gpu-processes", UriKind.Relative), Ct);
        using var missing = await host.Client.GetAsync(new Uri("/api/nodes/99/gpu-processes", UriKind.Relative), Ct);
        var placed = await host.Client.StartModelAsync(Request(node, nodeId));

        told.GetProperty("gpu_error").ValueKind.ShouldBe(JsonValueKind.Null);
        told.GetProperty("rogue_process_count").ValueKind.ShouldBe(JsonValueKind.Null);
        told.GetProperty("gpu_usage")[0].GetProperty("memory_others_mb").ValueKind.ShouldBe(JsonValueKind.Null);
        processes.StatusCode.ShouldBe(HttpStatusCode.ServiceUnavailable);
        missing.StatusCode.ShouldBe(HttpStatusCode.NotFound);
        await host.Client.StopModelAsync(placed);
    }

    [Fact]
    public async Task Engines_are_known_without_the_names_and_memory_of_their_processes()
    {
        using var node = new TestNode(gpus: 1);
        node.SmiPlays("no-names");
        await using var host = await StartAsync(node);
        var nodeId = await ReadyAsync(host);
        using var foreign = GpuHold.Open(node.GpuFolder, GpuDevice.ReadAll(node.GpuFolder), ["VLLM::EngineCore"], Environment.ProcessId);
        foreign.Set(1000);
        var id = await RunAsync(host, Request(node, nodeId));

        var gpu = (await NodeAsync(host, read => Processes(read) == 2, "both processes to show")).GetProperty("gpu_usage")[0];
        await host.Client.StopModelAsync(id);

        gpu.GetProperty("processes").EnumerateArray().Select(process =>
            (Id(process), process.GetProperty("name").ValueKind, process.GetProperty("memory_used_mb").ValueKind)).ShouldBe(
            [(id, JsonValueKind.Null, JsonValueKind.Null), (null, JsonValueKind.Null, JsonValueKind.Null)], ignoreOrder: true);
        gpu.GetProperty("memory_others_mb").ValueKind.ShouldBe(JsonValueKind.Null);
    }

    [Fact]
    public async Task A_slow_answer_is_an_answer()
    {
        using var node = new TestNode(gpus: 1);
        node.SmiPlays("slow 2");
        await using var host = await StartAsync(node);
        await ReadyAsync(host);

        var told = await NodeAsync(host, read => read.GetProperty("gpu_usage").GetArrayLength() == 1, "the GPU to show");

        told.GetProperty("gpu_usage")[0].GetProperty("stale").ValueKind.ShouldBe(JsonValueKind.Null);
    }

    [Fact]
    public async Task Split_cards_show_their_parts_and_are_not_measured_as_a_whole()
    {
        using var node = new TestNode(gpus: 1);
        node.SmiPlays("mig");
        await using var host = await StartAsync(node);
        var nodeId = await ReadyAsync(host);

        var gpu = (await NodeAsync(host, read => read.GetProperty("gpu_usage")[0].GetProperty("mig_instances").GetArrayLength() > 0, "the parts to show"))
            .GetProperty("gpu_usage")[0];
        var refused = await RefusedAsync(host, Request(node, nodeId));

        gpu.GetProperty("mig_enabled").GetBoolean().ShouldBeTrue();
        gpu.GetProperty("utilization").ValueKind.ShouldBe(JsonValueKind.Null);
        gpu.GetProperty("mig_instances").EnumerateArray().Select(part => part.GetProperty("profile").GetString()).ShouldBe(["3g.20gb", "3g.20gb"]);
        refused.Detail.ShouldContain("GPU 0: it is split into MIG instances");
    }

    [Fact]
    public async Task Figures_that_are_words_are_null_and_refuse_a_start()
    {
        using var node = new TestNode(gpus: 1);
        node.SmiPlays("words");
        await using var host = await StartAsync(node);
        var nodeId = await ReadyAsync(host);

        var gpu = (await NodeAsync(host, read => read.GetProperty("gpu_usage").GetArrayLength() == 1, "the GPU to show")).GetProperty("gpu_usage")[0];
        var refused = await RefusedAsync(host, Request(node, nodeId));

        foreach (var field in (string[])["memory_total_mb", "memory_used_mb", "utilization", "temperature_celsius", "power_watts"])
            gpu.GetProperty(field).ValueKind.ShouldBe(JsonValueKind.Null, field);
        (refused.Code, refused.Detail.Contains("GPU 0: its memory is unknown", StringComparison.Ordinal)).ShouldBe(("deployment.no_capacity", true));
    }

    [Fact]
    public async Task A_unified_part_has_the_memory_of_the_system()
    {
        using var node = new TestNode(gpus: 1);
        node.SmiPlays("unified");
        await using var host = await StartAsync(node);
        var nodeId = await ReadyAsync(host);
        var total = long.Parse((await File.ReadAllLinesAsync("/proc/meminfo", Ct)).Single(line => line.StartsWith("MemTotal:", StringComparison.Ordinal))
            .Split(' ', StringSplitOptions.RemoveEmptyEntries)[1]) / 1024.0;

        var gpu = (await NodeAsync(host, read => read.GetProperty("gpu_usage").GetArrayLength() == 1, "the GPU to show")).GetProperty("gpu_usage")[0];
        var refused = await RefusedAsync(host, Request(node, nodeId, fraction: 1));
        var placed = await host.Client.StartModelAsync(Request(node, nodeId, fraction: 0.01));

        (gpu.GetProperty("source").GetString(), gpu.GetProperty("name").GetString()).ShouldBe(("unified", "NVIDIA GB10"));
        gpu.GetProperty("memory_total_mb").GetDouble().ShouldBe(Math.Round(total));
        gpu.GetProperty("memory_used_mb").GetDouble().ShouldBeInRange(1, total);
        refused.Detail.ShouldContain("MiB of system memory available");
        await host.Client.StopModelAsync(placed);
    }

    private static JsonObject Request(TestNode node, int nodeId, int port = 8101, int? gpu = null, double fraction = 0.3, bool skip = false) =>
        Api.StartRequest(nodeId, port, port == 8101 ? "demo/tiny-chat" : $"demo/chat-{port}", change: request =>
        {
            request["gpu_memory_fraction"] = fraction;
            request["skip_resource_check"] = skip;
            request["env_vars"] = new JsonArray(new JsonObject { ["key"] = "VLLM_SIM_GPU_DIR", ["value"] = node.GpuFolder });
            if (gpu is { } index)
                request["gpu_ids"] = new JsonArray(index);
        });

    /// <summary>A control plane whose <c>nvidia-smi</c> has more time than it takes on the most crowded machine.</summary>
    private static Task<ControlPlane> StartAsync(TestNode node, string timeout = "00:02:00") => ControlPlane.StartAsync(node, configuration: $"Node:NvidiaSmiTimeout={timeout}");

    private static async Task<int> RunAsync(ControlPlane host, JsonObject request)
    {
        var id = await host.Client.StartModelAsync(request);
        await host.Client.StatusAsync(id, "running");
        return id;
    }

    private static Task<int> ReadyAsync(ControlPlane host) => host.Client.NodeAsync("process");

    private static async Task<JsonElement> NodeAsync(ControlPlane host, Func<JsonElement, bool> holds, string what) =>
        (await Deadline.UntilAsync(() => host.Client.JsonAsync("/api/nodes"), nodes => holds(nodes[0]), Deadline.Allowed(60).TotalSeconds, what))[0];

    private static Task<HttpResponseMessage> PostChatAsync(ControlPlane host) =>
        host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 3), Ct);

    private static async Task ChatAsync(ControlPlane host)
    {
        using var answer = await PostChatAsync(host);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK, await answer.Content.ReadAsStringAsync(Ct));
    }

    private static async Task<(HttpStatusCode Status, string Code, string Detail)> RefusedAsync(ControlPlane host, JsonObject request)
    {
        using var answer = await host.Client.PostAsJsonAsync("/api/deployments/start", request, Ct);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        answer.IsSuccessStatusCode.ShouldBeFalse(body.ToString());
        return (answer.StatusCode, body.GetProperty("code").GetString()!, body.GetProperty("detail").GetString()!);
    }

    private static int Processes(JsonElement node) => node.GetProperty("gpu_usage")[0].GetProperty("processes").GetArrayLength();

    private static int? Id(JsonElement process) => process.GetProperty("deployment_id") is { ValueKind: JsonValueKind.Number } id ? id.GetInt32() : null;
}
