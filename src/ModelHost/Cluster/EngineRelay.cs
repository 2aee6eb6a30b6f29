using System.Net;
using ModelHost.Agent;
using ModelHost.Agent.Http;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Cluster;

/// <summary>
/// The data plane of an agent: lets the gateway reach engines that listen on this machine's loopback alone. Bytes pass as they come; a caller who leaves
/// ends the engine's work.
/// </summary>
internal sealed class EngineRelay(LocalNode node, IHttpForwarder forwarder) : IDisposable
{
    // the gateway bounds every call; here is only what a forgotten one must not exceed
    private static readonly ForwarderRequestConfig s_config = new()
    {
        ActivityTimeout = TimeSpan.FromHours(24),
        Version = HttpVersion.Version11,
        VersionPolicy = HttpVersionPolicy.RequestVersionExact,
    };

    private static readonly HttpTransformer s_path = new PathOnly();

    private readonly HttpMessageInvoker _engines = EngineHttp.Invoker(new SocketsHttpHandler(), EngineHttp.ConnectTimeout);

    /// <summary>Forwards a request to the engine of a run.</summary>
    public async Task ForwardAsync(HttpContext context, string run, string path)
    {
        if (node.EngineUrl(run) is { } url)
            await forwarder.SendAsync(context, $"{url}/{path}", _engines, s_config, s_path);
        else
            context.Response.StatusCode = StatusCodes.Status502BadGateway;
    }

    public void Dispose() => _engines.Dispose();

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
