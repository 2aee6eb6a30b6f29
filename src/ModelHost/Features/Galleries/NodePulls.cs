using ModelHost.Core;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Galleries;

/// <summary>Has nodes pull things, and follows them until they have, whatever happens to the link meanwhile.</summary>
internal sealed partial class NodePulls(NodeRegistry nodes, TimeProvider time, ILogger<NodePulls> logger)
{
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan CancelPatience = TimeSpan.FromSeconds(10);

    /// <summary>Pulls. The same id again goes on with what is under way.</summary>
    /// <param name="nodeId">The node.</param>
    /// <param name="request">What.</param>
    /// <param name="progress">Hears how far it is; null: the node is not reached.</param>
    /// <param name="isCancelled">Whether the pull is to be given up on the node too when this call is.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The pull as it ended well, or why it did not.</returns>
    public async Task<Result<Pull>> PullAsync(int nodeId, PullRequest request, Action<Pull?> progress, Func<bool> isCancelled, CancellationToken cancellationToken)
    {
        try
        {
            return await FollowAsync(nodeId, request, progress, cancellationToken);
        }
        catch (OperationCanceledException) when (isCancelled())
        {
            await CancelAsync(nodeId, request.PullId);
            throw;
        }
    }

    private async Task<Result<Pull>> FollowAsync(int nodeId, PullRequest request, Action<Pull?> progress, CancellationToken cancellationToken)
    {
        DateTimeOffset? asked = null;
        while (true)
        {
            if (nodes.Find(nodeId) is not { } node)
                progress(null);
            else if (asked is null)
            {
                if (await AskAsync(node, request, cancellationToken) is { } failure)
                    return failure;
                asked = node.ReportedAt ?? DateTimeOffset.MinValue;
            }
            else if (node.Report?.Pulls.FirstOrDefault(pull => pull.PullId == request.PullId) is { } pull)
            {
                progress(pull);
                switch (pull.Phase)
                {
                    case PullPhase.Done:
                        return pull;
                    case PullPhase.Failed:
                        return new Failure(FailureKind.Conflict, $"pull.{pull.ErrorCode}", pull.Error);
                    case PullPhase.Cancelled:
                        return new Failure(FailureKind.Conflict, "pull.cancelled", "the download was cancelled on the node");
                    default:
                        break;
                }
            }
            // it has told everything since, and does not know of it: it is another one, or lost its data
            else if (node.Report is not null && node.ReportedAt > asked + Retry)
                asked = null;
            else
                progress(node.Report is null ? null : new Pull { Phase = PullPhase.Queued });
            await Task.Delay(Poll, time, cancellationToken);
        }
    }

    private async Task<Failure?> AskAsync(NodeHandle node, PullRequest request, CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                await node.Link.PullAsync(request, cancellationToken);
                node.Wake();
                return null;
            }
            catch (ArgumentException e)
            {
                return Failure.Invalid("files", e.Message.Split(" (Parameter", 2)[0]);
            }
            catch (InvalidOperationException e)
            {
                return new Failure(FailureKind.Conflict, "pull.refused", e.Message);
            }
#pragma warning disable CA1031 // the node could not be asked: it is asked again as long as the job is wanted
            catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
            {
                LogNotAsked(node.Id, e.Message);
            }
            await Task.Delay(Retry, time, cancellationToken);
        }
    }

    private async Task CancelAsync(int nodeId, string pullId)
    {
        try
        {
            using var patience = new CancellationTokenSource(CancelPatience, time);
            if (nodes.Find(nodeId) is { } node)
                await node.Link.CancelPullAsync(new CancelPullRequest { PullId = pullId }, patience.Token);
        }
#pragma warning disable CA1031 // what it has downloaded is removed by the node itself after a while
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogNotAsked(nodeId, e.Message);
        }
    }

    [LoggerMessage(3031, LogLevel.Warning, "Node {NodeId} could not be asked about a download: {Reason}")]
    private partial void LogNotAsked(int nodeId, string reason);
}
