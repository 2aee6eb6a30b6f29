using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Metrics;

internal enum MetricKind
{
    Gauge,
    Counter,
    Histogram,
}

/// <summary>One value of a family, with a label of its own or without.</summary>
internal readonly record struct Sample(double Value, string? Label = null, string? LabelValue = null);

/// <summary>What an engine shows at one moment.</summary>
/// <param name="Options">How the server was started.</param>
/// <param name="Rank">The engine.</param>
/// <param name="Gauges">What it last told of its batch and queue.</param>
/// <param name="Counts">What it has counted.</param>
/// <param name="SleepLevel">The level of the sleep it is in, as its gauge has it; null when that says awake.</param>
internal sealed record EngineView(ServerOptions Options, Requests.EngineRank Rank, Requests.Gauges Gauges, EngineCounts Counts, int? SleepLevel);

/// <summary>Series of one name, once for every engine.</summary>
internal sealed record MetricFamily(string Name, MetricKind Kind, string Help)
{
    /// <summary>The releases that have it.</summary>
    public Lifespan Lifespan { get; init; } = Lifespan.Always;

    /// <summary>The releases that show it only with <c>--show-hidden-metrics-for-version</c>, given the release before.</summary>
    public Lifespan? Hidden { get; init; }

    /// <summary>Whether a server with these options has it.</summary>
    public Func<ServerOptions, bool> When { get; init; } = static _ => true;

    /// <summary>The values of a gauge or counter.</summary>
    public Func<EngineView, IEnumerable<Sample>> Read { get; init; } = static _ => [];

    /// <summary>What a histogram shows.</summary>
    public Observed Observed { get; init; }

    public bool IsShown(ServerOptions options) => options.Release.Has(Lifespan) && When(options)
        && (Hidden is null || !options.Release.Has(Hidden) || options.Flags.Text("show_hidden_metrics_for_version") == options.Release.Previous);
}
