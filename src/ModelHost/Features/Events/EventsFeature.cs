using System.Globalization;
using Microsoft.Extensions.Options;
using ModelHost.Access;
using ModelHost.Common;

namespace ModelHost.Features.Events;

/// <summary>What has changed, for those inside and for the clients of <c>/ws</c>.</summary>
internal static class EventsFeature
{
    /// <summary>Adds the feed and its clients.</summary>
    public static IServiceCollection AddEvents(this IServiceCollection services)
    {
        services.AddCheckedOptions<EventOptions>(EventOptions.Section);
        return services.AddSingleton<ChangeFeed>().AddSingleton<EventClients>();
    }

    /// <summary>Maps <c>/ws</c>, with and without a slash at its end.</summary>
    public static void MapEvents(this IEndpointRouteBuilder routes)
    {
        var options = routes.ServiceProvider.GetRequiredService<IOptions<EventOptions>>().Value;
        // for this route alone: every other request would pay for it
        var sockets = routes.CreateApplicationBuilder();
        sockets.UseWebSockets(new WebSocketOptions { KeepAliveInterval = options.PingInterval, KeepAliveTimeout = options.PingTimeout });
        sockets.Run(routes.ServiceProvider.GetRequiredService<EventClients>().ServeAsync);
        var serve = sockets.Build();
        // HTTP/1.1 asks by GET, HTTP/2 by CONNECT (RFC 8441), which an OpenAPI document has no word for
        routes.MapMethods("/ws", [HttpMethods.Connect], serve).AdminSocketOnly().DisableHttpMetrics().ExcludeFromDescription();
        routes.MapGet("/ws", serve).AdminSocketOnly().DisableHttpMetrics()
            .WithMetadata(serve.Method) // what the document knows routes by
            .WithName("WatchChanges").WithTags("Events").WithSummary("Open a WebSocket that tells what has changed.")
            .WithDescription("Messages are `deployments_changed` (with `ids`, or without: any), `nodes_changed`, `settings_changed` and `api_keys_changed`; read the resource again to see the change.")
            .WithMetadata(new ProducesResponseTypeMetadata(StatusCodes.Status101SwitchingProtocols, typeof(void)))
            .ProducesProblem(StatusCodes.Status403Forbidden).ProducesProblem(StatusCodes.Status426UpgradeRequired).ProducesProblem(StatusCodes.Status503ServiceUnavailable);
    }
}

/// <summary>Lets clients of <c>/ws</c> in, and counts them.</summary>
internal sealed partial class EventClients(
    ChangeFeed feed, IOptions<EventOptions> options, IHostApplicationLifetime lifetime, TimeProvider time, ILogger<EventClients> logger)
{
    private const int RetryAfterSeconds = 30;
    private int _count;

    /// <summary>Clients that are connected now.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>Serves one client until its end.</summary>
    public async Task ServeAsync(HttpContext context)
    {
        if (!context.WebSockets.IsWebSocketRequest)
        {
            context.Response.Headers.Upgrade = "websocket";
            await Problems.WriteAsync(context, StatusCodes.Status426UpgradeRequired, "events.websocket_needed", "This route speaks WebSocket alone.");
            return;
        }
        try
        {
            if (Interlocked.Increment(ref _count) > options.Value.MaxClients)
            {
                context.Response.Headers.RetryAfter = RetryAfterSeconds.ToString(CultureInfo.InvariantCulture);
                await Problems.WriteAsync(context, StatusCodes.Status503ServiceUnavailable, "events.too_many_clients", $"There are {options.Value.MaxClients} clients already.");
                return;
            }
            // from before the handshake is answered: what changes right after it is told
            using var changes = feed.Subscribe(options.Value.Backlog);
            using var socket = await context.WebSockets.AcceptWebSocketAsync();
            if (await new EventClient(socket, changes, options.Value, time).RunAsync(lifetime.ApplicationStopping))
                LogDropped(context.Connection.RemoteIpAddress);
        }
        finally
        {
            Interlocked.Decrement(ref _count);
        }
    }

    [LoggerMessage(1451, LogLevel.Information, "A client of /ws at {Address} was dropped: it did not take what was sent to it.")]
    private partial void LogDropped(System.Net.IPAddress? address);
}
