using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>The plug of the control plane is pulled, and it is started again on the same data folder.</summary>
[Collection<CrashTests.Alone>]
public sealed class CrashTests(RealDockerFixture fixture)
{
    /// <summary>Times are measured here: nothing else runs meanwhile.</summary>
    [CollectionDefinition(DisableParallelization = true)]
#pragma warning disable CA1034 // named by the attribute above, and nowhere else
    public sealed class Alone;
#pragma warning restore CA1034

    private readonly int _port = TestPorts.Free();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Engines_outlive_the_control_plane_and_are_served_again_within_three_seconds()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        using var client = Client();
        var model = EngineNode.NewModel();
        var id = await client.RunModelAsync(node.Request(await client.NodeAsync("docker"), model, variables: ("VLLM_SIM_ITL_MS", "20")));
        var before = await node.ContainerAsync();
        using var traffic = new EngineTraffic(before);
        await client.ChatAsync(model);
        await traffic.SendAsync(150);
        // some of the lines have been taken over when the plug is pulled, and some have not
        await Deadline.UntilAsync(() => client.LogAsync(id), log => EngineTraffic.Numbers(log).Any());
        using var stream = await StreamAsync(client, model);

        await first.DisposeAsync();
        await traffic.SendAsync(50);
        var began = TimeProvider.System.GetTimestamp();
        await using var second = ModelHostProcess.Start(["serve", "--data", node.Surroundings.Data, "--urls", $"http://127.0.0.1:{_port}", .. node.Surroundings.Configuration]);
        await Deadline.UntilAsync(() => TryChatAsync(client, model), status => status == HttpStatusCode.OK);
        var outage = TimeProvider.System.GetElapsedTime(began);
        await traffic.SendAsync(50);
        var running = await client.ReachAsync(id, "running");
        var after = await node.ContainerAsync();
        var requests = await Deadline.UntilAsync(() => traffic.CounterAsync("vllm:request_success_total"), count => count == 3, what: "the engine to count");
        // nobody asks the engine any more: what it has counted stands still
        var (prompt, completion) = (await traffic.CounterAsync("vllm:prompt_tokens_total"), await traffic.CounterAsync("vllm:generation_tokens_total"));
        await Deadline.UntilAsync(() => TotalsAsync(client, id), totals => totals == (requests, prompt, completion), what: $"the totals to be {(requests, prompt, completion)}");
        var log = await Deadline.UntilAsync(() => client.LogAsync(id), log => EngineTraffic.Numbers(log).Contains(250));

