using System.Net;
using System.Net.Security;

namespace ModelHost.Rpc;

/// <summary>How a client speaks to its server.</summary>
public sealed record RpcClientOptions
{
    /// <summary>The longest message taken, in bytes, unpacked. Default 4 MiB, as in other implementations of gRPC.</summary>
    public int MaxMessageBytes { get; init; } = 4 * 1024 * 1024;

    /// <summary>How long a connection may take, TLS included. Default 5 s.</summary>
    public TimeSpan ConnectTimeout { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>
    /// Time without a sign of the server after which it is pinged, and time that it has to answer, calls or no calls; without an answer all calls on the
    /// connection end with <see cref="RpcCode.Unavailable"/>. Default 2 s each; at least 1 s.
    /// </summary>
    public TimeSpan KeepAlive { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>Certificates on both sides, for an <c>https</c> address. Default: those of the system.</summary>
    public SslClientAuthenticationOptions? Tls { get; init; }

    /// <summary>How long a connection is used for further calls; those on it go on. Default: as long as it lasts.</summary>
    public TimeSpan ConnectionLifetime { get; init; } = Timeout.InfiniteTimeSpan;

    /// <summary>Connects to host and port of the address in a way of its own; null: by the name service. TLS comes on top.</summary>
    public Func<DnsEndPoint, CancellationToken, ValueTask<Stream>>? Connect { get; init; }

    /// <summary>Said with every call to show who asks; null or empty: nothing.</summary>
    public string? BearerToken { get; init; }

    /// <summary>The clock of deadlines.</summary>
    public TimeProvider Time { get; init; } = TimeProvider.System;
}
