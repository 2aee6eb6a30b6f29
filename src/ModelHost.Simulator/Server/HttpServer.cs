using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace ModelHost.Simulator.Server;

/// <summary>
/// The HTTP side. The socket is bound before the engine loads, which finds a taken port at once, and listens only afterwards, so that
/// connections are refused until the server is ready.
/// </summary>
internal sealed class HttpServer : IAsyncDisposable
{
    /// <summary>The longest body that is taken. vLLM has no such limit; without one, a client could take all memory.</summary>
    public const long MaxBodyBytes = 128 << 20;

    private readonly Socket _socket;
    private WebApplication? _application;

    private HttpServer(Socket socket) => _socket = socket;

    public IPEndPoint EndPoint => (IPEndPoint)_socket.LocalEndPoint!;

    /// <summary>Takes the port.</summary>
    /// <exception cref="SocketException">It is taken, or the address is not ours.</exception>
    public static HttpServer Bind(string host, int port)
    {
        var address = IPAddress.TryParse(host, out var parsed) ? parsed
            : host.Length == 0 ? IPAddress.Any : Dns.GetHostAddresses(host, AddressFamily.InterNetwork)[0];
        var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            socket.Bind(new IPEndPoint(address, port));
        }
        catch
        {
            socket.Dispose();
            throw;
        }
        return new(socket);
    }

    /// <summary>Starts to listen.</summary>
    /// <param name="router">Answers the requests.</param>
    /// <param name="keepAlive">Connections that are idle for so long are closed, never earlier and at most two seconds later: Kestrel looks at its clock once a second.</param>
    public async Task StartAsync(Router router, TimeSpan keepAlive)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        // signals are handled by the command, which has work to do before this server stops
        builder.Services.AddSingleton<IHostLifetime, NoSignals>();
        builder.Services.Configure<SocketTransportOptions>(transport => transport.CreateBoundListenSocket = _ => _socket);
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.KeepAliveTimeout = keepAlive > TimeSpan.Zero ? keepAlive : TimeSpan.FromTicks(1);
            kestrel.Limits.MaxRequestBodySize = MaxBodyBytes;
            kestrel.Limits.MinRequestBodyDataRate = null;
            kestrel.Limits.MinResponseDataRate = null;
            kestrel.Listen(EndPoint);
        });
        _application = builder.Build();
        _application.Run(router.HandleAsync);
        await _application.StartAsync(CancellationToken.None);
    }

    /// <summary>Closes idle connections, and those that are still busy after <paramref name="grace"/>.</summary>
    public async Task StopAsync(TimeProvider time, TimeSpan grace)
    {
        if (_application is null)
            return;
        using var limit = new CancellationTokenSource(grace, time);
        await _application.StopAsync(limit.Token);
    }

    public async ValueTask DisposeAsync()
    {
        if (_application is not null)
            await _application.DisposeAsync();
        _socket.Dispose();
    }

    private sealed class NoSignals : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
