using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Gateway;
using ModelHost.TestKit;

namespace ModelHost.Tests.Gateway;

/// <summary>An engine that answers as a test says, routed to under a name.</summary>
internal sealed class StandInEngine : IAsyncDisposable
{
    /// <summary>The key that its run has.</summary>
    public const string Key = "key-of-the-run";

    private readonly WebApplication _app;
    private int _requests;

    private StandInEngine(WebApplication app) => _app = app;

    /// <summary>Requests so far.</summary>
    public int Requests => _requests;

    /// <summary>Starts one and routes <paramref name="model"/> to it.</summary>
    /// <param name="host">Who routes.</param>
    /// <param name="answer">What it does.</param>
    /// <param name="model">The name.</param>
    /// <param name="headers">How its headers are written; null: as they have to be, in ASCII.</param>
    public static async Task<StandInEngine> StartAsync(ControlPlane host, RequestDelegate answer, string model = "m", Encoding? headers = null)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MaxRequestBodySize = null;
            if (headers is not null)
                kestrel.ResponseHeaderEncodingSelector = _ => headers;
        });
        var app = builder.Build();
        var engine = new StandInEngine(app);
        app.Run(context =>
        {
            Interlocked.Increment(ref engine._requests);
            return answer(context);
        });
        await app.StartAsync();
        var routes = host.Services.GetRequiredService<RouteSource>();
        routes.Publish(-1,
            [new ModelRoute(-1, DeploymentStatus.Running, null, model, [], "tests", DateTimeOffset.UnixEpoch, new Uri(app.Urls.First()), Key) { DeploymentUid = "stand-in" }], routes.Mark());
        return engine;
    }

    public async ValueTask DisposeAsync() => await _app.DisposeAsync();
}
