using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace ModelHost.Agent.Proxy;

/// <summary>What is counted of requests to public ports. Nothing of what a client sent is in its labels.</summary>
internal sealed class DirectMeters(IMeterFactory meters)
{
    private readonly Histogram<double> _duration = meters.Create("ModelHost").CreateHistogram<double>("modelhost.direct.request.duration", "s",
        "Time from a request to a deployment's public port to the end of its answer.",
        advice: new() { HistogramBucketBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600] });

    /// <summary>Counts a request that has been answered.</summary>
    /// <param name="model">The public name of the deployment.</param>
    /// <param name="route">The path, of those that there are.</param>
    /// <param name="status">The status; 499: the client left before there was one.</param>
    /// <param name="took">How long it took.</param>
    public void Count(string model, string route, int status, TimeSpan took) =>
        _duration.Record(took.TotalSeconds, new TagList { { "model", model }, { "route", route }, { "status", status } });
}
