using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>One engine: with data parallelism a server has several, each with its own batch, cache and numbers.</summary>
/// <param name="index">Its number, which is its label in <c>/metrics</c>.</param>
/// <param name="scheduler">Its batch and queue.</param>
/// <param name="metrics">What it counts.</param>
internal sealed class EngineRank(int index, Scheduler scheduler, EngineMetrics metrics)
{
    public static EngineRank Make(int index, ServerOptions options, MemoryPlan plan, TimeProvider time)
    {
        var metrics = new EngineMetrics(plan.MaxModelLength);
        return new(index, new Scheduler(options, plan, metrics, time), metrics);
    }

    public int Index { get; } = index;

    public Scheduler Scheduler { get; } = scheduler;

    public EngineMetrics Metrics { get; } = metrics;

    /// <summary>Sequences that were given to it and have not ended, be they with the scheduler or not yet.</summary>
    public int Assigned { get; set; }
}
