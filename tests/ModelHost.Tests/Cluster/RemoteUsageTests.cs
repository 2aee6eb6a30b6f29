using System.Net;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Features.Nodes;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Proxy;

namespace ModelHost.Tests.Cluster;

/// <summary>Usage of direct requests on another machine, over the ends and beginnings of both sides.</summary>
public sealed class RemoteUsageTests : IAsyncDisposable
{
    private static readonly string[] s_quick = ["Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1"];
    private readonly TestNode _control = new();
    private readonly TestNode _remote = new() { DirectListen = "127.0.0.1" };
    private readonly int _port = TestPorts.Free();
    private readonly HttpClient _direct;
    private NodeAgent? _agent;

    public RemoteUsageTests() => _direct = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{_port}") };

    [Fact]
    public async Task What_was_used_while_nobody_asked_is_booked_once_whoever_was_restarted()
    {
        string key;
        await using (var cluster = await StartAsync())
        {
            (key, _, _) = await cluster.Host.Client.MakeKeyAsync("""{"label":"mine"}""");
            await AskAsync(status: HttpStatusCode.Unauthorized); // the node has heard of the key
            await AskAsync(key);
            await _agent!.DisposeAsync(); // as SIGTERM ends it; its engine goes on
            _agent = await NodeAgent.StartAsync(null, null, _remote, time: cluster.Clock);
            await AskAsync(key);
            await BookedAsync(cluster, "mine", 2);
        }
        await AskAsync(key);
        await AskAsync(key);

        await using (var cluster = await TestCluster.StartAsync(_control, s_quick))
            await BookedAsync(cluster, "mine", 4);
        await using var last = await TestCluster.StartAsync(_control, s_quick);
        await AskAsync(key);
        await BookedAsync(last, "mine", 5);
        await EndAsync(last);
    }

    private async Task<TestCluster> StartAsync()
    {
        var cluster = await TestCluster.StartAsync(_control, s_quick);
        _agent = await cluster.AgentAsync(node: _remote);
        await cluster.RunAsync("demo/tiny-chat", _port);
        return cluster;
    }

    /// <summary>Asks at the public port until it is answered so.</summary>
    private Task<HttpStatusCode> AskAsync(string? key = null, HttpStatusCode status = HttpStatusCode.OK) => Deadline.UntilAsync(async () =>
    {
        try
        {
            using var answer = await DirectNode.ChatAsync(_direct, key);
            return answer.StatusCode;
        }
        catch (HttpRequestException)
        {
            return HttpStatusCode.ServiceUnavailable;
        }
    }, found => found == status, 60, $"the public port to answer {status}");

    /// <summary>Waits until so many requests are booked and nothing else is to be booked.</summary>
    private static async Task BookedAsync(TestCluster cluster, string label, int requests)
    {
        var usage = await Deadline.UntilAsync(
            async () => (Usage: await cluster.Host.Client.JsonAsync("/api/usage?group_by=key"),
                Waits: cluster.Host.Services.GetRequiredService<NodeRegistry>().All.Any(node => node.LastReport is not { UsageWaiting: false })),
            read => Requests(read.Usage, label) >= requests && !read.Waits, 60, $"{requests} requests to be booked");

        Requests(usage.Usage, label).ShouldBe(requests);
    }

    private static int Requests(JsonElement usage, string label) =>
        usage.GetProperty("data").EnumerateArray().Where(row => row.Text("key_label") == label).Sum(row => row.GetProperty("requests").GetInt32());

    private static async Task EndAsync(TestCluster cluster)
    {
        var deployment = (await cluster.Host.Client.JsonAsync("/api/deployments")).EnumerateArray().Single().Id();
        await cluster.Host.Client.StatusAsync(deployment, "running");
        await cluster.Host.Client.StopModelAsync(deployment);
    }

    public async ValueTask DisposeAsync()
    {
        _direct.Dispose();
        if (_agent is not null)
            await _agent.DisposeAsync();
        _remote.Dispose();
        _control.Dispose();
    }
}
