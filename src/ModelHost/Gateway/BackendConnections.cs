using ModelHost.Agent.Backends;
using ModelHost.Cluster;
using ModelHost.Core.Routing;
using ModelHost.Rpc;

namespace ModelHost.Gateway;

/// <summary>
/// Reaches the gRPC backends of deployments: those of this machine directly, those of other nodes through their agents, whose link is mutual TLS. Whoever asks
/// need not know which.
/// </summary>
internal sealed class BackendConnections : IDisposable
{
    private static readonly TimeSpan KeepAlive = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);
    // the certificate of an agent is seen when a connection is made
    private static readonly TimeSpan ConnectionLifetime = TimeSpan.FromHours(1);

    private readonly HttpMessageInvoker _http;
    private readonly TimeProvider _time;

    public BackendConnections(NodeLinks links, TimeProvider time)
    {
        _time = time;
        var handler = links.Handler();
        (handler.ConnectTimeout, handler.PooledConnectionLifetime) = (ConnectTimeout, ConnectionLifetime);
        RpcClient.UseLongCalls(handler, KeepAlive);
        _http = new HttpMessageInvoker(handler);
    }

    /// <summary>Asks the backend of a route, whose <see cref="ModelRoute.Protocol"/> is <c>grpc</c>. Costs next to nothing and holds nothing.</summary>
    /// <param name="route">A route that requests can be forwarded to.</param>
    public BackendClient To(ModelRoute route) => To(route.EngineUrl ?? throw new ArgumentException("the engine of this route does not answer", nameof(route)), route.EngineKey);

    /// <summary>Asks the backend of a run.</summary>
    /// <param name="engineUrl">Where it is reached, as in routes and in the reports of nodes.</param>
    /// <param name="engineKey">Key of its run.</param>
    public BackendClient To(Uri engineUrl, string? engineKey) =>
        new(new RpcClient(engineUrl, _http, new RpcClientOptions { MaxMessageBytes = BackendClient.MaxMessageBytes, BearerToken = engineKey, Time = _time }));

    public void Dispose() => _http.Dispose();
}
