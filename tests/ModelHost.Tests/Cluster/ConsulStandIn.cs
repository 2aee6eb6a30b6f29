using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace ModelHost.Tests.Cluster;

/// <summary>
/// Answers <c>GET /v1/catalog/service/:service</c> as Consul documents it: every instance with its fields, an index that grows with each change, questions that wait for one, tokens, and
/// an empty list for a service that nobody has registered. Told to, it fails in the ways that an HTTP server can.
/// </summary>
internal sealed class ConsulStandIn : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly Lock _lock = new();
    private readonly List<JsonObject> _services = [];
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private ulong _index = 41;

    private ConsulStandIn(WebApplication app) => _app = app;

    public string Url => _app.Urls.First().Replace("0.0.0.0", "127.0.0.1", StringComparison.Ordinal);

    /// <summary>The only token that is known, which may read everything; null: access lists are off.</summary>
    public string? Token { get; init; }

    /// <summary>How it fails; empty: it does not.</summary>
    public string Misdeed { get; set; } = "";

    /// <summary>Everything that was asked, path and query.</summary>
    public ConcurrentQueue<string> Asked { get; } = new();

    public static async Task<ConsulStandIn> StartAsync(X509Certificate2? certificate = null, string? token = null)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.Services.Configure<HostOptions>(options => options.ShutdownTimeout = TimeSpan.FromMilliseconds(100));
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0, listen =>
        {
            if (certificate is not null)
                listen.UseHttps(certificate);
        }));
        var app = builder.Build();
        var consul = new ConsulStandIn(app) { Token = token };
        app.MapGet("/v1/catalog/service/{service}", consul.AnswerAsync);
        await app.StartAsync();
        return consul;
    }

    /// <summary>Registers an instance of <c>modelhost-node</c>, or replaces it.</summary>
    public void Register(string node, string address, int port, string? serviceId = null, string serviceAddress = "") => Change(() =>
    {
        _services.RemoveAll(service => service["Node"]!.ToString() == node);
        _services.Add(new JsonObject
        {
            ["ID"] = Guid.NewGuid().ToString(),
            ["Node"] = node,
            ["Address"] = address,
            ["Datacenter"] = "dc1",
            ["TaggedAddresses"] = new JsonObject { ["lan"] = address, ["wan"] = address },
            ["NodeMeta"] = new JsonObject { ["consul-network-segment"] = "" },
            ["ServiceKind"] = "",
            ["ServiceID"] = serviceId ?? "modelhost-node",
            ["ServiceName"] = "modelhost-node",
            ["ServiceTags"] = new JsonArray("gpu"),
            ["ServiceAddress"] = serviceAddress,
            ["ServiceWeights"] = new JsonObject { ["Passing"] = 1, ["Warning"] = 1 },
            ["ServiceMeta"] = new JsonObject(),
            ["ServicePort"] = port,
            ["ServiceEnableTagOverride"] = false,
            ["ServiceProxy"] = new JsonObject { ["Mode"] = "" },
            ["ServiceConnect"] = new JsonObject(),
            ["CreateIndex"] = _index,
            ["ModifyIndex"] = _index,
        });
    });

    /// <summary>Takes all instances of a machine away.</summary>
    public void Deregister(string node) => Change(() => _services.RemoveAll(service => service["Node"]!.ToString() == node));

    /// <summary>Begins with a low index again, as after a restore of Consul's own state.</summary>
    public void Restore() => Change(() => _index = 3);

    public ValueTask DisposeAsync() => _app.DisposeAsync();

    private void Change(Action change)
    {
        TaskCompletionSource waiting;
        lock (_lock)
        {
            _index++;
            change();
            (waiting, _changed) = (_changed, new(TaskCreationOptions.RunContinuationsAsynchronously));
        }
        waiting.SetResult();
    }

    private async Task AnswerAsync(HttpContext context, string service)
    {
        Task changed;
        lock (_lock)
            changed = _changed.Task; // whoever sees that it was asked may change something before it is waited for
        Asked.Enqueue(context.Request.Path + context.Request.QueryString);
        if (Token is not null && context.Request.Headers["X-Consul-Token"] is not [{ } shown] && Token.Length > 0)
            context.Response.Headers["X-Consul-Results-Filtered-By-ACLs"] = "true"; // the anonymous token may see nothing
        else if (Token is not null && context.Request.Headers["X-Consul-Token"] != Token)
            await TextAsync(context, 403, "ACL not found");
        if (context.Response.HasStarted || await FailAsync(context))
            return;
        if (context.Request.Query["index"] is [{ } index])
            await BlockAsync(ulong.Parse(index, CultureInfo.InvariantCulture), context.Request.Query["wait"].ToString(), changed, context.RequestAborted);
        string body;
        lock (_lock)
        {
            context.Response.Headers["X-Consul-Index"] = _index.ToString(CultureInfo.InvariantCulture);
            var isHidden = context.Response.Headers.ContainsKey("X-Consul-Results-Filtered-By-ACLs");
            body = new JsonArray([.. service == "modelhost-node" && !isHidden ? _services.Select(s => s.DeepClone()) : []]).ToJsonString();
        }
        context.Response.Headers["X-Consul-Knownleader"] = "true";
        context.Response.Headers["X-Consul-Lastcontact"] = "0";
        context.Response.ContentType = "application/json";
        await context.Response.WriteAsync(body, context.RequestAborted);
    }

    /// <summary>Waits for an index above the given one, as long as was asked for and a sixteenth.</summary>
    private async Task BlockAsync(ulong index, string wait, Task changed, CancellationToken cancellationToken)
    {
        var longest = TimeSpan.FromSeconds(int.Parse(wait.TrimEnd('s'), CultureInfo.InvariantCulture) * 17.0 / 16);
        var until = TimeProvider.System.GetTimestamp() + (long)(longest.TotalSeconds * TimeProvider.System.TimestampFrequency);
        while (true)
        {
            lock (_lock)
            {
                if (_index > index || (_index < index && changed.IsCompleted))
                    return;
                if (changed.IsCompleted)
                    changed = _changed.Task;
            }
            var left = TimeProvider.System.GetElapsedTime(TimeProvider.System.GetTimestamp(), until);
            if (left <= TimeSpan.Zero)
                return;
            await Task.WhenAny(changed, Task.Delay(left, cancellationToken));
            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    private async Task<bool> FailAsync(HttpContext context)
    {
        switch (Misdeed)
        {
            case "":
                return false;
            case "answers 500":
                await TextAsync(context, 500, "rpc error making call: No cluster leader");
                break;
            case "sends garbage":
                await TextAsync(context, 200, "<html>it works</html>");
                break;
            case "sends another JSON":
                await TextAsync(context, 200, """{"Node":"gpu-1"}""");
                break;
            case "sends entries of another form":
                await TextAsync(context, 200, """[{"Node":7,"ServicePort":"many"}]""");
                break;
            case "redirects":
                context.Response.Redirect("/v1/catalog/service/elsewhere");
                break;
            case "closes":
                context.Abort();
                break;
            case "hangs":
                await Task.Delay(Timeout.Infinite, context.RequestAborted).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                break;
            default:
                var much = new byte[1 << 16];
                Array.Fill(much, (byte)' ');
                for (var i = 0; i < 1 << 14 && !context.RequestAborted.IsCancellationRequested; i++)
                    await context.Response.Body.WriteAsync(much, context.RequestAborted);
                break;
        }
        return true;
    }

    private static Task TextAsync(HttpContext context, int status, string text)
    {
        context.Response.StatusCode = status;
        return context.Response.WriteAsync(text);
    }
}
