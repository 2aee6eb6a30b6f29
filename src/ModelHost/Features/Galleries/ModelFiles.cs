using System.Collections.Concurrent;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Core.Galleries;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Galleries;

/// <summary>Has nodes get the files of a model. Each holds what it has got until all have all of it: then they put it in its place, or none does.</summary>
internal sealed class ModelFiles(NodePulls pulls, NodeRegistry nodes, NodeService nodeList, IOptions<GalleryOptions> options, TimeProvider time)
{
    private const double Downloaded = 90;

    // a node drops what nobody asks for: so it is asked again long before that
    private static readonly TimeSpan Renewal = TimeSpan.FromMinutes(10);

    /// <summary>Waits until every node has all of it, and has just said so.</summary>
    /// <param name="job">The job.</param>
    /// <param name="model">The model.</param>
    /// <param name="targets">The nodes.</param>
    /// <param name="from">How far the job is, in percent.</param>
    /// <param name="cancellationToken">Gives up here; the nodes go on until they are told (<see cref="GiveUpAsync"/>).</param>
    /// <returns>Why one of them has not: then all have been told to give up.</returns>
    public async Task<Failure?> StageAsync(JobContext job, ComposedModel model, int[] targets, double from, CancellationToken cancellationToken)
    {
        var hosts = await nodeList.NamesAsync(cancellationToken);
        var (shares, shown, left) = (new ConcurrentDictionary<int, double>(), new ConcurrentDictionary<int, JobNode>(), targets.Length);
        var all = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        (int Node, Failure Why)? failed = null;

        void Show(int node, JobNode next) => job.Node(shown[node] = next);

        void Progress(int node, Pull? pull)
        {
            if (pull is not null)
            {
                shares[node] = NodePulls.Share(pull);
                Tell(job, pull, from + (shares.Values.Sum() / targets.Length * (Downloaded - from)));
            }
            Show(node, NodePulls.Show(shown[node], pull));
        }

        async Task StageOneAsync(int node)
        {
            Show(node, new JobNode { NodeId = $"{node}", NodeName = Name(hosts, node), Status = "queued" });
            for (var isFirst = true; ; isFirst = false)
            {
                // when all have it, each is asked once more: that of the quickest may be hours ago
                var isLast = targets.Length == 1 || all.Task.IsCompleted;
                var outcome = await pulls.PullAsync(node, Request(job, model, node), pull => Progress(node, pull), () => false, enough.Token);
                if (outcome.Failure is { } failure)
                {
                    lock (enough)
                        failed ??= (node, failure);
                    Show(node, shown[node] with { Status = "error", Error = failure.Detail, Phase = null });
                    await enough.CancelAsync();
                    return;
                }
                if (isFirst && Interlocked.Decrement(ref left) == 0)
                    all.TrySetResult();
                if (isLast)
                    return;
                await Task.WhenAny(all.Task, Task.Delay(Renewal, time, enough.Token));
                enough.Token.ThrowIfCancellationRequested();
            }
        }

        try
        {
            await Task.WhenAll(targets.Select(StageOneAsync));
            if (failed is null)
                return null;
        }
        catch (OperationCanceledException) when (failed is not null && !cancellationToken.IsCancellationRequested)
        {
            // the others are not waited for
        }
        var first = failed.Value;
        await GiveUpAsync(job, model, targets, keepPartial: true);
        foreach (var node in targets.Where(node => shown[node].Status != "error"))
            Show(node, shown[node] with { Status = "error", Error = $"given up, because it failed on {Name(hosts, first.Node)}", Phase = null });
        return Named(hosts, first.Node, first.Why);
    }

    /// <summary>Has the nodes put it in its place, again and again within <see cref="GalleryOptions.CommitPatience"/>.</summary>
    /// <returns>The nodes that have; and why the others have not.</returns>
    public async Task<(int[] Placed, Failure? Failure)> CommitAsync(JobContext job, ComposedModel model, int[] targets, CancellationToken cancellationToken)
    {
        job.Phase(JobPhases.Committing, $"processing model: {job.Element}");
        var hosts = await nodeList.NamesAsync(cancellationToken);
        var outcomes = await Task.WhenAll(targets.Select(async node =>
        {
            var shown = new JobNode { NodeId = $"{node}", NodeName = Name(hosts, node), Status = "downloading", Percentage = 100, Phase = JobPhases.Committing };
            var outcome = await pulls.CommitAsync(node, Request(job, model, node), pull => job.Node(shown with { Error = pull is null ? JobNode.Silent : null }), options.Value.CommitPatience, cancellationToken);
            job.Node(outcome.Failure is { } failure ? shown with { Status = "error", Error = failure.Detail, Phase = null } : shown with { Status = "success", Phase = null });
            return (Node: node, outcome.Failure);
        }));
        var failed = outcomes.Where(outcome => outcome.Failure is not null).ToArray();
        var placed = outcomes.Where(outcome => outcome.Failure is null).Select(outcome => outcome.Node).ToArray();
        if (failed.Length == 0)
            return (placed, null);
        await GiveUpAsync(job, model, [.. failed.Select(outcome => outcome.Node)], keepPartial: true);
        var why = string.Join("; ", failed.Select(outcome => Named(hosts, outcome.Node, outcome.Failure!).Detail));
        return (placed, failed[0].Failure! with
        {
            Detail = placed.Length == 0 ? why
                : $"{model.Name} is installed on {string.Join(", ", placed.Select(node => Name(hosts, node)))}, and could not be put in its place on the others, which keep what they had; have it installed there again. {why}",
        });
    }

    /// <summary>Tells nodes to give up what they hold, or still download.</summary>
    public Task GiveUpAsync(JobContext job, ComposedModel model, int[] targets, bool keepPartial) =>
        Task.WhenAll(targets.Select(node => pulls.CancelAsync(node, Request(job, model, node).PullId, keepPartial)));

    private PullRequest Request(JobContext job, ComposedModel model, int node) => NodePulls.WithId(job.Uid, node, new PullRequest
    {
        Kind = ArtifactKind.Model,
        Name = GalleryNames.ToFolder(model.Name),
        AllowPickle = options.Value.AllowPickle,
        Hold = true,
        Files = { model.Files.Select(file => new PullFile { Uri = file.Uri, Sha256 = file.Sha256, Path = file.Filename }) },
    });

    private static string Name(IReadOnlyDictionary<int, string> hosts, int node) => hosts.GetValueOrDefault(node, $"{node}");

    private Failure Named(IReadOnlyDictionary<int, string> hosts, int node, Failure why) =>
        nodes.All.Skip(1).Any() ? why with { Detail = $"{Name(hosts, node)}: {why.Detail}" } : why;

    private static void Tell(JobContext job, Pull pull, double percent)
    {
        if (pull.Phase == PullPhase.Downloading)
            job.File(pull.Detail, pull.DoneBytes, pull.HasTotalBytes ? pull.TotalBytes : 0, percent);
        else if (pull.Phase is PullPhase.Resolving or PullPhase.Unpacking or PullPhase.Installing)
            job.Phase(pull.Phase == PullPhase.Resolving ? JobPhases.Resolving : JobPhases.Committing, $"processing model: {job.Element}");
    }
}
