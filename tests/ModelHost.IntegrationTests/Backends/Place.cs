using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Cluster;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Backends;

/// <summary>A control plane, and the node on which backends are: its own, or one behind an agent.</summary>
internal sealed class Place : IAsyncDisposable
{
    private readonly TestNode _surroundings;
    private readonly NodeAgent? _agent;

    private Place(ControlPlane host, TestNode surroundings, NodeAgent? agent, int node) => (Host, _surroundings, _agent, Node) = (host, surroundings, agent, node);

    /// <summary>The control plane.</summary>
    public ControlPlane Host { get; }

    /// <summary>The node's id.</summary>
    public int Node { get; }

    /// <summary>The node's data folder.</summary>
    public string Data => _surroundings.Data;

    /// <summary>Starts them.</summary>
    public static async Task<Place> StartAsync(NodeScripts scripts, bool remote, params string[] backends)
    {
        var surroundings = new TestNode();
        foreach (var backend in backends)
            await surroundings.InstallAsync(scripts, backend);
        if (!remote)
        {
            var own = await ControlPlane.StartAsync(surroundings);
            return new Place(own, surroundings, null, await own.Client.NodeAsync("process"));
        }
        var host = await ControlPlane.StartAsync();
        using var made = await host.Client.PostAsJsonAsync("/api/nodes/join-tokens", new { ttl_minutes = 60 });
        var token = (await made.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("token").GetString();
        var agent = await NodeAgent.StartAsync($"127.0.0.1:{host.Services.GetRequiredService<ClusterListener>().Port}", token, surroundings);
        var node = await Deadline.UntilAsync(
            async () => (await host.Client.JsonAsync("/api/nodes")).EnumerateArray().FirstOrDefault(node => node.GetProperty("hostname").GetString() == "gpu-1"),
            node => node.ValueKind == JsonValueKind.Object && node.GetProperty("available_runtimes") is { ValueKind: JsonValueKind.Array } runtimes
                && runtimes.EnumerateArray().Any(runtime => runtime.GetString() == "process"), what: "the node to report");
        return new Place(host, surroundings, agent, node.GetProperty("id").GetInt32());
    }

    public async ValueTask DisposeAsync()
    {
        if (_agent is not null)
            await _agent.DisposeAsync();
        await Host.DisposeAsync();
        _surroundings.Dispose();
    }
}
