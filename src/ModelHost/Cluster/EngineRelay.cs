using System.Net;
using Microsoft.AspNetCore.Http.Features;
using ModelHost.Agent;
using ModelHost.Agent.Http;
using ModelHost.Core.Backends;
using ModelHost.Rpc;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Cluster;

/// <summary>
/// The data plane of an agent: lets the gateway reach engines that listen on this machine's loopback alone, by HTTP/1.1 or, where they speak gRPC, by HTTP/2 with
/// its trailers. Bytes pass as they come; a caller who leaves ends the engine's work.
/// </summary>
internal sealed class EngineRelay(LocalNode node, IHttpForwarder forwarder) : IDisposable
{
    private const string BackendService = "backend.Backend/";
    private static readonly ForwarderRequestConfig s_http = Config(HttpVersion.Version11);
    private static readonly ForwarderRequestConfig s_grpc = Config(HttpVersion.Version20);
    private static readonly HttpTransformer s_path = new PathOnly();
    private static readonly HttpTransformer s_plain = new Plain();

    private readonly HttpMessageInvoker _engines = EngineHttp.Invoker(EngineHttp.ConnectTimeout);
    // a backend allows 100 calls on a connection, and the next would wait
    private readonly HttpMessageInvoker _backends = EngineHttp.Invoker(new SocketsHttpHandler { EnableMultipleHttp2Connections = true }, EngineHttp.ConnectTimeout);

    /// <summary>Forwards a request to the engine of a run. What the engine did not answer has a status and no body: the gateway finds the words.</summary>
    public async Task ForwardAsync(HttpContext context, string run, string path)
    {
        if (node.EngineOf(run) is not var (url, protocol))
            context.Response.StatusCode = StatusCodes.Status503ServiceUnavailable; // not found yet after a start of this process, or gone a moment ago
        else if (protocol != BackendCatalogue.Grpc)
            await forwarder.SendAsync(context, $"{url}/{path}", _engines, s_http, s_plain);
        else if (RpcServer.IsCall(context.Request) && path.StartsWith(BackendService, StringComparison.Ordinal))
        {
            context.Features.Set<IHttpResetFeature>(new BrokenCall(context, context.Features.Get<IHttpResetFeature>()));
            await forwarder.SendAsync(context, $"{url}/{path}", _backends, s_grpc, s_path);
        }
        else
            context.Response.StatusCode = StatusCodes.Status404NotFound;
    }

    public void Dispose()
    {
        _engines.Dispose();
        _backends.Dispose();
    }

    private static ForwarderRequestConfig Config(Version version) => new()
    {
        // the gateway bounds every call; here is only what a forgotten one must not exceed
        ActivityTimeout = TimeSpan.FromHours(24),
        Version = version,
        VersionPolicy = HttpVersionPolicy.RequestVersionExact,
    };

    /// <summary>Ends an answer that its backend broke off in the words of gRPC: a bare reset would read as if the caller had given it up.</summary>
    private sealed class BrokenCall(HttpContext context, IHttpResetFeature? reset) : IHttpResetFeature
    {
        public void Reset(int errorCode)
        {
            if (!context.RequestAborted.IsCancellationRequested && context.Response.SupportsTrailers())
                RpcServer.AppendStatus(context.Response, RpcCode.Unavailable, "the backend broke off the call");
            else
                reset?.Reset(errorCode);
        }
    }

    /// <summary>Only the headers that gateway and engine have for each other: no other could make an answer that HTTP/2 does not carry.</summary>
    private sealed class Plain : HttpTransformer
    {
        public override ValueTask TransformRequestAsync(
            HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
        {
            var headers = httpContext.Request.Headers;
            EngineHttp.CopyRequest(headers, proxyRequest, headers.Authorization.Count == 1 ? headers.Authorization[0] : null);
            if (proxyRequest.Content is { } content)
                content.Headers.ContentLength = httpContext.Request.ContentLength;
            proxyRequest.RequestUri = new Uri(destinationPrefix + httpContext.Request.QueryString);
            return ValueTask.CompletedTask;
        }

        public override ValueTask<bool> TransformResponseAsync(HttpContext httpContext, HttpResponseMessage? proxyResponse, CancellationToken cancellationToken)
        {
            if (proxyResponse is not null)
                EngineHttp.CopyAnswerHeaders(proxyResponse, httpContext);
            return ValueTask.FromResult(true);
        }

        public override ValueTask TransformResponseTrailersAsync(HttpContext httpContext, HttpResponseMessage proxyResponse, CancellationToken cancellationToken) =>
            ValueTask.CompletedTask;
    }

    private sealed class PathOnly : HttpTransformer
    {
        public override async ValueTask TransformRequestAsync(
            HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
        {
            await base.TransformRequestAsync(httpContext, proxyRequest, destinationPrefix, cancellationToken);
            proxyRequest.RequestUri = new Uri(destinationPrefix + httpContext.Request.QueryString);
            proxyRequest.Headers.Host = null;
        }
    }
}
