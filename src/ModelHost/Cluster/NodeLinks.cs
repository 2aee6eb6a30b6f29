using System.Collections.Concurrent;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using ModelHost.Agent.Service;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;
using ModelHost.Reconcile;
using ModelHost.Rpc;

namespace ModelHost.Cluster;

/// <summary>A node of another machine, where it was when it last spoke.</summary>
/// <param name="Uid">Its id.</param>
/// <param name="Hostname">What it calls itself.</param>
/// <param name="Address">Where it is.</param>
/// <param name="Port">Port of its agent.</param>
/// <param name="Fault">Why it is not spoken to; null: it is.</param>
internal sealed record NodeSeen(string Uid, string Hostname, IPAddress Address, int Port, string? Fault = null);

/// <summary>
/// The links to nodes of other machines. A node is reached under its own name, <c>UID.node.modelhost</c>, which leads to its address of now; whoever
/// answers there has to prove that it is this node.
/// </summary>
internal sealed class NodeLinks(
    NodeService nodes, NodeRegistry registry, ReconcileService reconcile, Lazy<ClusterAuthority> authority, ClusterBook book, LiveSettings settings, TimeProvider time) : IDisposable
{
    private const string Suffix = ".node.modelhost";
    // a certificate is seen when a connection is made
    private static readonly TimeSpan ConnectionLifetime = TimeSpan.FromHours(1);
    // longer than the time between two updates by default, which then are what shows that the node is there
    private static readonly TimeSpan KeepAlive = TimeSpan.FromSeconds(6);
    // of connections that carry many requests, all of which end with them: a node that is slow for a moment is not gone
    private static readonly TimeSpan SharedKeepAlive = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan ProofDeadline = TimeSpan.FromSeconds(5);

    private readonly ConcurrentDictionary<string, NodeSeen> _seen = new();
    private readonly ConcurrentDictionary<NodeConnection, string> _connections = new();
    private readonly SemaphoreSlim _one = new(1);

    /// <summary>Links the nodes that are known from before; all their deadlines start anew.</summary>
    public Task OpenAsync(CancellationToken cancellationToken) => OneByOneAsync(async () =>
    {
        foreach (var (id, node) in await nodes.ListRemoteAsync(cancellationToken))
            await LinkAsync(id, node);
        return true;
    }, cancellationToken);

    /// <summary>Takes a sign of life.</summary>
    /// <returns>The node's id in the API, and how long until the next is due; null: its certificates were revoked since they were looked at.</returns>
    public async Task<(int Id, TimeSpan Next)?> HeardAsync(NodeSeen node, CancellationToken cancellationToken)
    {
        var next = Heartbeats.Next(TimeSpan.FromSeconds(settings.Current.NodesSyncIntervalSeconds), _seen.Count, Random.Shared.NextDouble());
        var handle = _seen.GetValueOrDefault(node.Uid) == node ? registry.FindByUid(node.Uid) : null;
        if (handle is null)
        {
            var isProved = await nodes.IsByHandAsync(node, cancellationToken) && await ProvesAsync(node, cancellationToken);
            // a revocation stands in the book before the removal that follows it comes here: either it is seen, or the removal comes after this
            handle = await OneByOneAsync(
                async () => book.IsRevoked(node.Uid) ? null : await LinkAsync(await nodes.EnsureAsync(node, isProved, cancellationToken), node), cancellationToken);
            if (handle is null)
                return null;
        }
        handle.Beat(time.GetUtcNow(), next);
        return (handle.Id, next);
    }

    /// <summary>Whether a node that is known was last at an address and port.</summary>
    public bool IsAt(string address, int port) => IPAddress.TryParse(address, out var at) && _seen.Values.Any(node => node.Port == port && node.Address.Equals(at));

    /// <summary>Ends all connections to a node, with the requests on them; it has to prove anew who it is.</summary>
    public Task ReconnectAsync(string uid, CancellationToken cancellationToken) => OneByOneAsync(async () =>
    {
        if (registry.FindByUid(uid) is { } handle && _seen.TryRemove(uid, out var node))
            await LinkAsync(handle.Id, node);
        EndConnections(uid);
        return true;
    }, cancellationToken);

    /// <summary>Ends the link to a node and has its records removed; a sign of life that comes meanwhile registers it afterwards, unless its certificates are revoked.</summary>
    public Task RemoveAsync(string uid, Func<Task> remove, CancellationToken cancellationToken) => OneByOneAsync(async () =>
    {
        _seen.TryRemove(uid, out _);
        if (registry.FindByUid(uid) is { } handle)
            await reconcile.UnlinkAsync(handle);
        await remove();
        return true;
    }, cancellationToken);

    /// <summary>A handler for HTTP to agents: over HTTP/2 a connection carries as many requests as the agent allows, and one that is silent is found out.</summary>
    public SocketsHttpHandler Handler()
    {
        var handler = new SocketsHttpHandler
        {
            UseProxy = false,
            AllowAutoRedirect = false,
            UseCookies = false,
            PooledConnectionLifetime = ConnectionLifetime,
            ConnectCallback = (context, cancellationToken) => ConnectAsync(context.DnsEndPoint, cancellationToken),
            SslOptions = Tls(),
        };
        RpcClient.UseLongCalls(handler, SharedKeepAlive);
        return handler;
    }

    public void Dispose() => _one.Dispose();

    /// <summary>Whether an engine is reached through an agent; one of this machine is not.</summary>
    public static bool IsAgent(Uri engineUrl) => engineUrl.Scheme == Uri.UriSchemeHttps;

    /// <summary>Where an engine of a node is reached through its agent.</summary>
    public static string EngineUrl(string uid, int port, string runId) => $"https://{uid}{Suffix}:{port}/engines/{runId}";

    private async Task<T> OneByOneAsync<T>(Func<Task<T>> change, CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            return await change();
        }
        finally
        {
            _one.Release();
        }
    }

    private async Task<NodeHandle> LinkAsync(int id, NodeSeen node)
    {
        if (registry.FindByUid(node.Uid) is { } before)
        {
            if (_seen.GetValueOrDefault(node.Uid) == node && before.Id == id)
                return before;
            await reconcile.UnlinkAsync(before);
        }
        _seen[node.Uid] = node;
        EndConnections(node.Uid, but: new IPEndPoint(node.Address, node.Port));
        var handle = new NodeHandle(id, node.Fault is { } fault ? new RefusedNode(fault) : Link(node), settings, node.Uid);
        handle.Beat(time.GetUtcNow(), TimeSpan.FromSeconds(settings.Current.NodesSyncIntervalSeconds));
        await reconcile.LinkAsync(handle, CancellationToken.None); // one whose former link has ended must not stay without because its sign of life was given up
        return handle;
    }

    /// <summary>Whether an agent with the node's certificate answers at the address where the node says that it is.</summary>
    private async Task<bool> ProvesAsync(NodeSeen node, CancellationToken cancellationToken)
    {
        using var deadline = new CancellationTokenSource(ProofDeadline, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        using var link = Link(node, (_, token) => ConnectAsync(new IPEndPoint(node.Address, node.Port), token));
        try
        {
            await link.ReportAsync(new ReportRequest(), linked.Token);
            return true;
        }
#pragma warning disable CA1031 // whatever it is, nothing was proved
        catch (Exception) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            return false;
        }
    }

    private RemoteNode Link(NodeSeen node) => Link(node, ConnectAsync);

    private RemoteNode Link(NodeSeen node, Func<DnsEndPoint, CancellationToken, ValueTask<Stream>> connect) => new(
        new RpcClient(new Uri($"https://{node.Uid}{Suffix}:{node.Port}"), new RpcClientOptions
        {
            MaxMessageBytes = NodeMethods.MaxMessageBytes,
            KeepAlive = KeepAlive,
            ConnectionLifetime = ConnectionLifetime,
            Connect = connect,
            Tls = Tls(),
        }),
        run => EngineUrl(node.Uid, node.Port, run));

    private async ValueTask<Stream> ConnectAsync(DnsEndPoint wanted, CancellationToken cancellationToken)
    {
        if (UidOf(wanted.Host) is not { } uid || !_seen.TryGetValue(uid, out var node))
            throw new HttpRequestException($"{wanted.Host} is not known");
        var to = new IPEndPoint(node.Address, wanted.Port);
        var connection = new NodeConnection(await SocketAsync(to, cancellationToken), to, _connections);
        _connections[connection] = uid;
        // whoever ended the connections meanwhile did not see this one
        if (!_seen.TryGetValue(uid, out var now) || !now.Address.Equals(node.Address))
            connection.End();
        return connection;
    }

    private static async ValueTask<Stream> ConnectAsync(IPEndPoint to, CancellationToken cancellationToken) =>
        new NetworkStream(await SocketAsync(to, cancellationToken), ownsSocket: true);

    private static async Task<Socket> SocketAsync(IPEndPoint to, CancellationToken cancellationToken)
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(to, cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Ends connections to a node, whoever uses them and for what.</summary>
    /// <param name="uid">The node.</param>
    /// <param name="but">Where those to stay lead; null: none stays.</param>
    private void EndConnections(string uid, IPEndPoint? but = null)
    {
        foreach (var (connection, node) in _connections)
        {
            if (node == uid && !connection.To.Equals(but))
                connection.End();
        }
    }

    private SslClientAuthenticationOptions Tls() => new()
    {
        LocalCertificateSelectionCallback = (_, _, _, _, _) => authority.Value.ControlPlane(),
        CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
        RemoteCertificateValidationCallback = (stream, certificate, _, _) => IsNode((stream as SslStream)?.TargetHostName ?? "", certificate),
        AllowTlsResume = false,
    };

    /// <summary>Whether the certificate is that of the node that was meant: a member is not any member.</summary>
    private bool IsNode(string host, X509Certificate? certificate) =>
        UidOf(host) is { } uid
        && authority.Value.Trust.Check(certificate, ClusterRole.Node, out var name) is null
        && name.NodeId == uid
        && book.Fault(uid, (X509Certificate2)certificate!) is null;

    private static string? UidOf(string host) => host.EndsWith(Suffix, StringComparison.OrdinalIgnoreCase) ? host[..^Suffix.Length] : null;
}

