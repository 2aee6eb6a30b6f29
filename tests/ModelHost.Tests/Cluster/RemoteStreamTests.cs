using System.Net;
using System.Net.Http.Json;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.TestKit;

namespace ModelHost.Tests.Cluster;

/// <summary>Answers that pass gateway and agent on their way, over the cluster's TLS, and clients that leave.</summary>
public sealed class RemoteStreamTests
{
    // longer than any test waits: what would come after it is not waited for
    private const string Never = "1800000";
    // half an hour of tokens: an engine that goes on for nobody is not at its end before it is given up
    private const int Endless = 100_000;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Each_piece_comes_when_the_engine_has_it_and_not_with_the_next()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var id = await cluster.RunAsync(("VLLM_SIM_ITL_MS", Never));

        var seen = new List<string>();
        using (var answer = await cluster.StreamAsync(5, Ct))
        {
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
            // the role, and the first token: half an hour later comes the second
            while (!seen.Any(line => line.Contains("\"content\":\"", StringComparison.Ordinal) && !line.Contains("\"content\":\"\"", StringComparison.Ordinal)))
                seen.Add((await reader.ReadLineAsync(Ct).AsTask().WaitAsync(TimeSpan.FromSeconds(60), Ct)).ShouldNotBeNull());
            (await EngineAsync(agent)).RequestsRunning.ShouldBe(1);
        }
        await AbortedAsync(agent);
        await cluster.Host.Client.StopModelAsync(id);

        seen.ShouldAllBe(line => line.Length == 0 || line.StartsWith("data: {", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Client_that_leaves_a_stream_ends_the_work_of_the_engine_behind_the_agent()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var id = await cluster.RunAsync(("VLLM_SIM_ITL_MS", "20"), ("VLLM_SIM_OUTPUT_TOKENS", "100000"));

        var events = 0;
        using (var answer = await cluster.StreamAsync(Endless, Ct))
        {
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
            while (events < 30)
                events += (await reader.ReadLineAsync(Ct)).ShouldNotBeNull().StartsWith("data: {", StringComparison.Ordinal) ? 1 : 0;
        }

        await AbortedAsync(agent);
        await cluster.Host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Client_that_leaves_before_the_answer_ends_the_work_of_the_engine_behind_the_agent()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var id = await cluster.RunAsync(("VLLM_SIM_TTFT_MS", Never));
        using var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct);

        var asked = cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 5), leave.Token);
        await Deadline.UntilAsync(async () => (await EngineAsync(agent)).RequestsRunning, running => running == 1, what: "the engine to have the request");
        await leave.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(() => asked);
        await AbortedAsync(agent);
        await cluster.Host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Stream_whose_way_breaks_ends_with_an_error_and_the_engine_works_on_for_nobody()
    {
        await using var cluster = await TestCluster.StartAsync();
        using var surroundings = new TestNode();
        var agent = await cluster.AgentAsync(node: surroundings);
        var id = await cluster.RunAsync(("VLLM_SIM_ITL_MS", "20"), ("VLLM_SIM_OUTPUT_TOKENS", "100000"));
        using var answer = await cluster.StreamAsync(Endless, Ct);
        using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
        (await reader.ReadLineAsync(Ct)).ShouldNotBeNull().ShouldStartWith("data: {");

        await agent.DisposeAsync();
        var rest = await reader.ReadToEndAsync(Ct);
        var end = rest.Split("\n\n", StringSplitOptions.RemoveEmptyEntries)[^2..];

        end[0].ShouldContain("\"error\":");
        end[1].ShouldBe("data: [DONE]");
        await AbortedAsync(agent);
        await using var back = await NodeAgent.StartAsync(null, null, surroundings, time: cluster.Clock);
        await Deadline.UntilAsync(async () =>
        {
            using var served = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 2), Ct);
            return served.StatusCode;
        }, status => status == HttpStatusCode.OK, 60, "the model to be served again");
        await cluster.Host.Client.StopModelAsync(id);
    }

    private static async Task AbortedAsync(NodeAgent agent) => await Deadline.UntilAsync(async () => (await EngineAsync(agent)).RequestsRunning, running => running == 0, what: "the engine to give the request up");

    /// <summary>The engine's own counters, past gateway and agent.</summary>
    private static async Task<EngineCounters> EngineAsync(NodeAgent agent)
    {
        using var client = new HttpClient();
        var page = await client.GetStringAsync(new Uri($"http://127.0.0.1:{TestCluster.Sidecars(agent).ShouldHaveSingleItem().GetProperty("engine_port").GetInt32()}/metrics"), Ct);
        return EngineCounters.Parse(BackendCatalogue.BuiltIn["vllm"].Metrics, page)!;
    }
}
