using System.Net.Http.Json;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

public sealed class LifecycleTests(RealDockerFixture fixture)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Deployment_shows_every_step_of_its_load()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var id = await host.Client.StartModelAsync(
            node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel(), variables: ("VLLM_SIM_LOAD_SECONDS", "15")));
        var (statuses, details) = (new List<string>(), new List<string>());

        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), deployment =>
        {
            if (statuses.LastOrDefault() != deployment.Status())
                statuses.Add(deployment.Status());
            if (deployment.Text("detail") is { Length: > 0 } detail && details.LastOrDefault() != detail)
                details.Add(detail);
            return deployment.Status() is "running" or "error";
        });

        statuses.ShouldBe(["starting", "loading", "running"]);
        // the engine's progress bar of the weights comes as one line when it is over: what shows meanwhile is what it said before
        details.Where(detail => detail is "downloading" or "compiling").ShouldBe(["downloading", "compiling"]);
    }

    [Fact]
    public async Task Model_is_served_counted_and_gone_after_stop()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var (nodeId, model) = (await host.Client.NodeAsync("docker"), EngineNode.NewModel());
        var id = await host.Client.RunModelAsync(node.Request(nodeId, model));

        var whole = await host.Client.ChatAsync(model, maxTokens: 7);
        var events = await StreamAsync(host.Client, model, maxTokens: 9);
        var log = await Deadline.UntilAsync(() => host.Client.LogAsync(id), log => log.Count(IsChat) == 2);
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), one => one.GetProperty("total_requests").GetInt64() == 2, what: "the requests to be counted");
        await host.Client.StopModelAsync(id);
        var left = await node.ContainersAsync();
        var stopped = await host.Client.JsonAsync($"/api/deployments/{id}");
        var logOfStopped = await host.Client.LogAsync(id);
        var again = await host.Client.RunModelAsync(node.Request(nodeId, model));

        whole.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(7);
        events.Count.ShouldBeGreaterThan(2);
        events[^1].ShouldBe("[DONE]");
        log.ShouldContain(line => line.Contains("Application startup complete", StringComparison.Ordinal));
        left.ShouldBeEmpty();
        stopped.GetProperty("total_requests").GetInt64().ShouldBe(2);
        stopped.GetProperty("total_completion_tokens").GetInt64().ShouldBe(16);
        logOfStopped.Count(IsChat).ShouldBe(2);
        logOfStopped[^1].ShouldContain("stopped");
        again.ShouldNotBe(id);
    }

    [Fact]
    public async Task What_was_counted_last_before_a_stop_is_in_the_totals()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        // on a crowded machine the engine, and the report after it, are waited for longer than a person who stops one would
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: "Node:MetricsInterval=00:05:00",
            configure: services => services.Configure<NodeOptions>(options => options.LastCountDeadlines = (TimeSpan.FromMinutes(1), TimeSpan.FromMinutes(1))));
        var model = EngineNode.NewModel();
        var id = await host.Client.RunModelAsync(node.Request(await host.Client.NodeAsync("docker"), model));

        using var traffic = new EngineTraffic(await node.ContainerAsync());
        await host.Client.ChatAsync(model);
        await Deadline.UntilAsync(() => traffic.CounterAsync("vllm:request_success_total"), count => count == 1, what: "the engine to count");
        await host.Client.StopModelAsync(id);

        (await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("total_requests").GetInt64().ShouldBe(1);
    }

    private static bool IsChat(string line) => line.Contains("\"POST /v1/chat/completions HTTP/1.1\" 200", StringComparison.Ordinal);

    private static async Task<List<string>> StreamAsync(HttpClient client, string model, int maxTokens)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat(model, stream: true, maxTokens)) };
        using var answer = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
        answer.EnsureSuccessStatusCode();
        answer.Content.Headers.ContentType!.MediaType.ShouldBe("text/event-stream");
        var text = await answer.Content.ReadAsStringAsync(Ct);
        return [.. text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries).Select(e => e["data: ".Length..])];
    }
}
