using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Engines;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Gateway;

/// <summary>The gateway before simulated engines: while one loads, dies, or loses its client.</summary>
public sealed class EngineLifeTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_model_that_loads_is_asked_for_later()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:HoldTimeout=00:00:00");
        var id = await host.Client.StartModelAsync(await RequestAsync(host, ("VLLM_SIM_HANG", "load")));
        await host.Client.StatusAsync(id, "loading");

        using var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat"), Ct);
        await host.Client.StopModelAsync(id);

        await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.ServiceUnavailable, "model_loading", "model");
        answer.Headers.RetryAfter!.Delta.ShouldBe(TimeSpan.FromSeconds(2));
    }

    [Fact]
    public async Task A_key_that_the_engine_does_not_know_is_not_passed_on()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(await RequestAsync(host));
        await host.Client.StatusAsync(id, "running");
        host.Client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", "sk-anything");

        using var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 3), Ct);
        host.Client.DefaultRequestHeaders.Authorization = null;
        await host.Client.StopModelAsync(id);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task A_model_whose_engine_died_is_served_no_more()
    {
        await using var host = await ControlPlane.StartAsync();
        var request = await RequestAsync(host, ("VLLM_SIM_EXIT_AFTER", "1"));
        request["max_failed_restarts"] = 1;
        var id = await host.Client.StartModelAsync(request);
        await host.Client.StatusAsync(id, "running");
        using (var last = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 3), Ct))
            last.StatusCode.ShouldBe(HttpStatusCode.OK);
        await host.Client.StatusAsync(id, "error");

        // the routes follow the status
        using var answer = await Deadline.UntilAsync(() => host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 3), Ct),
            a => a.StatusCode != HttpStatusCode.BadGateway);

        await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.NotFound, "model_not_found", "model");
    }

    [Fact]
    public async Task A_client_that_leaves_a_stream_ends_the_engines_work()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(await RequestAsync(host, ("VLLM_SIM_ITL_MS", "50"), ("VLLM_SIM_OUTPUT_TOKENS", "100000")));
        await host.Client.StatusAsync(id, "running");
        using (var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat("demo/tiny-chat", stream: true, maxTokens: 2000)) })
        using (var answer = await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct))
        {
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
            (await reader.ReadLineAsync(Ct))!.ShouldStartWith("data: ");
        }

        // the engine counts it first, and gives its place back then
        await Deadline.UntilAsync(() => EngineMetricsAsync(host), text => text.Contains("finished_reason=\"abort\"", StringComparison.Ordinal)
            && Aborts(text) == 1 && EngineCounters.Parse(Core.Backends.BackendCatalogue.BuiltIn["vllm"].Metrics, text)!.RequestsRunning == 0);
        await host.Client.StopModelAsync(id);
    }

    private static double Aborts(string page) =>
        double.Parse(page.Split('\n').First(l => l.StartsWith("vllm:request_success_total", StringComparison.Ordinal) && l.Contains("\"abort\"", StringComparison.Ordinal)).Split(' ')[^1],
            System.Globalization.CultureInfo.InvariantCulture);

    private static async Task<string> EngineMetricsAsync(ControlPlane host)
    {
        Engine engine = host.Services.GetRequiredService<NodeRegistry>().All.Single().LastReport!.Engines.Single();
        using var client = new HttpClient { DefaultRequestHeaders = { Authorization = new AuthenticationHeaderValue("Bearer", engine.EngineKey) } };
        return await client.GetStringAsync(new Uri(engine.EngineUrl + "/metrics"), Ct);
    }

    private static async Task<JsonObject> RequestAsync(ControlPlane host, params (string Key, string Value)[] variables) =>
        Api.StartRequest(await host.Client.NodeAsync("process"), change: request => request["env_vars"] =
            new JsonArray([.. variables.Select(variable => new JsonObject { ["key"] = variable.Key, ["value"] = variable.Value })]));
}
