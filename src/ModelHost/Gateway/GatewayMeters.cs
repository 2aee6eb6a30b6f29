using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace ModelHost.Gateway;

/// <summary>What the gateway counts.</summary>
internal sealed class GatewayMeters
{
    /// <summary>Label of requests for a model that is not known, whose names could be anything.</summary>
    public const string NoModel = "_other";

    private readonly Histogram<double> _duration;

    public GatewayMeters(IMeterFactory meters) =>
        _duration = meters.Create(Observability.MetricsFeature.MeterName).CreateHistogram<double>("modelhost.gateway.request.duration", "s",
            "Time from a request to the end of its answer.",
            advice: new() { HistogramBucketBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600] });

    /// <summary>Counts a request that has been answered.</summary>
    public void Count(HttpContext context, string model, TimeSpan took) => _duration.Record(took.TotalSeconds, new TagList
    {
        { "model", model },
        { "route", (context.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText },
        { "status", context.RequestAborted.IsCancellationRequested && !context.Response.HasStarted ? 499 : context.Response.StatusCode },
    });
}
