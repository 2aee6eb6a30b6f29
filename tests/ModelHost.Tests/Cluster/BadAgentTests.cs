using System.Net;
using System.Net.Http.Json;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using ModelHost.TestKit;

namespace ModelHost.Tests.Cluster;

/// <summary>Members whose agents misbehave: each is found out by itself, and none keeps the others from being served.</summary>
public sealed class BadAgentTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public static TheoryData<string> Misdeeds => ["hangs", "closes", "sends garbage", "says that a gigabyte comes", "is no gRPC", "ends without a status"];

    [Theory]
    [MemberData(nameof(Misdeeds))]
    public async Task Agent_that_misbehaves_is_critical_and_its_neighbour_is_served(string misdeed)
    {
        await using var cluster = await TestCluster.StartAsync(configuration: ["Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1"]);
        await using var neighbour = await cluster.AgentAsync();
        var id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(await cluster.StatusAsync("gpu-1", "online")));
        await cluster.Host.Client.StatusAsync(id, "running");
        using var certificate = cluster.CertificateOf(Guid.NewGuid().ToString("N"));
        await using var bad = await StartAsync(certificate, misdeed);
        using var client = cluster.Client(certificate);
        using var beat = await client.PostAsJsonAsync("/cluster/heartbeat", new { hostname = "bad", port = Port(bad), agent_version = "0.1.0" }, Ct);
        beat.StatusCode.ShouldBe(HttpStatusCode.OK);

        var node = await cluster.StatusAsync("bad", "critical", seconds: 90);
        using var start = await cluster.Host.Client.PostAsJsonAsync("/api/deployments/start", Api.StartRequest(node, port: 8102, model: "demo/other"), Ct);
        using var served = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 2), Ct);
        await cluster.StatusAsync("gpu-1", "online");
        await cluster.Host.Client.StopModelAsync(id);

        start.StatusCode.ShouldBe(HttpStatusCode.Conflict);
        served.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await cluster.NodeAsync("bad"))!.Value.GetProperty("status_detail").GetString().ShouldNotBeNullOrEmpty();
    }

    [Fact]
    public async Task Address_where_nobody_answers_is_no_more_than_a_node_that_is_critical()
    {
        // taken, and never accepted
        using var hole = new TcpListener(IPAddress.Loopback, 0);
        hole.Start(1);
        await using var cluster = await TestCluster.StartAsync(configuration: ["Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1"]);
        await using var neighbour = await cluster.AgentAsync();
        using var certificate = cluster.CertificateOf(Guid.NewGuid().ToString("N"));
        using var client = cluster.Client(certificate);

        using var beat = await client.PostAsJsonAsync("/cluster/heartbeat", new { hostname = "hole", port = ((IPEndPoint)hole.LocalEndpoint).Port, agent_version = "0.1.0" }, Ct);
        await cluster.StatusAsync("hole", "critical", seconds: 90);

        await cluster.StatusAsync("gpu-1", "online");
    }

    private static int Port(WebApplication app) =>
        BindingAddress.Parse(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First()).Port;

    private static async Task<WebApplication> StartAsync(X509Certificate2 certificate, string misdeed)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.Services.Configure<HostOptions>(options => options.ShutdownTimeout = TimeSpan.FromMilliseconds(100));
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0, listen =>
        {
            listen.Protocols = HttpProtocols.Http2;
            listen.UseHttps(new TlsHandshakeCallbackOptions
            {
                OnConnection = _ => ValueTask.FromResult(new SslServerAuthenticationOptions { ServerCertificate = certificate }),
            });
        }));
        var app = builder.Build();
        app.Run(context => AnswerAsync(context, misdeed));
        await app.StartAsync();
        return app;
    }

    private static async Task AnswerAsync(HttpContext context, string misdeed)
    {
        context.Response.ContentType = misdeed == "is no gRPC" ? "text/html" : "application/grpc";
        switch (misdeed)
        {
            case "hangs":
                await Task.Delay(Timeout.Infinite, context.RequestAborted).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                break;
            case "closes":
                await context.Response.Body.WriteAsync(new byte[] { 0, 0, 0 });
                await context.Response.Body.FlushAsync();
                context.Abort();
                break;
            case "sends garbage":
                await context.Response.Body.WriteAsync(new byte[] { 0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff });
                context.Response.AppendTrailer("grpc-status", "0");
                break;
            case "says that a gigabyte comes":
                await context.Response.Body.WriteAsync(new byte[] { 0, 0x40, 0, 0, 0 });
                var much = new byte[1 << 16];
                for (var i = 0; i < 1 << 14 && !context.RequestAborted.IsCancellationRequested; i++)
                    await context.Response.Body.WriteAsync(much, context.RequestAborted);
                break;
            default:
                await context.Response.Body.WriteAsync(new byte[] { 0, 0, 0, 0, 0 });
                break;
        }
    }
}
