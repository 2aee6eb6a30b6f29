using System.Globalization;
using System.Runtime.CompilerServices;
using System.Security.Cryptography.X509Certificates;
using Google.Protobuf.WellKnownTypes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using ModelHost.Rpc;

namespace ModelHost.TestKit;

/// <summary>The methods of a gRPC service that gives back what it is told.</summary>
public static class Echo
{
    /// <summary>Full name of the service.</summary>
    public const string Service = "modelhost.test.Echo";

    /// <summary>Answers what it is asked. <c>fail CODE DETAIL</c> fails so, <c>throw</c> throws, and <c>hang</c> waits for the end of the call.</summary>
    public static RpcMethod<StringValue, StringValue> Say { get; } = Method("Say");

    /// <summary>Answers <c>N</c> with the numbers below N; with <c>N!</c>, it then fails with <see cref="RpcCode.DataLoss"/>.</summary>
    public static RpcMethod<StringValue, StringValue> Count { get; } = Method("Count");

    /// <summary>Answers all that it is told, put together.</summary>
    public static RpcMethod<StringValue, StringValue> Join { get; } = Method("Join");

    /// <summary>Answers each message before it reads the next.</summary>
    public static RpcMethod<StringValue, StringValue> Talk { get; } = Method("Talk");

    /// <summary>A method of the service.</summary>
    public static RpcMethod<StringValue, StringValue> Method(string name) => new(Service, name, StringValue.Parser, StringValue.Parser);

    /// <summary>A message.</summary>
    public static StringValue Of(string text) => new() { Value = text };

    /// <summary>Messages.</summary>
    public static async IAsyncEnumerable<StringValue> Of(params string[] texts)
    {
        foreach (var text in texts ?? [])
        {
            await Task.Yield();
            yield return Of(text);
        }
    }
}

/// <summary>A real Kestrel on loopback that serves <see cref="Echo"/> or whatever else a test maps.</summary>
public sealed class EchoServer : IAsyncDisposable
{
    private readonly WebApplication _app;
    private int _hanging, _givenUp;

    private EchoServer(WebApplication app, Uri address) => (_app, Address) = (app, address);

    /// <summary>Where it listens.</summary>
    public Uri Address { get; private set; }

    /// <summary>Calls of <c>Say hang</c> that were given up.</summary>
    public int GivenUp => Volatile.Read(ref _givenUp);

    /// <summary>Calls of <c>Say hang</c> that have come.</summary>
    public int Hanging => Volatile.Read(ref _hanging);

    /// <summary>What it logs.</summary>
    public LogLines Log { get; } = new();

    /// <summary>Starts one.</summary>
    /// <param name="maxMessageBytes">The longest message taken.</param>
    /// <param name="certificate">Its certificate; null: HTTP/2 without TLS.</param>
    /// <param name="socket">A unix socket to listen on in place of a port.</param>
    /// <param name="map">What it serves in place of <see cref="Echo"/>.</param>
    public static async Task<EchoServer> StartAsync(
        int maxMessageBytes = RpcServer.DefaultMaxMessageBytes, X509Certificate2? certificate = null, string? socket = null, Action<WebApplication>? map = null)
    {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore().UseKestrelHttpsConfiguration();
        builder.Services.AddRoutingCore();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.UseLongCalls();
            void Configure(ListenOptions listen)
            {
                listen.Protocols = HttpProtocols.Http2;
                if (certificate is not null)
                    listen.UseHttps(new HttpsConnectionAdapterOptions { ServerCertificate = certificate });
            }
            if (socket is not null)
                kestrel.ListenUnixSocket(socket, Configure);
            else
                kestrel.Listen(System.Net.IPAddress.Loopback, 0, Configure);
        });
        var app = builder.Build();
        var server = new EchoServer(app, new Uri("http://127.0.0.1"));
        app.Services.GetRequiredService<ILoggerFactory>().AddProvider(server.Log);
        if (map is not null)
            map(app);
        else
            server.Map(maxMessageBytes);
        app.MapUnknownMethods();
        await app.StartAsync();
        server.Address = socket is not null ? new Uri($"unix://{socket}")
            : new Uri(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First());
        return server;
    }

    public async ValueTask DisposeAsync()
    {
        using var soon = new CancellationTokenSource(TimeSpan.FromMilliseconds(200));
        await _app.StopAsync(soon.Token);
        await _app.DisposeAsync();
    }

    private void Map(int maxMessageBytes)
    {
        _app.MapUnary(Echo.Say, SayAsync, maxMessageBytes);
        _app.MapServerStream(Echo.Count, CountAsync, maxMessageBytes);
        _app.MapClientStream(Echo.Join, JoinAsync, maxMessageBytes);
        _app.MapDuplex(Echo.Talk, static (requests, _, _) => requests, maxMessageBytes);
    }

    private async Task<StringValue> SayAsync(StringValue request, HttpContext context, CancellationToken cancellationToken)
    {
        switch (request.Value.Split(' ', 3))
        {
            case ["fail", var code, var detail]:
                throw new RpcException(System.Enum.Parse<RpcCode>(code), detail);
            case ["throw"]:
                throw new InvalidOperationException("a secret of the inside");
            case ["hang"]:
                Interlocked.Increment(ref _hanging);
                try
                {
                    await Task.Delay(Timeout.Infinite, cancellationToken);
                }
                finally
                {
                    Interlocked.Increment(ref _givenUp);
                }
                break;
            default:
                break;
        }
        return request;
    }

    private static async IAsyncEnumerable<StringValue> CountAsync(StringValue request, HttpContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var count = int.Parse(request.Value.TrimEnd('!'), CultureInfo.InvariantCulture);
        for (var i = 0; i < count; i++)
        {
            await Task.Yield();
            yield return Echo.Of(i.ToString(CultureInfo.InvariantCulture));
        }
        if (request.Value.EndsWith('!'))
            throw new RpcException(RpcCode.DataLoss, "the rest is gone");
    }

    private static async Task<StringValue> JoinAsync(IAsyncEnumerable<StringValue> requests, HttpContext context, CancellationToken cancellationToken)
    {
        var all = new System.Text.StringBuilder();
        await foreach (var request in requests.WithCancellation(cancellationToken))
            all.Append(request.Value);
        return Echo.Of(all.ToString());
    }
}
