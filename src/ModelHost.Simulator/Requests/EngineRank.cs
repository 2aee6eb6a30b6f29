using ModelHost.Simulator.Metrics;

namespace ModelHost.Simulator.Requests;

/// <summary>One engine: with data parallelism a server has several, each with its own batch, cache and numbers.</summary>
/// <param name="index">Its number, which is its label in <c>/metrics</c>.</param>
/// <param name="scheduler">Its batch and queue.</param>
/// <param name="metrics">What it counts.</param>
internal sealed class EngineRank(int index, Scheduler scheduler, EngineMetrics metrics) : IDisposable
{
    public int Index { get; } = index;

    public Scheduler Scheduler { get; } = scheduler;

    public EngineMetrics Metrics { get; } = metrics;

    public int Running => Scheduler.Running;

    public int Waiting => Scheduler.Waiting;

    public double KvCacheUsage => Scheduler.KvCacheUsage;

    public void Dispose() => Scheduler.Dispose();
}
