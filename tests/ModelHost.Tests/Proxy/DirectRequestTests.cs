using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Http.Headers;
using Microsoft.AspNetCore.Http;
using ModelHost.Agent.Proxy;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.TestKit;
using ModelHost.Tests.Gateway;
using ModelHost.Tests.Nodes;

namespace ModelHost.Tests.Proxy;

/// <summary>Direct requests on their way: streams, clients that leave, counts, and the ends of deployments and processes.</summary>
public sealed class DirectRequestTests : IDisposable
{
    private static readonly (string, string)[] Slow = [("VLLM_SIM_ITL_MS", "20"), ("VLLM_SIM_OUTPUT_TOKENS", "100000")];
    private readonly TestNode _node = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Events_pass_one_by_one()
    {
        await using var proxy = new ProxyAlone(_node);
        var next = new SemaphoreSlim(0);
        proxy.Answer = async context =>
        {
            context.Response.ContentType = "text/event-stream";
            for (var i = 0; i < 3; i++)
            {
                await context.Response.WriteAsync($"data: {i}\n\n", Ct);
                await context.Response.Body.FlushAsync(Ct);
                await next.WaitAsync(Ct); // nothing more comes before the client has this one
            }
        };
        await proxy.ServeAsync(DirectState.Ready);

        using var answer = await DirectNode.ChatAsync(proxy.Client, stream: true);
        using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
        for (var i = 0; i < 3; i++)
        {
            (await reader.ReadLineAsync(Ct)).ShouldBe($"data: {i}");
            (await reader.ReadLineAsync(Ct)).ShouldBe("");
            proxy.Reported().DirectRequests.ShouldBe(1);
            next.Release();
        }
        (await reader.ReadToEndAsync(Ct)).ShouldBe("");
        answer.Headers.CacheControl!.NoCache.ShouldBeTrue();
        await Deadline.UntilAsync(() => proxy.Reported().DirectRequests == 0);
    }

    [Fact]
    public async Task A_client_that_leaves_ends_the_engines_work_and_is_counted_as_long_as_it_is_there()
    {
        await using var node = await DirectNode.StartAsync(Slow);
        await node.BecomesAsync(HttpStatusCode.OK);
        using (var answer = await node.ChatAsync(stream: true, tokens: 100_000))
        {
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
            (await reader.ReadLineAsync(Ct))!.ShouldStartWith("data: ");
            await Deadline.UntilAsync(async () => (await node.Host.Client.JsonAsync("/backend/monitor?model=demo/tiny-chat")).GetProperty("state").GetInt32(), state => state == 1, what: "the monitor to say busy");
        }

        await Deadline.UntilAsync(() => Running(node), running => running == 0, what: "the engine to have given up");
        await Deadline.UntilAsync(() => node.Reported().DirectRequests == 0);
        await node.Host.Client.StopModelAsync(node.Id);
    }

