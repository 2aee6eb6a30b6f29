namespace ModelHost.Protocol;

/// <summary>What the control plane can ask of a node, in process or over the wire.</summary>
/// <remarks>
/// Every call is idempotent and returns soon; long work goes on inside the node and shows in the report. What the node cannot make sense of is an
/// <see cref="ArgumentException"/>, what it is in no state to do an <see cref="InvalidOperationException"/>; over the wire any other exception means that it
/// could not be asked.
/// </remarks>
public interface INode
{
    /// <summary>Begins a run. The answer says only that the node has taken it over; how it goes is in the report.</summary>
    Task<StartReply> StartAsync(StartRequest request, CancellationToken cancellationToken);

    /// <summary>Begins the end of a run and the removal of its container or process.</summary>
    Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken);

    /// <summary>Replaces what the node keeps of a run: its spec and its lease. One that it does not know, or knows a later lease of, changes nothing.</summary>
    Task<UpdateReply> UpdateAsync(UpdateRequest request, CancellationToken cancellationToken);

    /// <summary>The values of a run's variables; of one that the node does not know, none.</summary>
    Task<EnvironmentReply> EnvironmentAsync(EnvironmentRequest request, CancellationToken cancellationToken);

    /// <summary>Everything the node knows now.</summary>
    Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken);

    /// <summary>The last lines of a run's log.</summary>
    Task<LogsReply> LogsAsync(LogsRequest request, CancellationToken cancellationToken);

    /// <summary>The whole log of a run as it stands when it is asked for, oldest first; none if there is no log. <c>Tail</c> does not count.</summary>
    IAsyncEnumerable<LogPiece> LogFileAsync(LogsRequest request, CancellationToken cancellationToken);

    /// <summary>
    /// What the node knows, as it changes: first a whole report, then what is new, at once where something happened, and otherwise as often as asked for,
    /// where nothing is new too. A slow reader misses nothing but states that have passed. It does not end by itself: the end of it is the node's.
    /// </summary>
    IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, CancellationToken cancellationToken);

    /// <summary>Whether something on the node could listen on a port now, on any address; ports outside of 1 to 65535 make no sense.</summary>
    Task<PortReply> CheckPortAsync(PortRequest request, CancellationToken cancellationToken);

    /// <summary>Replaces what the node knows of who may ask its engines directly. It keeps this on its disk, so that it goes on alone.</summary>
    Task<AccessReply> AccessAsync(AccessRequest request, CancellationToken cancellationToken);

    /// <summary>
    /// What direct requests used since the batch that is named as booked, which is forgotten with those before it; the same batch until it is named. What the node
    /// answers is on its disk.
    /// </summary>
    Task<UsageReply> UsageAsync(UsageRequest request, CancellationToken cancellationToken);

    /// <summary>Begins to download and install something. How it goes is in the report; asking again with the same id changes nothing.</summary>
    Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken);

    /// <summary>Begins the end of a pull, and sees to it that one which is still on its way here does not begin.</summary>
    Task<CancelPullReply> CancelPullAsync(CancelPullRequest request, CancellationToken cancellationToken);

    /// <summary>Lets a pull that is held take its place. It is in its place when the report says that the pull is done.</summary>
    Task<CommitPullReply> CommitPullAsync(CommitPullRequest request, CancellationToken cancellationToken);

    /// <summary>The models and backends that are installed, and images where asked for.</summary>
    Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken);

    /// <summary>Removes what a pull installed, and of images what this node has pulled and nothing on it uses; never by force.</summary>
    Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken);
}
