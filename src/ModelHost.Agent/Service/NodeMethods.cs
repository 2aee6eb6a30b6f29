using Google.Protobuf;
using ModelHost.Protocol;
using ModelHost.Rpc;

namespace ModelHost.Agent.Service;

/// <summary>The methods of <c>modelhost.node.v1.Node</c>.</summary>
public static class NodeMethods
{
    private const string Service = "modelhost.node.v1.Node";

    /// <summary>The longest message of either side in bytes: a report of many engines, with the spec of each.</summary>
    public const int MaxMessageBytes = 64 * 1024 * 1024;

    /// <summary>The most entries of a <see cref="UsageBatch"/>: more of them would hold up everybody who writes.</summary>
    public const int MaxUsageEntries = 1000;

    /// <summary><see cref="INode.StartAsync"/>.</summary>
    public static RpcMethod<StartRequest, StartReply> Start { get; } = Method("Start", StartRequest.Parser, StartReply.Parser);

    /// <summary><see cref="INode.StopAsync"/>.</summary>
    public static RpcMethod<StopRequest, StopReply> Stop { get; } = Method("Stop", StopRequest.Parser, StopReply.Parser);

    /// <summary><see cref="INode.UpdateAsync"/>.</summary>
    public static RpcMethod<UpdateRequest, UpdateReply> Update { get; } = Method("Update", UpdateRequest.Parser, UpdateReply.Parser);

    /// <summary><see cref="INode.EnvironmentAsync"/>.</summary>
    public static RpcMethod<EnvironmentRequest, EnvironmentReply> Environment { get; } = Method("Environment", EnvironmentRequest.Parser, EnvironmentReply.Parser);

    /// <summary><see cref="INode.ReportAsync"/>.</summary>
    public static RpcMethod<ReportRequest, NodeReport> Report { get; } = Method("Report", ReportRequest.Parser, NodeReport.Parser);

    /// <summary><see cref="INode.LogsAsync"/>.</summary>
    public static RpcMethod<LogsRequest, LogsReply> Logs { get; } = Method("Logs", LogsRequest.Parser, LogsReply.Parser);

    /// <summary><see cref="INode.LogFileAsync"/>.</summary>
    public static RpcMethod<LogsRequest, LogPiece> LogFile { get; } = Method("LogFile", LogsRequest.Parser, LogPiece.Parser);

    /// <summary><see cref="INode.WatchAsync"/>.</summary>
    public static RpcMethod<WatchRequest, ReportUpdate> Watch { get; } = Method("Watch", WatchRequest.Parser, ReportUpdate.Parser);

    /// <summary>What was there before <see cref="Watch"/>: the first answer says that it listens, the second that something has changed.</summary>
    public static RpcMethod<ChangedRequest, ChangedReply> Changed { get; } = Method("Changed", ChangedRequest.Parser, ChangedReply.Parser);

    /// <summary><see cref="INode.CheckPortAsync"/>.</summary>
    public static RpcMethod<PortRequest, PortReply> CheckPort { get; } = Method("CheckPort", PortRequest.Parser, PortReply.Parser);

    /// <summary><see cref="INode.AccessAsync"/>.</summary>
    public static RpcMethod<AccessRequest, AccessReply> Access { get; } = Method("Access", AccessRequest.Parser, AccessReply.Parser);

    /// <summary><see cref="INode.UsageAsync"/>.</summary>
    public static RpcMethod<UsageRequest, UsageReply> Usage { get; } = Method("Usage", UsageRequest.Parser, UsageReply.Parser);

    /// <summary><see cref="INode.PullAsync"/>.</summary>
    public static RpcMethod<PullRequest, PullReply> Pull { get; } = Method("Pull", PullRequest.Parser, PullReply.Parser);

    /// <summary><see cref="INode.CancelPullAsync"/>.</summary>
    public static RpcMethod<CancelPullRequest, CancelPullReply> CancelPull { get; } = Method("CancelPull", CancelPullRequest.Parser, CancelPullReply.Parser);

    /// <summary><see cref="INode.CommitPullAsync"/>.</summary>
    public static RpcMethod<CommitPullRequest, CommitPullReply> CommitPull { get; } = Method("CommitPull", CommitPullRequest.Parser, CommitPullReply.Parser);

    /// <summary><see cref="INode.ArtifactsAsync"/>.</summary>
    public static RpcMethod<ArtifactsRequest, ArtifactsReply> Artifacts { get; } = Method("Artifacts", ArtifactsRequest.Parser, ArtifactsReply.Parser);

    /// <summary><see cref="INode.DeleteArtifactAsync"/>.</summary>
    public static RpcMethod<DeleteArtifactRequest, DeleteArtifactReply> DeleteArtifact { get; } =
        Method("DeleteArtifact", DeleteArtifactRequest.Parser, DeleteArtifactReply.Parser);

    private static RpcMethod<TRequest, TResponse> Method<TRequest, TResponse>(string name, MessageParser<TRequest> requests, MessageParser<TResponse> responses)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse> => new(Service, name, requests, responses);
}
