using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>Ends runs that nothing stored names any more, so that nobody would look after them.</summary>
internal sealed partial class RunEnds(TimeProvider time, ILogger<RunEnds> logger)
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(10);

    /// <summary>Asks the node to end them. What led here is stored and stays so, whether the node hears of it or not.</summary>
    public async Task EndAsync(NodeHandle node, IEnumerable<string> runs)
    {
        using var deadline = new CancellationTokenSource(Deadline, time);
        foreach (var run in runs)
        {
            try
            {
                await node.Link.StopAsync(new StopRequest { RunId = run }, deadline.Token);
            }
#pragma warning disable CA1031 // whatever the link throws means the same: it may run on
            catch (Exception e)
#pragma warning restore CA1031
            {
                LogLeft(e, run, node.Id);
            }
        }
    }

    [LoggerMessage(1007, LogLevel.Warning, "Run {RunId} on node {NodeId} could not be ended, and no deployment names it any more.")]
    private partial void LogLeft(Exception exception, string runId, int nodeId);
}
