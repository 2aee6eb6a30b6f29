using System.Diagnostics;
using System.Globalization;
using System.Threading.Channels;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Reports;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;
using ModelHost.Reconcile;
using ModelHost.TestKit;

namespace ModelHost.Benchmarks;

/// <summary>Many deployments on many nodes that only report: what the list and a pass over all of them cost.</summary>
internal static class Fleet
{
    private const int Lists = 400;
    private const int WarmUp = 200;
    private const int GpusPerNode = 8;
    // every tenth engine has traffic, so that its totals are stored in each pass
    private const int BusyOneIn = 10;
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan Measured = TimeSpan.FromSeconds(20);

    /// <summary>Runs it in this process, whose CPU time is then that of the control plane and the client of the lists.</summary>
    public static async Task<int> RunAsync(int nodes, int deployments)
    {
        // more often than by default, so that there are enough passes to measure, of code that the runtime has compiled for good
        await using var host = await ControlPlane.StartAsync(configuration: ["Settings:DeploymentsSyncIntervalSeconds=1", "Logging:LogLevel:Default=Warning"]);
        var links = await SeedAsync(host, nodes, deployments);
        using var end = new CancellationTokenSource();
        var actors = links.Select(link => ActivatorUtilities.CreateInstance<NodeActor>(host.Services, link.Handle, Random.Shared).RunAsync(end.Token)).ToArray();
        await Task.Delay(Settling);

        var (passed, cpu) = (links.Sum(link => link.Handle.Passes), Cpu());
        await Task.Delay(Measured);
        (passed, cpu) = (links.Sum(link => link.Handle.Passes) - passed, Cpu() - cpu);
        var passes = passed / (double)nodes;

        for (var i = 0; i < WarmUp; i++)
            await ListAsync(host.Client);
        var took = new List<double>();
        var (listing, began) = (Cpu(), Stopwatch.GetTimestamp());
        for (var i = 0; i < Lists; i++)
            took.Add(await ListAsync(host.Client));
        // the passes went on meanwhile
        listing = Cpu() - listing - (cpu * (Stopwatch.GetElapsedTime(began) / Measured));
        took.Sort();
        await end.CancelAsync();
        await Task.WhenAll(actors);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"""
            {Environment.ProcessorCount} cores, .NET {Environment.Version}; {nodes} nodes with {deployments} running deployments, every {BusyOneIn}th with traffic
            a pass over all nodes: {cpu.TotalMilliseconds / passes:0} ms of CPU ({passes / Measured.TotalSeconds:0.00} passes a second)
            list of all deployments, beside the passes: p50 {took[Lists / 2]:0.0} ms, p99 {took[Lists * 99 / 100]:0.0} ms, {listing.TotalMilliseconds / Lists:0.0} ms of CPU with its client
            """));
        return 0;
    }

    /// <summary>Reads the list to its end, and keeps nothing of it.</summary>
    /// <returns>Milliseconds.</returns>
    private static async Task<double> ListAsync(HttpClient client)
    {
        var clock = Stopwatch.StartNew();
        using var answer = await client.GetAsync(new Uri("/api/deployments", UriKind.Relative), HttpCompletionOption.ResponseHeadersRead);
        answer.EnsureSuccessStatusCode();
        await answer.Content.CopyToAsync(Stream.Null);
        return clock.Elapsed.TotalMilliseconds;
    }

    private static TimeSpan Cpu() => Process.GetCurrentProcess().TotalProcessorTime;

    private static async Task<List<(NodeHandle Handle, FleetNode Node)>> SeedAsync(ControlPlane host, int nodes, int deployments)
    {
        var registry = host.Services.GetRequiredService<NodeRegistry>();
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(default);
        var links = new List<(NodeHandle, FleetNode)>();
        for (var n = 0; n < nodes; n++)
        {
            var node = new Node { Uid = $"fleet-{n}", Hostname = $"gpu{n:000}", IpAddress = "127.0.0.1", CreatedAt = DateTimeOffset.UtcNow };
            db.Nodes.Add(node);
            await db.SaveChangesAsync();
            var rows = Enumerable.Range(0, (deployments / nodes) + (n < deployments % nodes ? 1 : 0)).Select(i => Row(node, n, i)).ToArray();
            db.Deployments.AddRange(rows);
            await db.SaveChangesAsync();
            db.PublicNames.AddRange(rows.Select(row => new PublicName { Name = row.ReadSpec().PublicName, DeploymentId = row.Id }));
            await db.SaveChangesAsync();
            var link = new FleetNode(node.Hostname, rows);
            var handle = ActivatorUtilities.CreateInstance<NodeHandle>(host.Services, node.Id, link, node.Uid);
            registry.Add(handle);
            links.Add((handle, link));
        }
        return links;
    }

    private static Deployment Row(Node node, int n, int i)
    {
        var spec = new LaunchSpec
        {
            Backend = "vllm",
            Runtime = "docker",
            ModelName = $"fleet/model-{n}-{i}",
            Port = 8100 + i,
            GpuMemoryFraction = 0.5,
            GpuIds = [i % GpusPerNode],
            Owner = $"team-{n % 7}",
            EngineVersion = "0.28.0",
        };
        return new Deployment
        {
            Uid = Guid.NewGuid().ToString(),
            NodeId = node.Id,
            Spec = spec.ToJson(),
            Wanted = WantedState.Running,
            Status = DeploymentStatus.Running,
            RunId = Guid.NewGuid().ToString("N"),
            RunSeen = true,
            ReservedPort = spec.Port,
            CreatedAt = node.CreatedAt,
            StatusChangedAt = node.CreatedAt,
        };
    }

    /// <summary>A node whose engines are all ready.</summary>
    internal sealed class FleetNode(string hostname, Deployment[] rows) : NodeStandIn
    {
        private readonly Channel<bool> _changes = Channel.CreateUnbounded<bool>();
        private volatile string _driver = "";
        private int _reports;

        /// <summary>Lets it have another driver, and say so at once.</summary>
        public void Drive(string version)
        {
            _driver = version;
            _changes.Writer.TryWrite(true);
        }

        public override Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken) => Task.FromResult(Report());

        public override IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, CancellationToken cancellationToken) =>
            ReportUpdates.ReadAsync(Report, token => _changes.Reader.ReadAsync(token).AsTask(), request, TimeProvider.System, cancellationToken);

        private NodeReport Report()
        {
            var count = Interlocked.Increment(ref _reports);
            var now = TimeProvider.System.GetUtcNow().Ticks;
            var report = new NodeReport { NodeId = hostname, Hostname = hostname, AgentVersion = "0.1.0", GpuDriver = _driver, Disk = new Disk { TotalBytes = 1L << 40, FreeBytes = 1L << 39 } };
            report.Runtimes.Add("docker");
            // figures of a node at work: no two readings are the same
            var seconds = now / (double)TimeSpan.TicksPerSecond;
            (report.Cpu, report.Memory) = (new Cpu { Count = 64, Percent = seconds % 100 }, new Memory { TotalBytes = 512L << 30, AvailableBytes = (256L << 30) + (now % (1 << 30)) });
            report.Gpus.AddRange(Enumerable.Range(0, GpusPerNode).Select(i => new Gpu
            {
                Index = i,
                Uuid = $"GPU-{hostname}-0000-0000-00000000000{i}",
                Name = "NVIDIA H100 80GB HBM3",
                Source = "nvidia-smi",
                MemoryTotalBytes = 80L << 30,
                MemoryUsedBytes = (40L << 30) + ((now >> 20) % 1024 << 20),
                UtilizationPercent = (int)((seconds + i) % 100),
                TemperatureCelsius = 60 + (int)((seconds + i) % 10),
                PowerWatts = 300 + (seconds % 100),
                ReadAt = seconds,
            }));
            report.Engines.AddRange(rows.Select((row, i) => new Engine
            {
                DeploymentUid = row.Uid,
                RunId = row.RunId,
                Phase = EnginePhase.Ready,
                LaunchSpec = row.Spec,
                Runtime = "docker",
                EngineVersion = "0.28.0",
                EngineUrl = $"http://127.0.0.1:{41000 + i}",
                EngineKey = row.RunId,
                ReadyAt = row.CreatedAt.ToUnixTimeSeconds(),
                Metrics = new EngineMetrics { PromptTokens = i % BusyOneIn == 0 ? 100 * count : 0, GenerationTokens = i % BusyOneIn == 0 ? 50 * count : 0, Requests = i % BusyOneIn == 0 ? count : 0 },
            }));
            return report;
        }
    }
}