    [Fact]
    public async Task Requests_are_counted_by_model_route_and_status_and_nothing_that_a_client_wrote()
    {
        await using var proxy = new ProxyAlone(_node);
        var counted = new ConcurrentQueue<string>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, listening) =>
            {
                if (instrument.Meter.Scope == proxy.Meters)
                    listening.EnableMeasurementEvents(instrument);
            },
        };
        listener.SetMeasurementEventCallback<double>((_, _, tags, _) => counted.Enqueue(string.Join(' ', tags.ToArray().Select(tag => $"{tag.Key}={tag.Value}"))));
        listener.Start();
        await proxy.ServeAsync(DirectState.Ready);

        (await DirectNode.ChatAsync(proxy.Client, "mh_sk_mine")).StatusCode.ShouldBe(HttpStatusCode.OK);
        (await proxy.Client.GetAsync(new Uri("/mine?key=mh_sk_mine", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.NotFound);

        await Deadline.UntilAsync(() => counted.Count == 2);
        counted.ShouldBe(["model=m route=/v1/chat/completions status=200", "model=m route=_other status=404"], ignoreOrder: true);
    }

    [Fact]
    public async Task A_drain_waits_for_direct_requests_and_lets_no_new_ones_in()
    {
        await using var node = await DirectNode.StartAsync(Slow);
        await node.BecomesAsync(HttpStatusCode.OK);
        var id = (await node.Host.Client.JsonAsync("/api/nodes"))[0].GetProperty("id").GetInt32();
        using var stream = await node.ChatAsync(stream: true, tokens: 400);
        System.Text.Json.JsonElement draining;
        using (new HeldEngine(node.Host.Node))
        {
            await NodeChangeTests.SentAsync(node.Host, HttpMethod.Post, $"/{id}/maintenance", """{"enabled":true,"drain":true}""");
            await Deadline.UntilAsync(() => node.Reported().Draining, what: "the port to take no new requests");
            await (await node.ChatAsync()).ShouldBeOpenAiErrorAsync(HttpStatusCode.ServiceUnavailable, "shutting_down");
            draining = await node.ReadAsync();
        }
        var text = await new StreamReader(await stream.Content.ReadAsStreamAsync(Ct)).ReadToEndAsync(Ct);
        await node.Host.Client.StatusAsync(node.Id, "stopped");

        draining.GetProperty("detail").GetString().ShouldBe("draining");
        text.TrimEnd().ShouldEndWith("[DONE]");
        // the port is closed beside the word that the engine is gone
        await Deadline.UntilAsync(async () =>
        {
            try
            {
                using var answer = await node.ChatAsync();
                return false;
            }
            catch (HttpRequestException)
            {
                return true;
            }
        }, closed => closed, what: "the port to be closed");
    }

    [Fact]
    public async Task The_end_of_the_process_waits_for_streams_and_lets_no_new_requests_in()
    {
        await using var proxy = new ProxyAlone(_node);
        var held = new TaskCompletionSource();
        proxy.Answer = async context =>
        {
            await context.Response.WriteAsync("the beginning and ", Ct);
            await context.Response.Body.FlushAsync(Ct);
            await held.Task;
            await context.Response.WriteAsync("the end", Ct);
        };
        await proxy.ServeAsync(DirectState.Ready);
        using var under = await DirectNode.ChatAsync(proxy.Client);

        var stopped = proxy.Proxy.StopAsync(CancellationToken.None);
        using (var refused = await DirectNode.ChatAsync(proxy.Client))
        {
            await refused.ShouldBeOpenAiErrorAsync(HttpStatusCode.ServiceUnavailable, "shutting_down");
            refused.Headers.ConnectionClose.ShouldBe(true);
        }
        stopped.IsCompleted.ShouldBeFalse();
        held.SetResult();

        (await under.Content.ReadAsStringAsync(Ct)).ShouldBe("the beginning and the end");
        await stopped.WaitAsync(TimeSpan.FromSeconds(30), Ct);
        await Should.ThrowAsync<HttpRequestException>(() => DirectNode.ChatAsync(proxy.Client));
    }

    [Fact]
    public async Task A_stream_that_outlasts_the_deadline_is_cut()
    {
        await using var proxy = new ProxyAlone(_node, drain: TimeSpan.FromMilliseconds(200));
        var left = new TaskCompletionSource();
        proxy.Answer = async context =>
        {
            await context.Response.WriteAsync("the beginning", Ct);
            await context.Response.Body.FlushAsync(Ct);
            await Task.Delay(Timeout.Infinite, context.RequestAborted).ContinueWith(_ => left.TrySetResult(), TaskScheduler.Default);
        };
        await proxy.ServeAsync(DirectState.Ready);
        using var under = await DirectNode.ChatAsync(proxy.Client);

        await proxy.Proxy.StopAsync(CancellationToken.None).WaitAsync(TimeSpan.FromSeconds(30), Ct);

        await Should.ThrowAsync<Exception>(() => under.Content.ReadAsStringAsync(Ct));
        await left.Task.WaitAsync(TimeSpan.FromSeconds(30), Ct);
    }

    private static async Task<double> Running(DirectNode node)
    {
        var engine = node.Reported();
        using var client = new HttpClient { DefaultRequestHeaders = { Authorization = new AuthenticationHeaderValue("Bearer", engine.EngineKey) } };
        var page = await client.GetStringAsync(new Uri(engine.EngineUrl + "/metrics"), Ct);
        return EngineCounters.Parse(BackendCatalogue.BuiltIn["vllm"].Metrics, page)!.RequestsRunning ?? -1;
    }

    public void Dispose() => _node.Dispose();
}
