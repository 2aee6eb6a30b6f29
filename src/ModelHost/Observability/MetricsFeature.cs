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
        meter.CreateObservableGauge("modelhost.direct.active_requests", () => Measure(OfDirect, ofReady: true), "{request}", "Requests under way that came by the public ports of deployments, as nodes reported last.");
        meter.CreateObservableGauge("modelhost.engine.requests", () => Measure(OfRequests), "{request}", "Requests in the batches and queues of engines, as they counted last.");
        meter.CreateObservableGauge("modelhost.engine.kv_cache.usage", () => Measure(OfKvCache), "1", "Share of the KV cache of engines in use.");
        meter.CreateObservableCounter("modelhost.engine.tokens", () => Measure(OfTokens), "{token}", "Tokens of prompts and answers that engines have counted since they began.");
        meter.CreateObservableCounter("modelhost.engine.requests.finished", () => Measure(OfFinished), "{request}", "Requests that engines have finished since they began.");
        meter.CreateObservableGauge("modelhost.engine.memory", () => Measure(OfMemory), "By", "Memory of engines: weights, kv_cache and other as they told, rss of their processes.");
        meter.CreateObservableGauge("modelhost.backend.state", () => Measure(OfState, ofReady: true), "1", "What gRPC backends say of themselves: 1 busy, 2 ready, -1 in error or silent.");
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

    /// <summary>What is measured of engines, under the names of their deployments.</summary>
    private IEnumerable<Measurement<T>> Measure<T>(Func<Engine, IEnumerable<(string? Label, string Value, T Measured)>> of, bool ofReady = false) where T : struct
    {
        foreach (var engine in _nodes.All.SelectMany(node => node.Report?.Engines ?? []).Where(engine => engine.Phase == EnginePhase.Ready || (engine.Phase == EnginePhase.Loading && !ofReady))
            .DistinctBy(engine => engine.DeploymentUid))
        {
            if (LaunchSpec.FromJson(engine.LaunchSpec) is not { } spec)
                continue;
            foreach (var (label, value, measured) in of(engine))
            {
                var tags = new TagList { { "model", spec.PublicName }, { "deployment", spec.DeploymentId } };
                if (label is not null)
                    tags.Add(label, value);
                yield return new Measurement<T>(measured, tags);
            }
        }
    }

    private static IEnumerable<(string?, string, int)> OfDirect(Engine engine) =>
        engine.HasDirectRequests ? [(null, "", engine.DirectRequests)] : [];

    private static IEnumerable<(string?, string, long)> OfMemory(Engine engine)
    {
        foreach (var (part, bytes) in engine.MemoryParts.Select(part => (part.Key, part.Value)).Concat(BackendReadings.Parts(engine.Backend)))
            yield return ("part", part, bytes);
        if (engine.Processes is { } usage)
            yield return ("part", "rss", usage.RssBytes);
    }

    // an old figure is no measurement; a counter that stands still is one
    private static IEnumerable<(string?, string, double)> OfRequests(Engine engine)
    {
        if (engine.Metrics is { Stale: "", HasRequestsRunning: true } running)
            yield return ("state", "running", running.RequestsRunning);
        if (engine.Metrics is { Stale: "", HasRequestsWaiting: true } waiting)
            yield return ("state", "waiting", waiting.RequestsWaiting);
    }

    private static IEnumerable<(string?, string, double)> OfKvCache(Engine engine) =>
        engine.Metrics is { Stale: "", HasKvCacheUsage: true } metrics ? [(null, "", metrics.KvCacheUsage)] : [];

    private static IEnumerable<(string?, string, double)> OfTokens(Engine engine) =>
        engine.Metrics is { } metrics ? [("kind", "prompt", metrics.PromptTokens), ("kind", "completion", metrics.GenerationTokens)] : [];

    private static IEnumerable<(string?, string, double)> OfFinished(Engine engine) =>
        engine.Metrics is { } metrics ? [(null, "", metrics.Requests)] : [];

    private static IEnumerable<(string?, string, int)> OfState(Engine engine) =>
        engine.Backend is { } backend ? [(null, "", (int)BackendReadings.State(backend, isBusy: false))] : [];

    private static Process Process() => System.Diagnostics.Process.GetCurrentProcess();
}
