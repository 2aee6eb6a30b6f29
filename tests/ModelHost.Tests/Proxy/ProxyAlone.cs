using System.Diagnostics.Metrics;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using ModelHost.Agent;
using ModelHost.Agent.Metering;
using ModelHost.Agent.Proxy;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Protocol;
using ModelHost.TestKit;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Tests.Proxy;

/// <summary>The public ports of a node by themselves, with one that leads to an engine which answers as a test says.</summary>
internal sealed class ProxyAlone : IAsyncDisposable
{
    /// <summary>The key that the engine's run has.</summary>
    public const string Key = "key-of-the-run";

    private readonly ServiceProvider _services;
    private readonly WebApplication _engine;
    private int _asked;
    private UsageRequest _booked = new();
    private UsageCount _used;

    public ProxyAlone(TestNode surroundings, DirectAccessMode access = DirectAccessMode.Open, TimeSpan? drain = null)
    {
        _services = new ServiceCollection().AddLogging(logging => logging.AddProvider(Log)).AddMetrics().AddHttpForwarder().BuildServiceProvider();
        var options = new NodeOptions { DirectListen = "127.0.0.1", DirectAccess = access, DrainTimeout = drain ?? TimeSpan.FromSeconds(30) };
        Proxy = new NodeProxy(new NodeIdentity("cluster", "node", surroundings.Data), options, _services.GetRequiredService<IHttpForwarder>(),
            Meters, TimeProvider.System, _services.GetRequiredService<ILoggerFactory>());
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Limits.MaxRequestBodySize = null);
        _engine = builder.Build();
        _engine.Run(context =>
        {
            Interlocked.Increment(ref _asked);
            return Answer(context);
        });
        ((IHost)_engine).Start();
        Port = TestPorts.Free(); // not before the engine has one
        Client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{Port}") };
    }

    public NodeProxy Proxy { get; }

    /// <summary>The public port.</summary>
    public int Port { get; }

    public HttpClient Client { get; }

    /// <summary>Makes what it counts with.</summary>
    public IMeterFactory Meters => _services.GetRequiredService<IMeterFactory>();

    /// <summary>What it logs.</summary>
    public LogLines Log { get; } = new();

    /// <summary>Requests that reached the engine.</summary>
    public int Asked => _asked;

    /// <summary>What the engine does.</summary>
    public RequestDelegate Answer { get; set; } = context => context.Response.WriteAsync("{}", context.RequestAborted);

    /// <summary>Where the engine is in place of the one that answers; null: there.</summary>
    public Uri? Engine { get; set; }

    /// <summary>What was counted so far, all together.</summary>
    public UsageCount Used()
    {
        while (Proxy.Usage.Next(_booked) is { Batch: { } batch } reply)
        {
            _booked = new UsageRequest { Journal = reply.Journal, Booked = batch.Sequence };
            foreach (var entry in batch.Entries)
                _used += new UsageCount(entry.Requests, entry.Aborted, entry.Failed, entry.PromptTokens, entry.CompletionTokens);
        }
        return _used;
    }

    /// <summary>Lets the port lead to the engine.</summary>
    public async Task ServeAsync(DirectState state)
    {
        var route = new ModelRoute(7, DeploymentStatus.Running, null, "m", [], "tests", default, Engine ?? new Uri(_engine.Urls.First()), Key) { DeploymentUid = "uid" };
        (await Proxy.ApplyAsync([new DirectTarget(Port, "run", route, state)])).IsWhole.ShouldBeTrue(Reported().DirectError);
    }

    /// <summary>What a report says of the engine.</summary>
    public Engine Reported()
    {
        var engine = new Engine { RunId = "run", DeploymentUid = "uid" };
        Proxy.Report(engine);
        return engine;
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await Proxy.DisposeAsync();
        await _engine.DisposeAsync();
        await _services.DisposeAsync();
    }
}
