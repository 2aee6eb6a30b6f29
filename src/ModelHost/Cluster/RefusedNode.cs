using ModelHost.Protocol;

namespace ModelHost.Cluster;

/// <summary>A node that is there and is not spoken to, for a reason: like one that does not answer, it keeps what it has.</summary>
internal sealed class RefusedNode(string reason) : INode
{
    public Task<StartReply> StartAsync(StartRequest request, CancellationToken cancellationToken) => RefuseAsync<StartReply>();

    public Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken) => RefuseAsync<StopReply>();

    public Task<UpdateReply> UpdateAsync(UpdateRequest request, CancellationToken cancellationToken) => RefuseAsync<UpdateReply>();

    public Task<EnvironmentReply> EnvironmentAsync(EnvironmentRequest request, CancellationToken cancellationToken) => RefuseAsync<EnvironmentReply>();

    public Task<PortReply> CheckPortAsync(PortRequest request, CancellationToken cancellationToken) => RefuseAsync<PortReply>();

    public Task<AccessReply> AccessAsync(AccessRequest request, CancellationToken cancellationToken) => RefuseAsync<AccessReply>();

    public Task<UsageReply> UsageAsync(UsageRequest request, CancellationToken cancellationToken) => RefuseAsync<UsageReply>();

    public Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken) => RefuseAsync<NodeReport>();

    public Task<LogsReply> LogsAsync(LogsRequest request, CancellationToken cancellationToken) => RefuseAsync<LogsReply>();

    public Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken) => RefuseAsync<PullReply>();

    public Task<CancelPullReply> CancelPullAsync(CancelPullRequest request, CancellationToken cancellationToken) => RefuseAsync<CancelPullReply>();

    public Task<CommitPullReply> CommitPullAsync(CommitPullRequest request, CancellationToken cancellationToken) => RefuseAsync<CommitPullReply>();

    public Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken) => RefuseAsync<ArtifactsReply>();

    public Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken) => RefuseAsync<DeleteArtifactReply>();

    public async IAsyncEnumerable<LogPiece> LogFileAsync(LogsRequest request, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
    {
        yield return await RefuseAsync<LogPiece>();
    }

    public async IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
    {
        yield return await RefuseAsync<ReportUpdate>();
    }

    private Task<T> RefuseAsync<T>() => Task.FromException<T>(new InvalidOperationException(reason));
}
