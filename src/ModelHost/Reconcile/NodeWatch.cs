using ModelHost.Agent.Reports;
using ModelHost.Agent.Service;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;

namespace ModelHost.Reconcile;

/// <summary>
/// Hears what a node says: one stream of updates, opened anew when it ends, falls silent or does not make sense. A pass is asked for where more is new than
/// figures. What was heard stays until something else is: silence is counted, and takes nothing away.
/// </summary>
internal sealed partial class NodeWatch(NodeHandle node, LiveSettings settings, TimeProvider time, Random random, ILogger logger)
{
    private static readonly TimeSpan FirstDeadline = TimeSpan.FromSeconds(10);
    // how late a sign may come on a stream that is open
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(250);

    // a stream that ends after this many has worked
    private const int Proven = 2;

    private TimeSpan Interval =>
        TimeSpan.FromSeconds(Math.Min(settings.Current.NodesSyncIntervalSeconds, settings.Current.DeploymentsSyncIntervalSeconds));

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        await Task.Yield();
        var failures = 0;
        while (!cancellationToken.IsCancellationRequested)
        {
            var heard = new Heard();
            try
            {
                await HearAsync(heard, cancellationToken);
                failures = 0;
                continue;
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                return;
            }
#pragma warning disable CA1031 // whatever the link throws means the same: nothing is heard
            catch (Exception e)
#pragma warning restore CA1031
            {
                // a planned restart of the agent ends a stream that worked, and is over before it is missed
                var isBlip = heard.Updates >= Proven && e is not TimeoutException;
                failures = isBlip ? 0 : failures + 1;
                if (!isBlip)
                    Miss(e.Message);
            }
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            await Task.WhenAny(node.AgainAsync(waiting.Token), Task.Delay(Pause(failures), time, waiting.Token));
            await waiting.CancelAsync();
        }
    }

    private void Miss(string reason)
    {
        var before = node.Failures;
        node.Silent(time.GetUtcNow(), reason);
        if (node.Failures > before)
            LogSilent(node.Id, node.Failures, reason);
        node.Wake();
    }

    // never longer than an interval: within that a node that is back is heard
    private TimeSpan Pause(int failures)
    {
        var pause = FirstPause * (1 << Math.Min(failures, 10));
        return (pause < Interval ? pause : Interval) * (1 - (0.2 * random.NextDouble()));
    }

    /// <summary>Hears a node until the interval is to be another.</summary>
    private async Task HearAsync(Heard heard, CancellationToken cancellationToken)
    {
        var interval = Interval;
        using var late = new CancellationTokenSource(FirstDeadline, time);
        using var over = CancellationTokenSource.CreateLinkedTokenSource(late.Token, cancellationToken);
        var adjusted = AdjustedAsync(interval, over);
        try
        {
            await foreach (var update in node.Link.WatchAsync(new WatchRequest { IntervalSeconds = interval.TotalSeconds }, over.Token))
            {
                late.CancelAfter(interval + Grace);
                node.Heard(heard.Take(update), time.GetUtcNow());
                if (heard.Updates == 1 || IsNews(update))
                    node.Wake();
                // a node that never stops telling is read no faster than this, and the transport holds it back
                await Task.Delay(Spacing, time, over.Token);
            }
            throw new IOException("the node ended its reports");
        }
        catch (OperationCanceledException e) when (late.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new TimeoutException($"no report within {(heard.Updates == 0 ? FirstDeadline : interval + Grace).TotalSeconds:0} s", e);
        }
        catch (OperationCanceledException) when (Interval != interval && !cancellationToken.IsCancellationRequested)
        {
            // it is asked anew, with the interval of now
        }
        finally
        {
            await over.CancelAsync();
            await adjusted;
        }
    }

    /// <summary>Cancels when the settings want another interval.</summary>
    private async Task AdjustedAsync(TimeSpan interval, CancellationTokenSource over)
    {
        while (!over.IsCancellationRequested)
        {
            var changed = settings.ChangedAsync(over.Token);
            if (Interval != interval)
                await over.CancelAsync();
            await changed.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private static bool IsNews(ReportUpdate update) => update.Report is not null || update.Head is not null
        || update.Gpus.Count + update.RemovedGpus.Count + update.Engines.Count + update.RemovedEngines.Count > 0;

    /// <summary>What a stream has told.</summary>
    private sealed class Heard
    {
        private ReportParts? _parts;
        private long _sequence;

        /// <summary>Number of updates.</summary>
        public int Updates { get; private set; }

        /// <summary>Takes the next one.</summary>
        /// <returns>The report as it is now.</returns>
        public NodeReport Take(ReportUpdate update)
        {
            if (update.Report is { } whole)
                _parts = new ReportParts(whole);
            else if (_parts is null || update.Sequence != _sequence + 1)
                throw new InvalidDataException(_parts is null ? "the node did not begin with a whole report" : $"update {_sequence + 1} of the node is missing");
            else
                _parts.Apply(update);
            var report = _parts.Whole();
            // each message is bounded; many of them may tell of ever more engines
            if (report.CalculateSize() > NodeMethods.MaxMessageBytes)
                throw new InvalidDataException("the node reports more than can be kept of it");
            _sequence = update.Sequence;
            Updates++;
            return report;
        }
    }

    [LoggerMessage(1203, LogLevel.Warning, "Node {NodeId} did not answer ({Failures} in a row): {Reason}")]
    private partial void LogSilent(int nodeId, int failures, string reason);
}
