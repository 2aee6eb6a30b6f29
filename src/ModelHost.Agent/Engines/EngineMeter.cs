using ModelHost.Agent.Runtimes;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Engines;

/// <summary>Reads the counters of one engine, one reading after the other, and makes of them what stands in the report.</summary>
internal sealed class EngineMeter(EngineProbe probe, BackendRecipe recipe, EngineInstance instance, TimeProvider time)
{
    private readonly EngineRateMeter _rates = new();
    private readonly long _began = time.GetTimestamp();

    /// <summary>Reads once.</summary>
    /// <param name="before">What stands in the report.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>What is to stand there: of an engine that does not tell, the same, with the reason why it is old.</returns>
    public async Task<EngineMetrics?> NextAsync(EngineMetrics? before, CancellationToken cancellationToken)
    {
        var (counters, fault) = await probe.CountersAsync(recipe, instance.EnginePort, instance.EngineKey, cancellationToken);
        if (counters is not null)
            return Of(counters, _rates.Next(counters, time.GetElapsedTime(_began)));
        if (before is null || fault.Length == 0)
            return before;
        var old = before.Clone();
        old.Stale = fault;
        return old;
    }

    /// <summary>Whether requests were under way at the engine.</summary>
    public static bool IsBusy(EngineMetrics? metrics) => metrics is not null && metrics.RequestsRunning + metrics.RequestsWaiting > 0;

    private EngineMetrics Of(EngineCounters counters, EngineRates rates)
    {
        var metrics = new EngineMetrics
        {
            PromptTokens = counters.PromptTokens ?? 0,
            GenerationTokens = counters.GenerationTokens ?? 0,
            Requests = counters.Requests ?? 0,
            ReadAt = time.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0,
        };
        if (counters.RequestsRunning is { } running)
            metrics.RequestsRunning = running;
        if (counters.RequestsWaiting is { } waiting)
            metrics.RequestsWaiting = waiting;
        if (counters.KvCacheUsage is { } usage)
            metrics.KvCacheUsage = usage;
        if (rates.PromptTps is { } promptTps)
            metrics.PromptTps = promptTps;
        if (rates.GenerationTps is { } generationTps)
            metrics.GenerationTps = generationTps;
        if (rates.PromptThroughput is { } promptThroughput)
            metrics.PromptThroughput = promptThroughput;
        if (rates.GenerationThroughput is { } generationThroughput)
            metrics.GenerationThroughput = generationThroughput;
        return metrics;
    }
}
