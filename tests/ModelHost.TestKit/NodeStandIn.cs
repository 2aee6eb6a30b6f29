using ModelHost.Protocol;

namespace ModelHost.TestKit;

/// <summary>A node that agrees to everything and does nothing. A test's own derives from it and does what the test is about.</summary>
public abstract class NodeStandIn : INode
{
    /// <inheritdoc/>
    public virtual Task<StartReply> StartAsync(StartRequest request, CancellationToken cancellationToken) => Task.FromResult(new StartReply());

    /// <inheritdoc/>
    public virtual Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken) => Task.FromResult(new StopReply());

    /// <inheritdoc/>
    public virtual Task<UpdateReply> UpdateAsync(UpdateRequest request, CancellationToken cancellationToken) => Task.FromResult(new UpdateReply());

    /// <inheritdoc/>
    public virtual Task<EnvironmentReply> EnvironmentAsync(EnvironmentRequest request, CancellationToken cancellationToken) => Task.FromResult(new EnvironmentReply());

    /// <inheritdoc/>
    public virtual Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken) => Task.FromResult(new NodeReport());

    /// <inheritdoc/>
    public abstract IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, CancellationToken cancellationToken);

    /// <inheritdoc/>
    public virtual Task<LogsReply> LogsAsync(LogsRequest request, CancellationToken cancellationToken) => Task.FromResult(new LogsReply());

    /// <inheritdoc/>
    public virtual IAsyncEnumerable<LogPiece> LogFileAsync(LogsRequest request, CancellationToken cancellationToken) => AsyncEnumerable.Empty<LogPiece>();

    /// <inheritdoc/>
    public virtual Task<PortReply> CheckPortAsync(PortRequest request, CancellationToken cancellationToken) => Task.FromResult(new PortReply { Available = true });

    /// <inheritdoc/>
    public virtual Task<AccessReply> AccessAsync(AccessRequest request, CancellationToken cancellationToken) => Task.FromResult(new AccessReply());

    /// <inheritdoc/>
    public virtual Task<UsageReply> UsageAsync(UsageRequest request, CancellationToken cancellationToken) => Task.FromResult(new UsageReply());

    /// <inheritdoc/>
    public virtual Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken) => Task.FromResult(new PullReply());

    /// <inheritdoc/>
    public virtual Task<CancelPullReply> CancelPullAsync(CancelPullRequest request, CancellationToken cancellationToken) => Task.FromResult(new CancelPullReply());

    /// <inheritdoc/>
    public virtual Task<CommitPullReply> CommitPullAsync(CommitPullRequest request, CancellationToken cancellationToken) => Task.FromResult(new CommitPullReply());

    /// <inheritdoc/>
    public virtual Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken) => Task.FromResult(new ArtifactsReply());

    /// <inheritdoc/>
    public virtual Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken) => Task.FromResult(new DeleteArtifactReply());
}
