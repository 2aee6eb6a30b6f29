using System.Runtime.CompilerServices;
using Google.Protobuf;
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

    // of the latest call of ChangedAsync: set when the node listens, or will not
    private volatile Task _listening = Task.CompletedTask;

    public Task<StartReply> StartAsync(StartRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Start, request, cancellationToken);

    public Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Stop, request, cancellationToken);

    public Task<UpdateReply> UpdateAsync(UpdateRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Update, request, cancellationToken);

    public Task<EnvironmentReply> EnvironmentAsync(EnvironmentRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.Environment, request, cancellationToken);

    public async Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken)
    {
        // whoever asked for changes first must not miss one between the two
        await _listening.WaitAsync(cancellationToken);
        var report = await AskAsync(NodeMethods.Report, request, cancellationToken);
        foreach (var engine in report.Engines.Where(engine => engine.EngineUrl.Length > 0))
            engine.EngineUrl = engineUrl(engine.RunId);
        return report;
    }

    public Task<LogsReply> LogsAsync(LogsRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.Logs, request, cancellationToken);

    public async IAsyncEnumerable<LogPiece> LogFileAsync(LogsRequest request, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await foreach (var piece in client.ServerStreamAsync(NodeMethods.LogFile, request, null, cancellationToken))
            yield return piece;
    }

    public Task<PortReply> CheckPortAsync(PortRequest request, CancellationToken cancellationToken) => AskAsync(NodeMethods.CheckPort, request, cancellationToken);

    public Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.Pull, request, cancellationToken);

    public Task<CancelPullReply> CancelPullAsync(CancelPullRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.CancelPull, request, cancellationToken);

    public Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.Artifacts, request, cancellationToken);

    public Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken) =>
        AskAsync(NodeMethods.DeleteArtifact, request, cancellationToken);

    public Task ChangedAsync(CancellationToken cancellationToken)
    {
        var listening = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _listening = listening.Task;
        return ListenAsync(listening, cancellationToken);
    }

    public void Dispose() => client.Dispose();

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
            // nobody tells of changes now: they are seen when the node is next looked at
        }
        finally
        {
            listening.TrySetResult();
        }
        await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
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
