using System.Net;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace ModelHost.Agent.Proxy;

/// <summary>Listens on a public port, for whichever run has it. A Kestrel of its own: ports come and go, and one that is taken must not end the others.</summary>
internal sealed class DirectListener(DirectTarget target, DirectRequests requests, ILoggerFactory loggers) : IHttpApplication<HttpContext>, IDisposable
{
    private volatile DirectTarget _target = target;
    private KestrelServer? _server;

    /// <summary>The run that the port leads to.</summary>
    public DirectTarget Target
    {
        get => _target;
        set => _target = value;
    }

    /// <summary>Whether it listens.</summary>
    public bool IsOpen => _server is not null;

    /// <summary>Why it does not, though it should; null: it does, or was not asked to.</summary>
    public string? Fault { get; private set; }

    /// <summary>Begins to listen.</summary>
    public async Task OpenAsync(IPAddress address)
    {
        var options = new KestrelServerOptions { AddServerHeader = false };
        options.Limits.MaxRequestBodySize = null; // bounded with each request
        options.Listen(address, Target.Port, listen => listen.Protocols = HttpProtocols.Http1);
        var server = new KestrelServer(Options.Create(options), new SocketTransportFactory(Options.Create(new SocketTransportOptions()), loggers), loggers);
        try
        {
            await server.StartAsync(this, CancellationToken.None);
            (_server, Fault) = (server, null);
        }
        catch (Exception e) when (e is IOException or System.Net.Sockets.SocketException)
        {
            server.Dispose();
            Fault = e.GetBaseException().Message;
        }
    }

    /// <summary>Listens no more; connections on which something is under way are cut when the token says so.</summary>
    public Task CloseAsync(CancellationToken cut) => _server?.StopAsync(cut) ?? Task.CompletedTask;

    public void Dispose() => _server?.Dispose();

    public HttpContext CreateContext(IFeatureCollection contextFeatures) => new DefaultHttpContext(contextFeatures);

    public Task ProcessRequestAsync(HttpContext context) => requests.ServeAsync(context, this);

    public void DisposeContext(HttpContext context, Exception? exception)
    {
        // it holds nothing
    }
}
