using System.Globalization;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>The line that the engine logs every ten seconds, unless nothing happened in two periods.</summary>
internal sealed class ThroughputLog : IAsyncDisposable
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(10);

    private readonly CancellationTokenSource _stop = new();
    private readonly Task _loop;

    public ThroughputLog(ServerLog log, Engine engine, TimeProvider time) => _loop = RunAsync(log, engine, time);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _loop;
        _stop.Dispose();
    }

    private async Task RunAsync(ServerLog log, Engine engine, TimeProvider time)
    {
        using var timer = new PeriodicTimer(Period, time);
        var (prompts, generated, idle) = (0L, 0L, true);
        try
        {
            while (await timer.WaitForNextTickAsync(_stop.Token))
            {
                var counts = engine.Ranks[0].Metrics.Read();
                var (morePrompts, moreGenerated) = (counts.PromptTokens - prompts, counts.GenerationTokens - generated);
                (prompts, generated) = (prompts + morePrompts, generated + moreGenerated);
                var quiet = morePrompts == 0 && moreGenerated == 0 && engine.Ranks[0].Scheduler.Running == 0;
                if (!quiet || !idle)
                    log.Api("loggers.py:259", Line(engine, counts, morePrompts, moreGenerated));
                // the first quiet period is still logged, with zeros
                idle = quiet;
            }
        }
        catch (OperationCanceledException)
        {
            // the server is stopping
        }
    }

    private static string Line(Engine engine, EngineCounts counts, long prompts, long generated)
    {
        var gauges = engine.Ranks[0].Scheduler.Shown;
        var queries = counts.PrefixCacheQueries;
        var hits = queries == 0 ? 0 : 100.0 * counts.PrefixCacheHits / queries;
        return string.Create(CultureInfo.InvariantCulture,
            $"Engine 000: Avg prompt throughput: {prompts / Period.TotalSeconds:F1} tokens/s, Avg generation throughput: " +
            $"{generated / Period.TotalSeconds:F1} tokens/s, Running: {gauges.Running} reqs, Waiting: {gauges.Waiting} reqs, " +
            $"GPU KV cache usage: {100 * gauges.KvCacheUsage:F1}%, Prefix cache hit rate: {hits:F1}%");
    }
}
