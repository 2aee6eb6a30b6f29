using System.Net;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.Options;
using ModelHost.Cluster.Discovery;
using ModelHost.Common;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Hosting;

namespace ModelHost.Cluster;

/// <summary>
/// Where nodes join, renew and report: a Kestrel of its own with TLS of the cluster's authority, open when there is somebody to come. It ends after the
/// last request of the control plane.
/// </summary>
internal sealed partial class ClusterListener(
    IOptions<ClusterOptions> options, Lazy<ClusterAuthority> authority, ClusterBook book, RefusedBeats refused, Database database, DataFolder folder, TimeProvider time,
    IServiceProvider services, ILoggerFactory loggers) : IHostedService, IAsyncDisposable
{
    /// <summary>How long a node may have been off and still come back by itself.</summary>
    public static readonly TimeSpan RenewalGrace = TimeSpan.FromDays(30);

    private const long MaxBody = 64 * 1024;
    private readonly SemaphoreSlim _one = new(1);
    private readonly ILogger _logger = loggers.CreateLogger<ClusterListener>();
    private WebApplication? _app;

    /// <summary>The port on which it listens; 0: it does not.</summary>
    public int Port => _app?.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()?.Addresses.FirstOrDefault() is { } address
        ? BindingAddress.Parse(address).Port : 0;

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        await services.GetRequiredService<NodeLinks>().OpenAsync(cancellationToken);
        if (!await IsWantedAsync(cancellationToken))
            return;
        // a port that is taken must not keep models from being served
        if (await OpenAsync(cancellationToken) is { } fault)
            LogClosed(fault);
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        if (_app is not null)
            await _app.StopAsync(cancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        if (_app is not null)
            await _app.DisposeAsync();
        _one.Dispose();
    }

    /// <summary>Opens it, unless it is open.</summary>
    /// <returns>Why it cannot be; null: it is open.</returns>
    public async Task<string?> OpenAsync(CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            if (_app is not null)
                return null;
            var app = Build();
            try
            {
                await app.StartAsync(cancellationToken);
            }
            catch (IOException e)
            {
                await app.DisposeAsync();
                return $"The cluster listener cannot be opened on {options.Value.Listen} (Cluster:Listen): {e.GetBaseException().Message}";
            }
            _app = app;
            LogOpen(options.Value.Listen);
            return null;
        }
        finally
        {
            _one.Release();
        }
    }

    private async Task<bool> IsWantedAsync(CancellationToken cancellationToken)
    {
        if (options.Value.Open || book.Members.Values.Any(member => member.RevokedAt is null))
            return true;
        if (!ClusterAuthority.IsMade(folder))
            return false;
        await using var db = await database.OpenAsync(cancellationToken);
        return await JoinTokenService.AnyAsync(db, time.GetUtcNow(), cancellationToken);
    }

    private WebApplication Build()
    {
        // with nothing of its own: configuration, log and clock are those of the control plane
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory });
        builder.WebHost.UseKestrelCore().UseKestrelHttpsConfiguration();
        builder.Services.AddRoutingCore();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = MaxBody;
            kestrel.Listen(IPEndPoint.Parse(options.Value.Listen), listen =>
            {
                listen.Protocols = HttpProtocols.Http1AndHttp2;
                listen.UseHttps(new TlsHandshakeCallbackOptions { OnConnection = _ => ValueTask.FromResult(Tls()) });
            });
        });
        builder.Services.AddSingleton(loggers);
        builder.Services.ConfigureHttpJsonOptions(json =>
        {
            // a resolver follows the options that it is in, not its own
            json.SerializerOptions.PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower;
            json.SerializerOptions.RespectNullableAnnotations = true;
            json.SerializerOptions.TypeInfoResolverChain.Insert(0, ClusterJson.Default);
        });
        var app = builder.Build();
        app.UseRouting();
        app.Use(CheckAsync);
        var cluster = services.GetRequiredService<ClusterService>();
        var certificate = authority.Value.Certificate.ExportCertificatePem();
        app.MapGet("/cluster/ca", () => TypedResults.Text(certificate)).WithMetadata(ClusterRule.Anybody);
        app.MapPost("/cluster/join", async (JoinRequest request, CancellationToken cancellationToken) => Answer(await cluster.JoinAsync(request, cancellationToken)))
            .WithMetadata(ClusterRule.Anybody); // the token decides
        app.MapPost("/cluster/renew", (RenewRequest request, HttpContext context) => Answer(cluster.Renew(Member(context), request))).WithMetadata(ClusterRule.LateMember);
        app.MapPost("/cluster/heartbeat", async (HeartbeatRequest request, HttpContext context, CancellationToken cancellationToken) =>
            Answer(await cluster.HeardAsync(Member(context), request, context.Connection.RemoteIpAddress ?? IPAddress.None, cancellationToken))).WithMetadata(ClusterRule.Member);
        return app;
    }

    // whose certificate it is, is checked request by request: a refusal says why, and what was revoked since counts no more
    private SslServerAuthenticationOptions Tls() => new()
    {
        ServerCertificate = authority.Value.ControlPlane(),
        ClientCertificateRequired = true,
        CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
        RemoteCertificateValidationCallback = static (_, shown, _, _) => shown is not X509Certificate2 certificate || ClusterName.Read(certificate) is not null,
        AllowTlsResume = false,
    };

    private Task CheckAsync(HttpContext context, RequestDelegate next)
    {
        var rule = context.GetEndpoint()?.Metadata.GetMetadata<ClusterRule>();
        if (rule is null)
        {
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            return Task.CompletedTask;
        }
        if (rule == ClusterRule.Anybody)
            return next(context);
        var shown = context.Connection.ClientCertificate;
        var fault = authority.Value.Trust.Check(shown, out var name, rule.Grace) ?? (name.Role == ClusterRole.Node ? null : "the certificate is not that of a node");
        if (fault is null && (fault = book.Fault(name.NodeId, shown!)) is not null)
            refused.Note(name.NodeId, context.Connection.RemoteIpAddress);
        if (fault is null)
        {
            context.Features.Set(name);
            return next(context);
        }
        LogRefused(name.NodeId, context.Request.Path, fault);
        return RefuseAsync(context, new ClusterRefusal("cluster.certificate_refused", fault));
    }

    private static ClusterName Member(HttpContext context) => context.Features.Get<ClusterName>() ?? throw new InvalidOperationException("the route is open to others than members");

    private static Task RefuseAsync(HttpContext context, ClusterRefusal refusal) =>
        TypedResults.Json(refusal, ClusterJson.Default.ClusterRefusal, statusCode: StatusCodes.Status403Forbidden).ExecuteAsync(context);

    private static IResult Answer<T>(Result<T> result) => result.Match<IResult>(
        value => TypedResults.Ok(value),
        failure => TypedResults.Json(new ClusterRefusal(failure.Code, failure.Field is { } field ? $"{field}: {failure.Detail}" : failure.Detail),
            ClusterJson.Default.ClusterRefusal, statusCode: failure.Kind.Status()));

    /// <summary>Who may use a route of this listener; one without a rule is there for nobody.</summary>
    internal sealed class ClusterRule
    {
        private ClusterRule(TimeSpan grace) => Grace = grace;

        /// <summary>Who reaches the port.</summary>
        public static ClusterRule Anybody { get; } = new(TimeSpan.Zero);

        /// <summary>A node with a valid certificate.</summary>
        public static ClusterRule Member { get; } = new(TimeSpan.Zero);

        /// <summary>A node with a certificate that is valid, or was not long ago.</summary>
        public static ClusterRule LateMember { get; } = new(RenewalGrace);

        /// <summary>How long ago the certificate may have run out.</summary>
        public TimeSpan Grace { get; }
    }

    [LoggerMessage(1411, LogLevel.Information, "Nodes can join on {Address}.")]
    private partial void LogOpen(string address);

    [LoggerMessage(1412, LogLevel.Error, "No node can join or report: {Reason}")]
    private partial void LogClosed(string reason);

    [LoggerMessage(1413, LogLevel.Warning, "A request of {NodeUid} for {Path} was refused: {Reason}.")]
    private partial void LogRefused(string nodeUid, string path, string reason);
}
