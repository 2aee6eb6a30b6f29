using System.Security.Cryptography;
using System.Text;
using Google.Protobuf;
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

    /// <summary>How long a node may be silent before it is waited for no more: one that is gone must not keep other jobs waiting for ever.</summary>
    public static TimeSpan Silence { get; } = TimeSpan.FromMinutes(15);

    /// <summary>Gives a request the id that a job has for it: the same after a restart, so that the node goes on with it, unless by then it is to be something else.</summary>
    /// <param name="job">The job, or a part of it.</param>
    /// <param name="nodeId">The node.</param>
    /// <param name="request">What, without an id.</param>
    public static PullRequest WithId(string job, int nodeId, PullRequest request)
    {
        request.PullId = "";
        request.PullId = new Guid(SHA256.HashData([.. Encoding.UTF8.GetBytes($"{job}:{nodeId}:"), .. request.ToByteArray()]).AsSpan(0, 16)).ToString();
        return request;
    }

    /// <summary>The part of a pull that is there, 0 to 1.</summary>
    public static double Share(Pull pull) => pull.Phase is PullPhase.Staged or PullPhase.Done ? 1
        : pull is { HasTotalBytes: true, TotalBytes: > 0 } ? Math.Min((double)pull.DoneBytes / pull.TotalBytes, 1) : 0;

    /// <summary>How a job shows a node that is at a pull.</summary>
    /// <param name="node">How it was shown before.</param>
    /// <param name="pull">The pull as the node tells it; null: it does not answer.</param>
    public static JobNode Show(JobNode node, Pull? pull)
    {
        if (pull is null)
            return node with { Error = JobNode.Silent };
        var phase = pull.Phase switch
        {
            PullPhase.Resolving => JobPhases.Resolving,
            PullPhase.Downloading => JobPhases.Downloading,
            PullPhase.Unpacking or PullPhase.Installing or PullPhase.Staged or PullPhase.Done => JobPhases.Committing,
            _ => JobPhases.Queued,
        };
        return node with
        {
            Status = phase == JobPhases.Queued ? "queued" : "downloading",
            FileName = pull.Detail.Length > 0 ? pull.Detail : null,
            Current = JobStatus.Size(pull.DoneBytes),
            Total = pull is { HasTotalBytes: true, TotalBytes: > 0 } ? JobStatus.Size(pull.TotalBytes) : null,
            Percentage = Math.Round(Share(pull) * 100, 2),
            Phase = phase,
            Error = null,
        };
    }

    /// <summary>Pulls. The same id again goes on with what is under way. One that is to be held has ended well when it is whole.</summary>
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
            return await FollowAsync(nodeId, request, progress, _ => true, Silence, commits: false, cancellationToken);
        }
        catch (OperationCanceledException) when (isCancelled())
        {
            await CancelAsync(nodeId, request.PullId, keepPartial: false);
            throw;
        }
    }

    /// <summary>Has a pull that is held take its place. A node that has lost it gets it anew.</summary>
    /// <param name="nodeId">The node.</param>
    /// <param name="request">What was asked for.</param>
    /// <param name="progress">Hears how far it is; null: the node is not reached.</param>
    /// <param name="patience">How long it may not move.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The pull as it ended well, or why it did not.</returns>
    public async Task<Result<Pull>> CommitAsync(int nodeId, PullRequest request, Action<Pull?> progress, TimeSpan patience, CancellationToken cancellationToken)
    {
        (PullPhase Phase, long DoneBytes) last = default;
        return await FollowAsync(nodeId, request, progress, pull =>
        {
            var isMoving = (pull.Phase, pull.DoneBytes) != last;
            last = (pull.Phase, pull.DoneBytes);
            return isMoving;
        }, patience, commits: true, cancellationToken);
    }

    /// <summary>Gives a pull up on its node, as far as that can be told.</summary>
    public async Task CancelAsync(int nodeId, string pullId, bool keepPartial)
    {
        try
        {
            using var patience = new CancellationTokenSource(CancelPatience, time);
            if (nodes.Find(nodeId) is { } node)
                await node.Link.CancelPullAsync(new CancelPullRequest { PullId = pullId, KeepPartial = keepPartial }, patience.Token);
        }
#pragma warning disable CA1031 // what it has downloaded is removed by the node itself after a while
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogNotAsked(nodeId, e.Message);
        }
    }

    /// <summary>Follows a pull, and gives up when there has been no sign of life for as long as the patience lasts.</summary>
    private async Task<Result<Pull>> FollowAsync(
        int nodeId, PullRequest request, Action<Pull?> progress, Func<Pull, bool> isSign, TimeSpan patience, bool commits, CancellationToken cancellationToken)
    {
        using var silence = new CancellationTokenSource(patience, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(silence.Token, cancellationToken);
        try
        {
            return await FollowAsync(nodeId, request, pull =>
            {
                progress(pull);
                if (pull is not null && isSign(pull))
                    silence.CancelAfter(patience);
            }, commits, either.Token);
        }
        catch (OperationCanceledException) when (silence.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            return new Failure(FailureKind.Unavailable, "node.unreachable", commits ? $"the node has not been heard for {patience:g}, or does not do it" : $"the node has not answered for {patience.TotalMinutes:0} minutes; what it has begun it may still finish");
        }
    }

    private async Task<Result<Pull>> FollowAsync(int nodeId, PullRequest request, Action<Pull?> progress, bool commits, CancellationToken cancellationToken)
    {
        var asked = commits ? nodes.Find(nodeId)?.ReportedAt : null;
        DateTimeOffset? told = null;
        var isAskedAnew = false;
        while (true)
        {
            if (nodes.Find(nodeId) is not { } node)
                progress(null);
            else if (asked is null)
            {
                if (await AskAsync(node, request, commits, cancellationToken) is { } failure)
                    return failure;
                asked = node.ReportedAt ?? DateTimeOffset.MinValue;
            }
            else if (node.Report?.Pulls.FirstOrDefault(pull => pull.PullId == request.PullId) is { } pull)
            {
                // what one said that has fallen silent since is no sign of life
                progress(node.Failures > 0 ? null : pull);
                switch (pull.Phase)
                {
                    case PullPhase.Done:
                    case PullPhase.Staged when !commits:
                        return pull;
                    // what it said last may be older than the word it was given
                    case PullPhase.Staged when told is null || node.ReportedAt > told + Retry:
                        await TellAsync(node, request.PullId, cancellationToken);
                        told = node.ReportedAt;
                        break;
                    // while nobody was there to ask for it: what it has on its disk it does not download again
                    case PullPhase.Failed when pull.ErrorCode == PullErrors.HoldExpired && (!isAskedAnew || node.ReportedAt <= asked + Retry):
                        (asked, isAskedAnew) = (isAskedAnew ? asked : null, true);
                        break;
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
                progress(node.Report is null || node.Failures > 0 ? null : new Pull { Phase = PullPhase.Queued });
            await Task.Delay(Poll, time, cancellationToken);
        }
    }

    private async Task<Failure?> AskAsync(NodeHandle node, PullRequest request, bool commits, CancellationToken cancellationToken)
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
            catch (InvalidOperationException e) when (!commits)
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

    private async Task TellAsync(NodeHandle node, string pullId, CancellationToken cancellationToken)
    {
        try
        {
            await node.Link.CommitPullAsync(new CommitPullRequest { PullId = pullId }, cancellationToken);
            node.Wake();
        }
#pragma warning disable CA1031 // its report says what has become of it; as long as that is nothing, it is told again
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            LogNotAsked(node.Id, e.Message);
        }
    }

    [LoggerMessage(3031, LogLevel.Warning, "Node {NodeId} could not be asked about a download: {Reason}")]
    private partial void LogNotAsked(int nodeId, string reason);
}
