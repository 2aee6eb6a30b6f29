using System.Runtime.CompilerServices;
using ModelHost.Protocol;

namespace ModelHost.Agent.Reports;

/// <summary>Makes <see cref="INode.WatchAsync"/> of a report that can be read at any time and a signal that it has changed.</summary>
public static class ReportUpdates
{
    /// <summary>The time between two updates where the request says none.</summary>
    public static readonly TimeSpan DefaultInterval = TimeSpan.FromSeconds(5);

    private const double LongestSeconds = 300;
    // a pull reports many times a second
    private static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(50);

    /// <summary>
    /// Tells what is new, never before the one who asks wants to hear more: nothing is kept for a slow reader but what it was told last, and what it
    /// hears next is the newest state.
    /// </summary>
    /// <param name="report">Reads the report.</param>
    /// <param name="changed">Completes when something has changed since it was called, or its token is cancelled; figures alone are no change.</param>
    /// <param name="request">How often, at least.</param>
    /// <param name="time">The clock.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public static async IAsyncEnumerable<ReportUpdate> ReadAsync(
        Func<NodeReport> report, Func<CancellationToken, Task> changed, WatchRequest request, TimeProvider time,
        [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(report);
        ArgumentNullException.ThrowIfNull(changed);
        var interval = Interval(request);
        ReportParts? told = null;
        for (var sequence = 1L; ; sequence++)
        {
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            // asked for before the report is read: a change in between is not missed
            var change = changed(waiting.Token);
            var read = report();
            var now = new ReportParts(read);
            var update = told is null ? new ReportUpdate { Report = read } : now.Since(told);
            (update.Sequence, told) = (sequence, now);
            yield return update;
            await Task.Delay(Spacing, time, cancellationToken);
            await Task.WhenAny(change, Task.Delay(interval, time, waiting.Token));
            await waiting.CancelAsync();
            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    /// <summary>The longest time between two updates that a request asks for.</summary>
    public static TimeSpan Interval(WatchRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        return request.IntervalSeconds is >= 1 and <= LongestSeconds ? TimeSpan.FromSeconds(request.IntervalSeconds) : DefaultInterval;
    }
}