/// <summary>A connection to a node, for as long as it is open.</summary>
/// <param name="socket">It is connected, and goes with this.</param>
/// <param name="to">Where it leads.</param>
/// <param name="open">The open ones, which it leaves with its end.</param>
internal sealed class NodeConnection(Socket socket, IPEndPoint to, ConcurrentDictionary<NodeConnection, string> open) : NetworkStream(socket, ownsSocket: true)
{
    /// <summary>Where it leads.</summary>
    public IPEndPoint To => to;

    /// <summary>Ends it under whoever reads and writes, who see that it was cut.</summary>
    public void End()
    {
        try
        {
            Socket.Shutdown(SocketShutdown.Both);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // it has ended by itself
        }
    }

    protected override void Dispose(bool disposing)
    {
        open.TryRemove(this, out _);
        base.Dispose(disposing);
    }
}

/// <summary>When nodes are to say that they are alive.</summary>
internal static class Heartbeats
{
    /// <summary>How late a sign may come, of what was said, before it counts as missed.</summary>
    public static readonly TimeSpan Grace = TimeSpan.FromSeconds(4);

    private const int PerSecond = 20;
    private const double Stagger = 0.2;

    /// <summary>Time until the next sign of a node.</summary>
    /// <param name="interval">The least time between two of them.</param>
    /// <param name="nodes">Number of nodes: in all they say no more than 20 a second.</param>
    /// <param name="random">0 to 1: up to a fifth earlier, so that nodes that began together do not stay together.</param>
    public static TimeSpan Next(TimeSpan interval, int nodes, double random) =>
        TimeSpan.FromSeconds(Math.Max(interval.TotalSeconds, (double)nodes / PerSecond) * (1 - (Stagger * random)));
}
