using System.Net;
using Microsoft.AspNetCore.Http.Features;
using ModelHost.Agent;
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

    private readonly HttpMessageInvoker _engines = new(Handler());
    private readonly HttpMessageInvoker _backends = new(Handler());

    /// <summary>Forwards a request to the engine of a run.</summary>
    public async Task ForwardAsync(HttpContext context, string run, string path)
    {
        if (node.EngineOf(run) is not var (url, protocol))
            context.Response.StatusCode = StatusCodes.Status502BadGateway;
        else if (protocol != BackendCatalogue.Grpc)
            await forwarder.SendAsync(context, $"{url}/{path}", _engines, s_http, s_path);
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

    private static SocketsHttpHandler Handler() => new()
    {
        UseProxy = false,
        AllowAutoRedirect = false,
        UseCookies = false,
        AutomaticDecompression = DecompressionMethods.None,
        ActivityHeadersPropagator = null,
        ConnectTimeout = TimeSpan.FromSeconds(5),
        // a backend allows 100 calls on a connection, and the next would wait
        EnableMultipleHttp2Connections = true,
        // vLLM closes idle connections after 5 s
        PooledConnectionIdleTimeout = TimeSpan.FromSeconds(3),
    };

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
