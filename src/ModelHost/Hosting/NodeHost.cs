using System.Net;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.Options;
using ModelHost.Agent;
using ModelHost.Agent.Service;
using ModelHost.Cluster;
using ModelHost.Protocol;
using ModelHost.Rpc;

namespace ModelHost.Hosting;

/// <summary>What the command line says about a node.</summary>
internal sealed record NodeSettings
{
    /// <summary>Where the agent listens when nothing else is said.</summary>
    public const string DefaultListen = "0.0.0.0:9000";

    /// <summary>The data folder; null: the default one.</summary>
    public string? Data { get; init; }

    /// <summary>Host and port of the control plane; null: as it joined before.</summary>
    public string? Join { get; init; }

    /// <summary>The join token; null: it has joined before.</summary>
    public string? Token { get; init; }

    /// <summary>Address and port to listen on.</summary>
    public string Listen { get; init; } = DefaultListen;

    /// <summary>What the node calls itself; null: its hostname.</summary>
    public string? Name { get; init; }

    /// <summary>Whether log lines are JSON.</summary>
    public bool LogJson { get; init; }

    /// <summary>Configuration given as <c>Section:Key=value</c>.</summary>
    public IReadOnlyList<string> Configuration { get; init; } = [];

    /// <summary>Where the data is when nothing else is said.</summary>
    public string DataPath => Data ?? Path.Combine(
        Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify), "modelhost-node");

    /// <summary>The name.</summary>
    public string NodeName => Name ?? Dns.GetHostName();
}

/// <summary>Builds the agent of a node.</summary>
internal static class NodeHost
{
    // from the end of the last direct requests to that of the process
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(5);
    private const int StreamsPerConnection = 100;
    // a prompt of usual size needs no turn of the other side
    private const int StreamWindow = 512 * 1024;
    // more than the control plane takes from its clients
    private const int MaxHeaders = 128 * 1024;
    private const int MaxHeaderCount = 1000;

    /// <summary>Opens the membership of the data folder; without one, or with a token that was not used for it, joins.</summary>
    /// <exception cref="ClusterException">The node is no member, and does not become one.</exception>
    public static async Task<Membership> MembershipAsync(NodeSettings settings, DataFolder folder, TimeProvider time, CancellationToken cancellationToken)
    {
        // the token by which it joined stays in scripts and unit files; another one is there to be used
        var known = Membership.Open(folder, time);
        if (known is not null && (settings.Token is null || known.IsBy(settings.Token)))
            return known;
        using (known)
        {
            if (settings is not { Join: { } controlPlane, Token: { } token })
                throw new ClusterException("to join, this node needs --join HOST:8443 and a --token from 'modelhost token create'");
            return await Membership.JoinAsync(folder, time, controlPlane, token, settings.NodeName, known, cancellationToken);
        }
    }

    /// <summary>Builds it on a data folder that is already owned.</summary>
    public static WebApplication Build(NodeSettings settings, DataFolder folder, Membership membership, TimeProvider time)
    {
        var builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory });
        ServeHost.AddSources(builder, folder, settings.LogJson ? new() { ["Log:Json"] = "true" } : [], settings.Configuration);
        ServeHost.AddLogging(builder);
        builder.Services.AddSingleton(time);
        builder.Services.AddSingleton<EngineRelay>();
        ServeHost.AddDownloads(builder.Services);
        ServeHost.AddLocalNode(builder.Services, new NodeIdentity(membership.ClusterId, folder.NodeId, folder.Path));
        builder.Services.AddHostedService<NodeService>();
        AddAgent(builder, settings.Listen, membership, settings.NodeName);
        var app = builder.Build();
        var hosting = app.Services.GetRequiredService<IOptions<HostOptions>>().Value;
        var atLeast = app.Services.GetRequiredService<IOptions<NodeOptions>>().Value.DrainTimeout + Settling;
        if (hosting.ShutdownTimeout < atLeast)
            hosting.ShutdownTimeout = atLeast;
        MapAgent(app, membership, app.Services.GetRequiredService<LocalNode>());
        var relay = app.Services.GetRequiredService<EngineRelay>();
        app.MapRunFiles(app.Services.GetRequiredService<LocalNode>().Files);
        app.Map("/engines/{run}/{**path}", (HttpContext context, string run, string path) => relay.ForwardAsync(context, run, path));
        return app;
    }

    /// <summary>Listens as a member, and sends heartbeats.</summary>
    public static void AddAgent(WebApplicationBuilder builder, string listen, Membership membership, string name)
    {
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            AllowSharedConnections(kestrel.Limits);
            kestrel.Listen(IPEndPoint.Parse(listen), options =>
            {
                options.Protocols = HttpProtocols.Http1AndHttp2;
                options.UseHttps(new TlsHandshakeCallbackOptions { OnConnection = _ => ValueTask.FromResult(Tls(membership)) });
            });
        });
        builder.Services.AddHostedService(provider => ActivatorUtilities.CreateInstance<HeartbeatService>(provider, membership, name));
    }

    /// <summary>Serves a node to its control plane, and nothing to anybody else.</summary>
    public static void MapAgent(WebApplication app, Membership membership, INode node)
    {
        app.UseRouting();
        app.Use((context, next) => CheckAsync(context, next, membership));
        app.MapNode(node);
        app.MapUnknownMethods();
    }

    /// <summary>
    /// Sets limits with which no request on a connection of the control plane, which bounds what it forwards, ends or delays the others: what HTTP/2 answers by ending the
    /// connection is not to come, and the bodies that one connection can hold back are fewer than its window.
    /// </summary>
    private static void AllowSharedConnections(KestrelServerLimits limits)
    {
        limits.UseLongCalls();
        limits.MaxRequestBodySize = null;
        limits.MinRequestBodyDataRate = null;
        limits.MaxRequestHeadersTotalSize = MaxHeaders;
        limits.MaxRequestHeaderCount = MaxHeaderCount;
        limits.Http2.MaxRequestHeaderFieldSize = MaxHeaders;
        limits.Http2.MaxStreamsPerConnection = StreamsPerConnection;
        limits.Http2.InitialStreamWindowSize = StreamWindow;
        limits.Http2.InitialConnectionWindowSize = StreamsPerConnection * StreamWindow;
    }

    // nobody gets as far as a request who is not the control plane
    private static SslServerAuthenticationOptions Tls(Membership membership) => new()
    {
        ServerCertificate = membership.Certificate,
        ClientCertificateRequired = true,
        CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
        RemoteCertificateValidationCallback = (_, certificate, _, _) => membership.Trust.Check(certificate, ClusterRole.ControlPlane, out _) is null,
        AllowTlsResume = false,
    };

    // a connection may last longer than the certificate that it was made with
    private static Task CheckAsync(HttpContext context, RequestDelegate next, Membership membership)
    {
        if (membership.Trust.Check(context.Connection.ClientCertificate, ClusterRole.ControlPlane, out _) is null)
            return next(context);
        context.Response.StatusCode = StatusCodes.Status403Forbidden;
        return Task.CompletedTask;
    }

    /// <summary>Opens the node before anything is listened on, and closes it last.</summary>
    private sealed class NodeService(LocalNode node) : IHostedService
    {
        public Task StartAsync(CancellationToken cancellationToken) => node.OpenAsync(cancellationToken);

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
