using System.Globalization;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>The line that every engine logs each <c>VLLM_LOG_STATS_INTERVAL</c>, unless nothing happened in two periods.</summary>
internal sealed class ThroughputLog : IAsyncDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _loop;

    public ThroughputLog(ServerLog log, Engine engine, TimeSpan period, TimeProvider time) => _loop = RunAsync(log, engine, period, time);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _loop;
        _stop.Dispose();
    }

    private async Task RunAsync(ServerLog log, Engine engine, TimeSpan period, TimeProvider time)
    {
        using var timer = new PeriodicTimer(period, time);
        var seen = engine.Ranks.Select(rank => (Rank: rank, Prompts: 0L, Generated: 0L, Idle: true)).ToArray();
        try
        {
            while (await timer.WaitForNextTickAsync(_stop.Token))
                foreach (ref var one in seen.AsSpan())
                {
                    var (counts, gauges) = (one.Rank.Metrics.Read(), one.Rank.Scheduler.Shown);
                    var (prompts, generated) = (counts.PromptTokens - one.Prompts, counts.GenerationTokens - one.Generated);
                    var quiet = prompts == 0 && generated == 0 && gauges.Running == 0;
                    if (!quiet || !one.Idle)
                        log.Api("loggers.py:259", Line(one.Rank.Index, counts, gauges, prompts / period.TotalSeconds, generated / period.TotalSeconds));
                    // the first quiet period is still logged, with zeros
                    (one.Prompts, one.Generated, one.Idle) = (counts.PromptTokens, counts.GenerationTokens, quiet);
                }
        }
        catch (OperationCanceledException)
        {
            // the server is stopping
        }
    }

    private static string Line(int engine, EngineCounts counts, Gauges gauges, double prompts, double generated)
    {
        var queries = counts.PrefixCacheQueries;
        var hits = queries == 0 ? 0 : 100.0 * counts.PrefixCacheHits / queries;
        return string.Create(CultureInfo.InvariantCulture,
            $"Engine {engine:D3}: Avg prompt throughput: {prompts:F1} tokens/s, Avg generation throughput: {generated:F1} tokens/s, " +
            $"Running: {gauges.Running} reqs, Waiting: {gauges.Waiting} reqs, " +
            $"GPU KV cache usage: {100 * gauges.KvCacheUsage:F1}%, Prefix cache hit rate: {hits:F1}%");
    }
}
