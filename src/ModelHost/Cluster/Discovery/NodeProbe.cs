using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using ModelHost.Agent.Service;
using ModelHost.Protocol;
using ModelHost.Rpc;

namespace ModelHost.Cluster.Discovery;

/// <summary>What was found out about whoever listens at an address.</summary>
/// <param name="Uid">The node that its certificate names; null: it showed none of this cluster.</param>
/// <param name="Node">The node, if it is one of ours and may be linked; else null.</param>
/// <param name="Fault">Why it is not; null: it is.</param>
internal sealed record Probed(string? Uid, NodeSeen? Node, string? Fault);

/// <summary>Finds out who listens at an address: only the certificate of the other side says so, and it has to be of this cluster.</summary>
internal sealed class NodeProbe(Lazy<ClusterAuthority> authority, ClusterBook book, TimeProvider time)
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(5);

    /// <summary>Asks once, for a few seconds at most.</summary>
    public async Task<Probed> AskAsync(string host, int port, CancellationToken cancellationToken)
    {
        if (port is < 1 or > IPEndPoint.MaxPort || Uri.CheckHostName(host) == UriHostNameType.Unknown)
            return new Probed(null, null, "What stands in the catalogue is no host with a port.");
        string? uid = null, fault = null;
        IPAddress? address = null;
        using var client = new RpcClient(new UriBuilder("https", host, port).Uri, new RpcClientOptions
        {
            MaxMessageBytes = NodeMethods.MaxMessageBytes,
            ConnectTimeout = Limit,
            Time = time,
            Connect = async (wanted, token) =>
            {
                var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
                try
                {
                    await socket.ConnectAsync(wanted, token);
                    address = ((IPEndPoint)socket.RemoteEndPoint!).Address;
                    return new NetworkStream(socket, ownsSocket: true);
                }
                catch
                {
                    socket.Dispose();
                    throw;
                }
            },
            Tls = new SslClientAuthenticationOptions
            {
                LocalCertificateSelectionCallback = (_, _, _, _, _) => authority.Value.ControlPlane(),
                CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
                RemoteCertificateValidationCallback = (_, shown, _, _) =>
                {
                    fault = authority.Value.Trust.Check(shown, ClusterRole.Node, out var told);
                    uid = fault is null ? told.NodeId : null;
                    fault ??= book.Fault(told.NodeId, (X509Certificate2)shown!);
                    return fault is null;
                },
                AllowTlsResume = false,
            },
        });
        try
        {
            var report = await client.UnaryAsync(NodeMethods.Report, new ReportRequest(), Limit, cancellationToken);
            if (uid is null || address is null || report.NodeId != uid)
                return new Probed(uid, null, "It reports as another node than its certificate names.");
            var seen = address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;
            // what it calls itself it told when it joined; the name of its machine may be another
            var name = book.Members.GetValueOrDefault(uid)?.Name ?? (report.Hostname is { Length: > 0 and <= 255 } hostname ? hostname : uid);
            return new Probed(uid, new NodeSeen(uid, name, seen, port, AgentVersion.Fault(report.AgentVersion, AgentVersion.Own)), null);
        }
        catch (RpcException e)
        {
            return new Probed(uid, null, fault is null ? $"It does not answer as a node: {e.Detail}" : $"It is not taken: {fault}.");
        }
    }
}
