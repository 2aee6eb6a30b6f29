using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.Benchmarks;

/// <summary>A control plane without a node of its own, an agent in another process, and the engine behind that: each request takes mutual TLS between the two. Its cost is that of both.</summary>
internal sealed class RemotePeer : IAsyncDisposable
{
    /// <summary>Its name in the tables.</summary>
    public const string Name = "ModelHost, remote node";

    private readonly TestNode _controlPlane = new(), _node = new();
    private ModelHostProcess? _host, _agent;

    private RemotePeer()
    {
    }

    public Peer Peer { get; private set; } = null!;

    /// <summary>An API key.</summary>
    public string Key { get; private set; } = "";

    public static async Task<RemotePeer> StartAsync(int millisecondsPerToken)
    {
        var remote = new RemotePeer();
        try
        {
            await remote.StartCoreAsync(millisecondsPerToken);
            return remote;
        }
        catch
        {
            await remote.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_agent is not null)
            await _agent.DisposeAsync();
        if (_host is not null)
            await _host.DisposeAsync();
        _controlPlane.Dispose();
        _node.Dispose();
    }

    private async Task StartCoreAsync(int millisecondsPerToken)
    {
        var (clock, clusterPort) = (Stopwatch.StartNew(), TestPorts.Free());
        _host = await ModelHostProcess.ServeAsync(_controlPlane, TestPorts.Free(), "--no-local-node", $"Cluster:Listen=127.0.0.1:{clusterPort}");
        var startedIn = await Peers.AnsweredAsync(_host.Url, clock);
        using var client = new HttpClient { BaseAddress = _host.Url };
        using var made = await client.PostAsJsonAsync("/api/nodes/join-tokens", new { });
        var token = (await made.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("token").GetString()!;
        _agent = ModelHostProcess.Start(["node", "--data", _node.Data, "--join", $"127.0.0.1:{clusterPort}", "--token", token, "--listen", "127.0.0.1:0",
            .. _node.Configuration.Where(setting => setting.StartsWith("Node:", StringComparison.Ordinal))]);
        await _agent.ListeningAsync();
        Key = await Peers.ServeModelAsync(client, await client.NodeAsync("process"), millisecondsPerToken);
        Peer = new Peer(Name, _host.Url, [Process.GetProcessById(_host.Id), Process.GetProcessById(_agent.Id)], startedIn, withChildren: false);
    }
}
