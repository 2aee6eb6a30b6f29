using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Cluster;
using ModelHost.Hosting;
using ModelHost.TestKit;

namespace ModelHost.Benchmarks;

/// <summary>Many agents that only report, over real TLS: what the control plane pays for them, and what one that swallows everything costs the others.</summary>
internal static class Agents
{
    private const int Changes = 300;
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(30), Measured = TimeSpan.FromSeconds(30);

    /// <summary>Runs the control plane as a process of its own and the agents in this one.</summary>
    public static async Task<int> RunAsync(int count)
    {
        using var surroundings = new TestNode();
        var clusterPort = TestPorts.Free();
        await using var host = await ModelHostProcess.ServeAsync(surroundings, TestPorts.Free(), "--no-local-node", "--cluster-listen", $"127.0.0.1:{clusterPort}");
        using var client = new HttpClient { BaseAddress = host.Url };
        var agents = new List<Agent>();
        try
        {
            for (var i = 0; i < count; i++)
                agents.Add(await Agent.StartAsync(client, clusterPort, $"gpu{i:000}"));
            await Deadline.UntilAsync(() => client.JsonAsync("/api/nodes"),
                nodes => nodes.EnumerateArray().Count(node => node.GetProperty("status").GetString() == "online") == count, 120, "all nodes to be online");
            await Task.Delay(Settling);
            var ids = (await client.JsonAsync("/api/nodes")).EnumerateArray().ToDictionary(node => node.GetProperty("hostname").GetString()!, node => node.GetProperty("id").GetInt32());
            var (cpu, memory, bytes) = await MeasureAsync(host, agents.Count);
            var (median, longest) = await DelaysAsync(client, agents, ids);
            using var hole = new TcpListener(IPAddress.Loopback, 0);
            hole.Start(1);
            await agents[0].SwallowAsync(((IPEndPoint)hole.LocalEndpoint).Port);
            await Task.Delay(Settling);
            var (cpuWith, _, _) = await MeasureAsync(host, agents.Count - 1);
            var (medianWith, longestWith) = await DelaysAsync(client, agents[1..], ids);
            var statuses = (await client.JsonAsync("/api/nodes")).EnumerateArray().GroupBy(node => node.GetProperty("status").GetString()).Select(group => $"{group.Count()} {group.Key}");
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"""
                {Environment.ProcessorCount} cores, .NET {Environment.Version}; {count} agents that report every 5 s, with heartbeats every 8 to 10 s
                control plane: {cpu:0.000} cores, {memory:0} MiB, {bytes:0} bytes on loopback per node and minute; a change of a node shows in the API after {median:0.0} ms (p50), {longest:0} ms (max of {Changes})
                with one that swallows everything: {cpuWith:0.000} cores; a change of another shows after {medianWith:0.0} ms (p50), {longestWith:0} ms (max) ({string.Join(", ", statuses)})
                """));
            return 0;
        }
        finally
        {
            await Task.WhenAll(agents.Select(agent => agent.DisposeAsync().AsTask()));
        }
    }

    private static async Task<(double Cores, double Mib, double Bytes)> MeasureAsync(ModelHostProcess host, int agents)
    {
        using var process = Process.GetProcessById(host.Id);
        var (before, sent) = (process.TotalProcessorTime, LoopbackBytes());
        await Task.Delay(Measured);
        process.Refresh();
        return ((process.TotalProcessorTime - before) / Measured, process.WorkingSet64 / 1048576.0, (LoopbackBytes() - sent) / Measured.TotalMinutes / agents);
    }

    /// <summary>Milliseconds from a change on a node to the answer of the API that shows it, of one node after the other.</summary>
    private static async Task<(double Median, double Longest)> DelaysAsync(HttpClient client, List<Agent> agents, Dictionary<string, int> ids)
    {
        var delays = new List<double>();
        var begin = Guid.NewGuid();
        for (var i = 0; i < Changes; i++)
        {
            var (agent, driver) = (agents[i * 7 % agents.Count], $"{begin} {i}");
            var clock = Stopwatch.StartNew();
            agent.Node.Drive(driver);
            while ((await client.JsonAsync($"/api/nodes/{ids[agent.Name]}")).GetProperty("gpu_driver").GetString() != driver && clock.Elapsed < Measured)
                await Task.Delay(1);
            delays.Add(clock.Elapsed.TotalMilliseconds);
        }
        delays.Sort();
        return (delays[Changes / 2], delays[^1]);
    }

    /// <summary>Everything that was sent to this machine by itself, headers of TCP and IP included: in a network namespace of its own, what is measured alone.</summary>
    private static double LoopbackBytes()
    {
        var loopback = File.ReadLines("/proc/net/dev").Single(line => line.TrimStart().StartsWith("lo:", StringComparison.Ordinal));
        return double.Parse(loopback.Split(':')[1].Split(' ', StringSplitOptions.RemoveEmptyEntries)[0], CultureInfo.InvariantCulture);
    }

    private sealed class Agent : IAsyncDisposable
    {
        private readonly DirectoryInfo _data = Directory.CreateTempSubdirectory("mh-agent-");
        private readonly DataFolder _folder;
        private Membership? _membership;
        private WebApplication? _app;

        private Agent(string name)
        {
            _folder = DataFolder.Open(_data.FullName);
            (Name, Node) = (name, new Fleet.FleetNode(name, []));
        }

        public string Name { get; }

        public Fleet.FleetNode Node { get; }

        public static async Task<Agent> StartAsync(HttpClient client, int clusterPort, string name)
        {
            var agent = new Agent(name);
            using var answer = await client.PostAsJsonAsync("/api/nodes/join-tokens", new { });
            var token = (await answer.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("token").GetString()!;
            agent._membership = await Membership.JoinAsync(agent._folder, TimeProvider.System, $"127.0.0.1:{clusterPort}", token, name, null, default);
            // a full one would watch files, of which there may not be so many
            var builder = WebApplication.CreateEmptyBuilder(new());
            builder.WebHost.UseKestrelCore();
            builder.Services.AddRoutingCore();
            builder.Services.AddSingleton(TimeProvider.System);
            NodeHost.AddAgent(builder, "127.0.0.1:0", agent._membership, name);
            agent._app = builder.Build();
            NodeHost.MapAgent(agent._app, agent._membership, agent.Node);
            await agent._app.StartAsync();
            return agent;
        }

        /// <summary>Ends, and says that it is now where nobody answers.</summary>
        public async Task SwallowAsync(int port)
        {
            await _app!.StopAsync();
            await _membership!.BeatAsync(new HeartbeatRequest { Hostname = "hole", Port = port, AgentVersion = "0.1.0" }, default);
        }

        public async ValueTask DisposeAsync()
        {
            if (_app is not null)
                await _app.DisposeAsync();
            _membership?.Dispose();
            _folder.Dispose();
            _data.Delete(recursive: true);
        }
    }
}
