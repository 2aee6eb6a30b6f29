using System.Diagnostics;
using System.Globalization;
using Microsoft.Extensions.DependencyInjection;
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

        var (reports, cpu) = (links.Sum(link => link.Node.Reports), Cpu());
        await Task.Delay(Measured);
        (reports, cpu) = (links.Sum(link => link.Node.Reports) - reports, Cpu() - cpu);
        var passes = reports / (double)nodes;

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
    internal sealed class FleetNode(string hostname, Deployment[] rows) : INode
    {
        private int _reports;
        private long _last;
        private long _longest;

        /// <summary>How often it was asked.</summary>
        public int Reports => _reports;

        /// <summary>The longest time between two questions since it was last asked for that.</summary>
        public TimeSpan LongestGap()
        {
            Interlocked.Exchange(ref _last, 0);
            return TimeSpan.FromTicks(Interlocked.Exchange(ref _longest, 0));
        }

        public Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken)
        {
            var count = Interlocked.Increment(ref _reports);
            var now = TimeProvider.System.GetUtcNow().Ticks;
            if (Interlocked.Exchange(ref _last, now) is > 0 and var before)
                Interlocked.Exchange(ref _longest, Math.Max(_longest, now - before));
            var report = new NodeReport { NodeId = hostname, Hostname = hostname, AgentVersion = "0.1.0", Disk = new Disk { TotalBytes = 1L << 40, FreeBytes = 1L << 39 } };
            report.Runtimes.Add("docker");
            report.Gpus.AddRange(Enumerable.Range(0, GpusPerNode).Select(i => new Gpu { Index = i, Uuid = $"GPU-{hostname}-{i}", Name = "NVIDIA H100 80GB HBM3", MemoryTotalBytes = 80L << 30, MemoryUsedBytes = 40L << 30 }));
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
            return Task.FromResult(report);
        }

        public Task<StartReply> StartAsync(StartRequest request, CancellationToken cancellationToken) => Task.FromResult(new StartReply());

        public Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken) => Task.FromResult(new StopReply());

        public Task<LogsReply> LogsAsync(LogsRequest request, CancellationToken cancellationToken) => Task.FromResult(new LogsReply());

        public IAsyncEnumerable<LogPiece> LogFileAsync(LogsRequest request, CancellationToken cancellationToken) => AsyncEnumerable.Empty<LogPiece>();

        public Task<UpdateReply> UpdateAsync(UpdateRequest request, CancellationToken cancellationToken) => Task.FromResult(new UpdateReply());

        public Task<EnvironmentReply> EnvironmentAsync(EnvironmentRequest request, CancellationToken cancellationToken) => Task.FromResult(new EnvironmentReply());

        public Task<PortReply> CheckPortAsync(PortRequest request, CancellationToken cancellationToken) => Task.FromResult(new PortReply { Available = true });

        public Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken) => Task.FromResult(new PullReply());

        public Task<CancelPullReply> CancelPullAsync(CancelPullRequest request, CancellationToken cancellationToken) => Task.FromResult(new CancelPullReply());

        public Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken) => Task.FromResult(new ArtifactsReply());

        public Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken) => Task.FromResult(new DeleteArtifactReply());

        public Task ChangedAsync(CancellationToken cancellationToken) =>
            Task.Delay(Timeout.InfiniteTimeSpan, cancellationToken).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
    }
}
