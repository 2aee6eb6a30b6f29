using System.Diagnostics;
using System.Diagnostics.Metrics;
using Microsoft.EntityFrameworkCore;
using ModelHost.Access;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Monitor;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;
using OpenTelemetry;
using OpenTelemetry.Metrics;

namespace ModelHost.Observability;

/// <summary>The page that Prometheus scrapes.</summary>
internal static class MetricsFeature
{
    /// <summary>Name of the meter that everything of our own is counted by.</summary>
    public const string MeterName = "ModelHost";

    /// <summary>Adds collection.</summary>
    public static IServiceCollection AddModelHostMetrics(this IServiceCollection services) =>
        services.AddMetrics().AddSingleton<MetricsPage>().AddSingleton<StateGauges>();

    /// <summary>Maps <c>/metrics</c>.</summary>
    public static void MapModelHostMetrics(this IEndpointRouteBuilder routes)
    {
        routes.ServiceProvider.GetRequiredService<MetricsPage>(); // counts from the start on, not from the first scrape on
        routes.MapGet("/metrics", ScrapeAsync).WithName("GetMetrics").WithTags("Metrics").WithSummary("All metrics as Prometheus text.")
            .Produces<string>(StatusCodes.Status200OK, "text/plain")
            .ForScraping().DisableHttpMetrics();
    }

    private static async Task<IResult> ScrapeAsync(MetricsPage page, CancellationToken cancellationToken) =>
        TypedResults.Text(await page.CollectAsync(cancellationToken), "text/plain; version=0.0.4; charset=utf-8");
}

/// <summary>Collects on demand.</summary>
internal sealed class MetricsPage : IDisposable
{
    private readonly PrometheusText _text = new();
    private readonly BaseExportingMetricReader _reader;
    private readonly MeterProvider _provider;
    private readonly StateGauges _gauges;
    private readonly SemaphoreSlim _one = new(1);

    public MetricsPage(StateGauges gauges)
    {
        _gauges = gauges;
        _reader = new BaseExportingMetricReader(_text) { TemporalityPreference = MetricReaderTemporalityPreference.Cumulative };
        _provider = Sdk.CreateMeterProviderBuilder()
            .AddMeter(MetricsFeature.MeterName, "Microsoft.AspNetCore.Hosting", "Microsoft.AspNetCore.Server.Kestrel", "System.Runtime")
            // "_count" at the end of a name belongs to histograms
            .AddView("dotnet.assembly.count", "dotnet.assemblies")
            .AddView("dotnet.process.cpu.count", "dotnet.process.cpus")
            .AddView("dotnet.thread_pool.thread.count", "dotnet.thread_pool.threads")
            .AddView("dotnet.timer.count", "dotnet.timers")
            .AddView("process.thread.count", "process.threads")
            .AddReader(_reader)
            .Build();
    }

    /// <summary>The page as of now; one collection at a time.</summary>
    public async Task<string> CollectAsync(CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            await _gauges.RefreshAsync(cancellationToken);
            _reader.Collect();
            return _text.Page;
        }
        finally
        {
            _one.Release();
        }
    }

    public void Dispose()
    {
        _provider.Dispose();
        _reader.Dispose();
        _text.Dispose();
        _one.Dispose();
    }
}

/// <summary>Gauges of deployments, nodes, GPUs and this process, read when scraped.</summary>
internal sealed class StateGauges
{
    private readonly Database _database;
    private readonly NodeRegistry _nodes;
    private readonly TimeProvider _time;
    private Dictionary<DeploymentStatus, int> _deployments = [];

