using System.Runtime.CompilerServices;
using Google.Protobuf;
using ModelHost.Agent.Reports;
using ModelHost.Agent.Service;
using ModelHost.Protocol;
using ModelHost.Rpc;

namespace ModelHost.Cluster;

/// <summary>A node on another machine, asked over gRPC. It does nothing that the node does not do; a call that is not answered in time fails.</summary>
/// <param name="client">Reaches the agent.</param>
/// <param name="engineUrl">Where the engine of a run is reached from here: the node tells where it listens on its own machine.</param>
internal sealed class RemoteNode(RpcClient client, Func<string, string> engineUrl) : INode, IDisposable
{
    private static readonly TimeSpan CallDeadline = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(50);

    public Task<StartReply> StartAsync(StartRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Start, request, cancellationToken);

    public Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Stop, request, cancellationToken);

    public Task<UpdateReply> UpdateAsync(UpdateRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Update, request, cancellationToken);

    public Task<EnvironmentReply> EnvironmentAsync(EnvironmentRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.Environment, request, cancellationToken);

    public async Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken)
    {
        var report = await AskAsync(NodeMethods.Report, request, cancellationToken);
        Lead(report.Engines);
        return report;
    }

    public async IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using var updates = client.ServerStreamAsync(NodeMethods.Watch, request, null, cancellationToken).GetAsyncEnumerator(cancellationToken);
        while (true)
        {
            try
            {
                if (!await updates.MoveNextAsync())
                    yield break;
            }
            catch (RpcException e) when (e.Code == RpcCode.Unimplemented)
            {
                break; // an agent of the version before
            }
            Lead(updates.Current.Report?.Engines ?? updates.Current.Engines);
            yield return updates.Current;
        }
        await foreach (var update in PullAsync(ReportUpdates.Interval(request), cancellationToken))
            yield return update;
    }

    public Task<LogsReply> LogsAsync(LogsRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Logs, request, cancellationToken);

    public async IAsyncEnumerable<LogPiece> LogFileAsync(LogsRequest request, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await foreach (var piece in client.ServerStreamAsync(NodeMethods.LogFile, request, null, cancellationToken))
            yield return piece;
    }

    public Task<PortReply> CheckPortAsync(PortRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.CheckPort, request, cancellationToken);

    public Task<AccessReply> AccessAsync(AccessRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Access, request, cancellationToken);

    public Task<UsageReply> UsageAsync(UsageRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Usage, request, cancellationToken);

    public Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.Pull, request, cancellationToken);

    public Task<CancelPullReply> CancelPullAsync(CancelPullRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.CancelPull, request, cancellationToken);

    public Task<CommitPullReply> CommitPullAsync(CommitPullRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.CommitPull, request, cancellationToken);

    public Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.Artifacts, request, cancellationToken);

    public Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.DeleteArtifact, request, cancellationToken);

    public void Dispose() => client.Dispose();

    /// <summary>Asks for a whole report when something has changed, and as often as wanted.</summary>
    private async IAsyncEnumerable<ReportUpdate> PullAsync(TimeSpan interval, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        for (var sequence = 1L; ; sequence++)
        {
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            // listening before the report is read: a change in between is not missed
            var listening = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            var changed = ListenAsync(listening, waiting.Token);
            await listening.Task;
            yield return new ReportUpdate { Sequence = sequence, Report = await ReportAsync(new ReportRequest(), cancellationToken) };
            await Task.Delay(Spacing, TimeProvider.System, cancellationToken);
            await Task.WhenAny(changed, Task.Delay(interval, TimeProvider.System, waiting.Token));
            await waiting.CancelAsync();
            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    /// <summary>Completes when the node tells of a change, or its token is cancelled; never fails.</summary>
    private async Task ListenAsync(TaskCompletionSource listening, CancellationToken cancellationToken)
    {
        try
        {
            await foreach (var _ in client.ServerStreamAsync(NodeMethods.Changed, new ChangedRequest(), null, cancellationToken))
            {
                if (!listening.TrySetResult())
                    return;
            }
        }
        catch (Exception e) when (e is RpcException or OperationCanceledException)
        {
            // nobody tells of changes now: they are seen when the node is next asked
        }
        finally
        {
            listening.TrySetResult();
        }
        await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    // the node tells where the engine listens on its own machine
    private void Lead(IEnumerable<Engine> engines)
    {
        foreach (var engine in engines.Where(engine => engine.EngineUrl.Length > 0))
            engine.EngineUrl = engineUrl(engine.RunId);
    }

    private async Task<TResponse> AskAsync<TRequest, TResponse>(RpcMethod<TRequest, TResponse> method, TRequest request, CancellationToken cancellationToken)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        try
        {
            return await client.UnaryAsync(method, request, CallDeadline, cancellationToken);
        }
        catch (RpcException e) when (e.Code == RpcCode.InvalidArgument)
        {
            throw new ArgumentException(e.Detail, nameof(request), e);
        }
        catch (RpcException e) when (e.Code == RpcCode.FailedPrecondition)
        {
            throw new InvalidOperationException(e.Detail, e);
        }
    }
}
