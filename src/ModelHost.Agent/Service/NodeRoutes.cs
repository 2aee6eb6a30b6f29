using System.Runtime.CompilerServices;
using Google.Protobuf;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using ModelHost.Agent.Runtimes;
using ModelHost.Protocol;
using ModelHost.Rpc;

namespace ModelHost.Agent.Service;

/// <summary>The gRPC service of a node: a thin shell over the node itself.</summary>
public static class NodeRoutes
{
    private const double LongestInterval = 300;

    /// <summary>Serves a node.</summary>
    /// <returns>All its routes, for what they have in common.</returns>
    public static RouteGroupBuilder MapNode(this IEndpointRouteBuilder routes, INode node)
    {
        ArgumentNullException.ThrowIfNull(node);
        var group = routes.MapGroup("");
        Map(group, NodeMethods.Start, node.StartAsync);
        Map(group, NodeMethods.Stop, node.StopAsync);
        Map(group, NodeMethods.Update, node.UpdateAsync);
        Map(group, NodeMethods.Environment, node.EnvironmentAsync);
        Map(group, NodeMethods.Report, node.ReportAsync);
        Map(group, NodeMethods.Logs, node.LogsAsync);
        Map(group, NodeMethods.CheckPort, node.CheckPortAsync);
        Map(group, NodeMethods.Access, node.AccessAsync);
        Map(group, NodeMethods.Usage, node.UsageAsync);
        Map(group, NodeMethods.Pull, node.PullAsync);
        Map(group, NodeMethods.CancelPull, node.CancelPullAsync);
        Map(group, NodeMethods.CommitPull, node.CommitPullAsync);
        Map(group, NodeMethods.Artifacts, node.ArtifactsAsync);
        Map(group, NodeMethods.DeleteArtifact, node.DeleteArtifactAsync);
        group.MapServerStream(NodeMethods.LogFile, (request, _, cancellationToken) => node.LogFileAsync(request, cancellationToken), NodeMethods.MaxMessageBytes);
        group.MapServerStream(NodeMethods.Watch, (request, context, cancellationToken) => UntilStopAsync(node, request, context, cancellationToken), NodeMethods.MaxMessageBytes);
        group.MapServerStream(NodeMethods.Changed, (_, context, cancellationToken) => ChangedAsync(node, context, cancellationToken), NodeMethods.MaxMessageBytes);
        return group;
    }

    private static void Map<TRequest, TResponse>(
        RouteGroupBuilder group, RpcMethod<TRequest, TResponse> method, Func<TRequest, CancellationToken, Task<TResponse>> ask)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        async Task<TResponse> AnswerAsync(TRequest request, HttpContext context, CancellationToken cancellationToken)
        {
            try
            {
                return await ask(request, cancellationToken);
            }
            catch (ArgumentException e)
            {
                throw new RpcException(RpcCode.InvalidArgument, e.Message, e);
            }
            catch (InvalidOperationException e)
            {
                throw new RpcException(RpcCode.FailedPrecondition, e.Message, e);
            }
            catch (RuntimeException e)
            {
                throw new RpcException(RpcCode.Unavailable, e.Message, e);
            }
        }
        group.MapUnary(method, AnswerAsync, NodeMethods.MaxMessageBytes);
    }

    // a stream without an end must not hold up that of the agent
    private static async IAsyncEnumerable<ReportUpdate> UntilStopAsync(
        INode node, WatchRequest request, HttpContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var stopping = context.RequestServices.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping;
        using var either = CancellationTokenSource.CreateLinkedTokenSource(stopping, cancellationToken);
        await using var updates = node.WatchAsync(request, either.Token).GetAsyncEnumerator(either.Token);
        while (true)
        {
            try
            {
                if (!await updates.MoveNextAsync())
                    yield break;
            }
            catch (OperationCanceledException) when (stopping.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
            {
                throw new RpcException(RpcCode.Unavailable, "the agent is ending; its engines go on");
            }
            yield return updates.Current;
        }
    }

    // for a control plane that knows no Watch
    private static async IAsyncEnumerable<ChangedReply> ChangedAsync(INode node, HttpContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var answers = 0;
        await foreach (var _ in UntilStopAsync(node, new WatchRequest { IntervalSeconds = LongestInterval }, context, cancellationToken))
        {
            yield return new ChangedReply();
            if (++answers == 2)
                yield break;
        }
    }
}