    public StateGauges(IMeterFactory meters, Database database, NodeRegistry nodes, TimeProvider time)
    {
        (_database, _nodes, _time) = (database, nodes, time);
        var meter = meters.Create(MetricsFeature.MeterName);
        meter.CreateObservableGauge("modelhost.deployments", Deployments, "{deployment}", "Deployments by status.");
        meter.CreateObservableGauge("modelhost.nodes", Nodes, "{node}", "Nodes by status.");
        meter.CreateObservableGauge("hw.gpu.memory.usage", () => Gpus(gpu => gpu.HasMemoryUsedBytes ? gpu.MemoryUsedBytes : null), "By", "GPU memory in use.");
        meter.CreateObservableGauge("hw.gpu.memory.limit", () => Gpus(gpu => gpu.HasMemoryTotalBytes ? gpu.MemoryTotalBytes : null), "By", "GPU memory in all.");
        meter.CreateObservableGauge("hw.gpu.utilization", () => Gpus(gpu => gpu.HasUtilizationPercent ? gpu.UtilizationPercent / 100.0 : null), "1", "Share of time in which the GPU was busy.");
        meter.CreateObservableGauge("modelhost.engine.memory", Engines, "By", "Memory of engines: weights, kv_cache and other as they told, rss of their processes.");
        meter.CreateObservableGauge("modelhost.backend.state", States, "1", "What gRPC backends say of themselves: 1 busy, 2 ready, -1 in error or silent.");
        meter.CreateObservableCounter("process.cpu.time", () => Process().TotalProcessorTime.TotalSeconds, "s", "CPU time of this process.");
        meter.CreateObservableGauge("process.memory.usage", () => Process().WorkingSet64, "By", "Physical memory of this process.");
        meter.CreateObservableGauge("process.thread.count", () => Process().Threads.Count, "{thread}", "Threads of this process.");
    }

    /// <summary>Reads what is not in memory.</summary>
    public async Task RefreshAsync(CancellationToken cancellationToken)
    {
        await using var db = await _database.OpenAsync(cancellationToken);
        _deployments = await db.Deployments.GroupBy(d => d.Status).Select(g => new { g.Key, Count = g.Count() })
            .ToDictionaryAsync(g => g.Key, g => g.Count, cancellationToken);
    }

    private IEnumerable<Measurement<int>> Deployments() => Enum.GetValues<DeploymentStatus>()
        .Select(status => new Measurement<int>(_deployments.GetValueOrDefault(status), new KeyValuePair<string, object?>("status", status.ToWire())));

    private IEnumerable<Measurement<int>> Nodes() => _nodes.All.GroupBy(node => NodeService.Status(node, _time.GetUtcNow()))
        .Select(group => new Measurement<int>(group.Count(), new KeyValuePair<string, object?>("status", group.Key)));

    private IEnumerable<Measurement<double>> Gpus(Func<Protocol.Gpu, double?> read)
    {
        foreach (var node in _nodes.All)
        {
            if (node.Report is not { } report)
                continue;
            // an old figure is no measurement
            foreach (var gpu in report.Gpus.Where(gpu => gpu.Stale.Length == 0))
            {
                if (read(gpu) is { } value)
                    yield return new Measurement<double>(value, new TagList { { "node", report.Hostname }, { "gpu", gpu.Index }, { "name", gpu.Name } });
            }
        }
    }

    private IEnumerable<Measurement<long>> Engines()
    {
        foreach (var engine in _nodes.All.SelectMany(node => node.Report?.Engines ?? []).Where(engine => engine.Phase is EnginePhase.Loading or EnginePhase.Ready)
            .DistinctBy(engine => engine.DeploymentUid))
        {
            if (LaunchSpec.FromJson(engine.LaunchSpec) is not { } spec)
                continue;
            Measurement<long> Of(string part, long bytes) => new(bytes, new TagList { { "model", spec.PublicName }, { "deployment", spec.DeploymentId }, { "part", part } });
            foreach (var (part, bytes) in engine.MemoryParts.Select(part => (part.Key, part.Value)).Concat(BackendReadings.Parts(engine.Backend)))
                yield return Of(part, bytes);
            if (engine.Processes is { } usage)
                yield return Of("rss", usage.RssBytes);
        }
    }

    private IEnumerable<Measurement<int>> States() => _nodes.All.SelectMany(node => node.Report?.Engines ?? [])
        .Where(engine => engine is { Phase: EnginePhase.Ready, Backend: not null }).DistinctBy(engine => engine.DeploymentUid)
        .Select(engine => (Spec: LaunchSpec.FromJson(engine.LaunchSpec), State: BackendReadings.State(engine.Backend, isBusy: false))).Where(one => one.Spec is not null)
        .Select(one => new Measurement<int>((int)one.State, new TagList { { "model", one.Spec!.PublicName }, { "deployment", one.Spec.DeploymentId } }));

    private static Process Process() => System.Diagnostics.Process.GetCurrentProcess();
}
