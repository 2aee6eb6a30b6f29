using ModelHost.Core.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;

namespace ModelHost.Features.Nodes;

/// <summary>
/// Takes a sample of every node that answers, all of them in one transaction, as often as nodes are looked at but at most every ten seconds: what
/// is stored is bounded by that. It is the only one who writes the history.
/// </summary>
internal sealed partial class NodeHistoryWriter(
    NodeRegistry registry, NodeHistory history, LiveSettings settings, TimeProvider time, ILogger<NodeHistoryWriter> logger) : BackgroundService
{
    private const double Mib = 1024 * 1024;
    private static readonly TimeSpan Shortest = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan TidyPeriod = TimeSpan.FromMinutes(5);

    private readonly Dictionary<int, DateTimeOffset> _taken = [];

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var (failures, tidied) = (0, DateTimeOffset.MinValue);
        while (!stoppingToken.IsCancellationRequested)
        {
            var adjusted = settings.ChangedAsync(stoppingToken);
            var period = TimeSpan.FromSeconds(settings.Current.NodesSyncIntervalSeconds);
            await Task.WhenAny(Task.Delay(period > Shortest ? period : Shortest, time, stoppingToken), adjusted);
            try
            {
                stoppingToken.ThrowIfCancellationRequested();
                await SampleAsync(stoppingToken);
                if (adjusted.IsCompleted || time.GetUtcNow() - tidied >= TidyPeriod)
                {
                    await history.TidyAsync(TimeSpan.FromHours(settings.Current.NodeMetricsRetentionHours), stoppingToken);
                    tidied = time.GetUtcNow();
                }
                failures = 0;
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                break;
            }
#pragma warning disable CA1031 // a full disk leaves a gap in the history, and nothing else
            catch (Exception e)
#pragma warning restore CA1031
            {
                if (failures++ == 0)
                    LogFailed(e);
            }
        }
    }

    private async Task SampleAsync(CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        var samples = new List<(int, NodeFigures)>();
        foreach (var node in registry.All)
        {
            // what was said once is not stored twice
            if (node is not { Failures: 0, LastReport: { } report, ReportedAt: { } at } || at - _taken.GetValueOrDefault(node.Id) < Shortest / 2)
                continue;
            _taken[node.Id] = at;
            samples.Add((node.Id, Figures(report)));
        }
        if (samples.Count > 0)
            await history.StoreAsync(now, samples, cancellationToken);
    }

    /// <summary>What of a report is kept; figures that are not current are unknown ones.</summary>
    internal static NodeFigures Figures(NodeReport report) => new()
    {
        CpuPercent = report.Cpu is { HasPercent: true } cpu ? cpu.Percent : null,
        MemoryPercent = report.Memory is { TotalBytes: > 0 } ram ? 100.0 * (ram.TotalBytes - ram.AvailableBytes) / ram.TotalBytes : null,
        DiskTotalBytes = report.Disk is { TotalBytes: > 0 } ? report.Disk.TotalBytes : null,
        DiskFreeBytes = report.Disk is { TotalBytes: > 0 } ? report.Disk.FreeBytes : null,
        HfCacheBytes = report.Disk is { HasHfCacheBytes: true } ? report.Disk.HfCacheBytes : null,
        Gpus = [.. report.Gpus.Select(gpu => gpu.Stale.Length > 0 ? new GpuFigures(gpu.Index) : new GpuFigures(gpu.Index)
        {
            Utilization = gpu.HasUtilizationPercent ? gpu.UtilizationPercent : null,
            MemoryUsedMb = gpu.HasMemoryUsedBytes ? gpu.MemoryUsedBytes / Mib : null,
            MemoryTotalMb = gpu.HasMemoryTotalBytes ? gpu.MemoryTotalBytes / Mib : null,
            TemperatureCelsius = gpu.HasTemperatureCelsius ? gpu.TemperatureCelsius : null,
            PowerWatts = gpu.HasPowerWatts ? gpu.PowerWatts : null,
        })],
    };

    [LoggerMessage(2306, LogLevel.Error, "The figures of nodes could not be stored; their history has a gap until they can be.")]
    private partial void LogFailed(Exception exception);
}