        TestContext.Current.TestOutputHelper!.WriteLine($"first answer {outage.TotalSeconds:0.00} s after the start");
        TestContext.Current.TestOutputHelper!.WriteLine(string.Join("\n", second.Output));
        outage.ShouldBeLessThan(Deadline.Allowed(3));
        (after.Id, after.State.StartedAt).ShouldBe((before.Id, before.State.StartedAt));
        running.GetProperty("id").GetInt32().ShouldBe(id);
        EngineTraffic.Numbers(log).ShouldBe(Enumerable.Range(1, 250));
        log.Count(line => line.Contains("Application startup complete", StringComparison.Ordinal)).ShouldBe(1);
        log.ShouldContain(line => line.Contains("[modelhost] starting a container", StringComparison.Ordinal));
        (await TotalsAsync(client, id)).ShouldBe((requests, await traffic.CounterAsync("vllm:prompt_tokens_total"), await traffic.CounterAsync("vllm:generation_tokens_total")));
    }

    [Fact]
    public async Task Pull_goes_on_after_the_plug_was_pulled()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        registry.Network.BytesPerSecond = StandInEngine.Slow;
        await using var node = await EngineNode.MakeAsync(fixture);
        var repository = $"Node:ImageRepository={registry.Repository}";
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port, repository);
        using var client = Client();
        var id = await client.StartModelAsync(
            node.Request(await client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["vllm_version"] = StandInEngine.Tag));
        await Deadline.UntilAsync(() => client.JsonAsync($"/api/deployments/{id}"), d => d.GetProperty("pull_percent").ValueKind == JsonValueKind.Number);

        await first.DisposeAsync();
        registry.Network.BytesPerSecond = long.MaxValue;
        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, _port, repository);
        await client.ReachAsync(id, "running");

        (await node.ContainersAsync()).Count.ShouldBe(1);
    }

    [Fact]
    public async Task Load_goes_on_after_the_plug_was_pulled()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        using var client = Client();
        var id = await client.StartModelAsync(
            node.Request(await client.NodeAsync("docker"), EngineNode.NewModel(), variables: ("VLLM_SIM_LOAD_SECONDS", "12")));
        await client.ReachAsync(id, "loading");
        var before = await node.ContainerAsync();

        await first.DisposeAsync();
        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        await client.ReachAsync(id, "running");

        (await node.ContainerAsync()).Id.ShouldBe(before.Id);
    }

    [Theory]
    [InlineData("vllm")]
    [InlineData("simulator")]
    public async Task Start_that_was_answered_is_carried_out_whenever_the_plug_is_pulled(string backend)
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var process = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        using var client = Client();
        var nodeId = await client.NodeAsync("docker", "process");
        var ids = new List<int>();

        // right after the answer, and at moments in which the container or the process comes into being
        foreach (var wait in new[] { 0, 40, 110 })
        {
            ids.Add(await client.StartModelAsync(node.Request(nodeId, EngineNode.NewModel(), 8101 + ids.Count, request => request["backend"] = backend)));
            using var moment = new PeriodicTimer(TimeSpan.FromMilliseconds(wait + 1));
            await moment.WaitForNextTickAsync(Ct);
            await process.DisposeAsync();
            process = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        }
        await using var last = process;
        foreach (var id in ids)
            await client.ReachAsync(id, "running");

        (await node.ContainersAsync()).Count.ShouldBe(backend == "vllm" ? ids.Count : 0);
        node.Processes().Distinct().Count().ShouldBe(backend == "vllm" ? 0 : ids.Count);
    }

    [Fact]
    public async Task Stop_that_was_answered_is_carried_out_after_the_plug_was_pulled()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        using var client = Client();
        var model = EngineNode.NewModel();
        // a request that is never answered, for which the engine waits when it is asked to end
        var id = await client.RunModelAsync(node.Request(await client.NodeAsync("docker"), model,
            change: request => request["extra_args"] = new JsonArray("--shutdown-timeout", "8"), variables: ("VLLM_SIM_HANG", "request")));
        using var traffic = new EngineTraffic(await node.ContainerAsync());
        var hanging = traffic.PostAsync("/v1/chat/completions", JsonContent.Create(Api.Chat(model)));
        await Deadline.UntilAsync(() => traffic.CounterAsync("vllm:num_requests_running"), running => running == 1);

        using (var answer = await client.PostAsync(new Uri($"/api/deployments/stop/{id}", UriKind.Relative), null, Ct))
            answer.EnsureSuccessStatusCode();
        await first.DisposeAsync();
        var left = await node.ContainersAsync();
        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        await client.ReachAsync(id, "stopped");
        await Task.WhenAny(hanging);

        left.Count.ShouldBe(1);
        (await node.ContainersAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Engine_that_is_a_process_outlives_the_control_plane_and_its_end_is_noticed()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        using var client = Client();
        var model = EngineNode.NewModel();
        var id = await client.RunModelAsync(node.Request(await client.NodeAsync("process"), model,
            change: request => (request["backend"], request["max_failed_restarts"]) = ("simulator", 1)));
        await client.ChatAsync(model);
        var before = node.Processes().ShouldHaveSingleItem();

        await first.DisposeAsync();
        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        await Deadline.UntilAsync(() => TryChatAsync(client, model), status => status == HttpStatusCode.OK);
        var after = node.Processes().ShouldHaveSingleItem();
        var log = await Deadline.UntilAsync(() => client.LogAsync(id), log => log.Count(IsChat) >= 2);
        EngineNode.Kill(after);
        var failed = await client.StatusAsync(id, "error");

        after.ShouldBe(before);
        log.Count(IsChat).ShouldBe(2);
        log.Count(line => line.Contains("Application startup complete", StringComparison.Ordinal)).ShouldBe(1);
        failed.Text("last_error").ShouldContain("The engine ended");
        await Deadline.UntilAsync(() => node.Processes().Count == 0, what: "the sidecar to be removed");
    }

    [Fact]
    public async Task Control_plane_ends_soon_when_asked_and_leaves_its_engines()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        using var client = Client();
        var (nodeId, container, process) = (await client.NodeAsync("docker", "process"), EngineNode.NewModel(), EngineNode.NewModel());
        var id = await client.RunModelAsync(node.Request(nodeId, container));
        await client.RunModelAsync(node.Request(nodeId, process, 8102, request => request["backend"] = "simulator"));
        var (before, pid) = (await node.ContainerAsync(), node.Processes().ShouldHaveSingleItem());

        var began = TimeProvider.System.GetTimestamp();
        var code = await first.StopAsync();
        var took = TimeProvider.System.GetElapsedTime(began);
        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, _port);
        await Deadline.UntilAsync(() => TryChatAsync(client, container), status => status == HttpStatusCode.OK);
        await Deadline.UntilAsync(() => TryChatAsync(client, process), status => status == HttpStatusCode.OK);
        var after = await node.ContainerAsync();

        code.ShouldBe(0);
        took.ShouldBeLessThan(Deadline.Allowed(5));
        (after.Id, after.State.StartedAt).ShouldBe((before.Id, before.State.StartedAt));
        node.Processes().ShouldBe([pid]);
        (await Deadline.UntilAsync(() => client.LogAsync(id), log => log.Any(IsUp))).Count(IsUp).ShouldBe(1);
    }

    private static bool IsUp(string line) => line.Contains("Application startup complete", StringComparison.Ordinal);

    private static async Task<(long Requests, long Prompt, long Completion)> TotalsAsync(HttpClient client, int id)
    {
        var deployment = await client.JsonAsync($"/api/deployments/{id}");
        return (deployment.GetProperty("total_requests").GetInt64(), deployment.GetProperty("total_prompt_tokens").GetInt64(), deployment.GetProperty("total_completion_tokens").GetInt64());
    }

    private HttpClient Client() => new() { BaseAddress = new Uri($"http://127.0.0.1:{_port}") };

    private static bool IsChat(string line) => line.Contains("\"POST /v1/chat/completions HTTP/1.1\" 200", StringComparison.Ordinal);

    private static async Task<HttpStatusCode?> TryChatAsync(HttpClient client, string model)
    {
        try
        {
            using var answer = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(model, maxTokens: 1), Ct);
            return answer.StatusCode;
        }
        catch (HttpRequestException)
        {
            return null;
        }
    }

    /// <summary>A streamed chat that has begun and goes on for seconds.</summary>
    private static async Task<HttpResponseMessage> StreamAsync(HttpClient client, string model)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat(model, stream: true, maxTokens: 500)) };
        var answer = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
        answer.EnsureSuccessStatusCode();
        var first = new byte[16];
        await (await answer.Content.ReadAsStreamAsync(Ct)).ReadExactlyAsync(first, Ct);
        return answer;
    }
}
