using System.Collections.Frozen;
using System.Net;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;
using ModelHost.Agent.Http;
using ModelHost.Core.Routing;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Agent.Proxy;

/// <summary>
/// The way of a request to a public port: who asks, for what, and on to the engine. What the gateway forwards to engines passes, by its path there or at
/// the engine, and the list of models; nothing else of an engine is reached.
/// </summary>
internal sealed partial class DirectRequests(
    DirectAccess access, NodeOptions options, IHttpForwarder forwarder, DirectMeters meters, TimeProvider time, ILogger logger) : IDisposable
{
    private const string OtherRoute = "_other";
    private const string RetryAfterSeconds = "2";

    // by the path as it has to stand in the request, byte for byte: one that is written in another way is another one
    private static readonly FrozenDictionary<string, string> EnginePaths = GatewayRoutes.All
        .SelectMany(route => ((string[])[route.PublicPath, route.EnginePath]).Distinct().Select(path => (path, route.EnginePath)))
        .DistinctBy(pair => pair.path).ToFrozenDictionary(pair => pair.path, pair => pair.EnginePath, StringComparer.Ordinal);

    private static readonly ForwarderRequestConfig Config = new()
    {
        // of silence, not of length; a model that has a long queue takes long
        ActivityTimeout = TimeSpan.FromMinutes(10),
        Version = HttpVersion.Version11,
        VersionPolicy = HttpVersionPolicy.RequestVersionExact,
    };

    private readonly HttpMessageInvoker _engines = EngineHttp.Invoker(EngineHttp.ConnectTimeout);
    private readonly bool _isLoopback = IPAddress.TryParse(options.DirectListen, out var address) && IPAddress.IsLoopback(address);

    /// <summary>The requests under way.</summary>
    public RequestsUnderWay UnderWay { get; } = new();

    /// <summary>Whether new requests are refused because the process ends.</summary>
    public bool IsStopping { get; set; }

    /// <summary>Answers a request.</summary>
    public async Task ServeAsync(HttpContext context, DirectListener listener)
    {
        var (began, route) = (time.GetTimestamp(), OtherRoute);
        try
        {
            context.Response.Headers.XContentTypeOptions = "nosniff";
            if (Refusal(context, listener.Target.Route) is { } refusal)
                await RefuseAsync(context, refusal);
            else if (EnginePath(context, ref route) is not { } enginePath)
                await RefuseAsync(context, (StatusCodes.Status404NotFound, OpenAiErrors.NoRoute(context.Request.Method, RawPath(context))));
            else
                await ForwardAsync(context, listener, enginePath);
        }
        catch (Exception e) when (e is OperationCanceledException or IOException && context.RequestAborted.IsCancellationRequested)
        {
            // the client left
        }
#pragma warning disable CA1031 // Kestrel would answer it without a body
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogBroken(e, listener.Target.Route.DeploymentId);
            await OpenAiErrors.WriteAsync(context, StatusCodes.Status500InternalServerError, OpenAiErrors.Internal());
        }
        finally
        {
            var status = context.RequestAborted.IsCancellationRequested && !context.Response.HasStarted ? 499 : context.Response.StatusCode;
            meters.Count(listener.Target.Route.PublicName, route, status, time.GetElapsedTime(began));
        }
    }

    public void Dispose() => _engines.Dispose();

    private (int Status, OpenAiError Error)? Refusal(HttpContext context, ModelRoute route)
    {
        if (IsStopping)
            return (StatusCodes.Status503ServiceUnavailable, OpenAiErrors.ShuttingDown());
        // Kestrel takes the last one, and whoever stands before it may have taken the first: what follows may be another's request
        if (context.Request.Headers.TransferEncoding.Count > 1)
            return (StatusCodes.Status400BadRequest, OpenAiErrors.BadBody(StatusCodes.Status400BadRequest));
        return options.DirectAccess == DirectAccessMode.Open ? null : access.Refusal(context, route, _isLoopback);
    }

    /// <summary>The engine's path for a request; null: there is none.</summary>
    private static string? EnginePath(HttpContext context, ref string route)
    {
        var path = RawPath(context);
        var found = HttpMethods.IsPost(context.Request.Method) && EnginePaths.TryGetValue(path, out var enginePath) ? enginePath
            : HttpMethods.IsGet(context.Request.Method) && path == GatewayRoutes.Models ? path : null;
        if (found is not null)
            route = path;
        return found;
    }

    // as it was sent: nothing is decoded, joined or left out
    private static string RawPath(HttpContext context) => context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget.Split('?', 2)[0];

    private async Task ForwardAsync(HttpContext context, DirectListener listener, string enginePath)
    {
        if (Enter(listener, out var target) is not { } counter)
        {
            if (target.State == DirectState.Coming)
                context.Response.Headers.RetryAfter = RetryAfterSeconds;
            await RefuseAsync(context, target.State switch
            {
                DirectState.Coming => (StatusCodes.Status503ServiceUnavailable, OpenAiErrors.Loading(target.Route.PublicName)),
                DirectState.Ending => (StatusCodes.Status503ServiceUnavailable, OpenAiErrors.Draining(target.Route.PublicName)),
                DirectState.Down or DirectState.Ready => (StatusCodes.Status502BadGateway, OpenAiErrors.Unreachable(target.Route.PublicName)),
            });
            return;
        }
        try
        {
            var limit = access.MaxRequestBytes;
            if (context.Request.ContentLength > limit)
            {
                await RefuseAsync(context, (StatusCodes.Status413PayloadTooLarge, OpenAiErrors.TooLarge()));
                return;
            }
            context.Features.GetRequiredFeature<IHttpMaxRequestBodySizeFeature>().MaxRequestBodySize = limit;
            context.Request.Headers.Remove("Upgrade"); // nothing is switched to another protocol
            var url = target.Route.EngineUrl!.OriginalString.TrimEnd('/') + enginePath;
            var failure = await forwarder.SendAsync(context, url, _engines, Config, new ToEngine(new Uri(url), target.Route.EngineKey));
            if (failure != ForwarderError.None && !context.RequestAborted.IsCancellationRequested)
                await FailedAsync(context, target.Route, failure);
        }
        finally
        {
            counter.End();
        }
    }

    /// <summary>Counts a request as under way: whoever takes the target away and then finds none under way may end the engine.</summary>
    private RequestCounter? Enter(DirectListener listener, out DirectTarget target)
    {
        while (true)
        {
            target = listener.Target;
            if (target is not { State: DirectState.Ready, Route.EngineUrl: not null })
                return null;
            var counter = UnderWay.Of(target.Route.DeploymentUid);
            counter.Begin();
            if (ReferenceEquals(target, listener.Target))
                return counter;
            counter.End(); // it may have been taken away before the count was seen
        }
    }

    private async Task FailedAsync(HttpContext context, ModelRoute route, ForwarderError failure)
    {
        var exception = context.Features.Get<IForwarderErrorFeature>()?.Exception;
        var bad = FindBadRequest(exception);
        if (bad is not null || failure == ForwarderError.RequestBodyClient)
        {
            var status = bad?.StatusCode ?? StatusCodes.Status400BadRequest;
            await RefuseAsync(context, (status, OpenAiErrors.BadBody(status)));
            return;
        }
        LogFailed(route.DeploymentId, failure, exception?.Message);
        await RefuseAsync(context, failure == ForwarderError.RequestTimedOut
            ? (StatusCodes.Status504GatewayTimeout, OpenAiErrors.Timeout(route.PublicName))
            : (StatusCodes.Status502BadGateway, OpenAiErrors.Unreachable(route.PublicName)));
    }

    // the copying of the body and the waiting for the answer fail together
    private static BadHttpRequestException? FindBadRequest(Exception? exception) => exception switch
    {
        BadHttpRequestException bad => bad,
        AggregateException all => all.InnerExceptions.Select(FindBadRequest).FirstOrDefault(found => found is not null),
        _ => exception?.InnerException is { } inner ? FindBadRequest(inner) : null,
    };

    private Task RefuseAsync(HttpContext context, (int Status, OpenAiError Error) refusal)
    {
        if (!context.Response.HasStarted)
        {
            if (refusal.Status == StatusCodes.Status401Unauthorized)
                context.Response.Headers.WWWAuthenticate = "Bearer";
            // what is left of a body that is too large or in doubt is not read, and who comes while all ends finds the next listener
            if (refusal.Status is StatusCodes.Status400BadRequest or StatusCodes.Status413PayloadTooLarge || IsStopping)
                context.Response.Headers.Connection = "close";
        }
        return OpenAiErrors.WriteAsync(context, refusal.Status, refusal.Error);
    }

    [LoggerMessage(2403, LogLevel.Warning, "The engine of deployment {DeploymentId} failed a direct request: {Failure} ({Reason}).")]
    private partial void LogFailed(int deploymentId, ForwarderError failure, string? reason);

    [LoggerMessage(2404, LogLevel.Error, "A direct request to deployment {DeploymentId} broke off.")]
    private partial void LogBroken(Exception exception, int deploymentId);

    /// <summary>What goes to the engine and what comes back.</summary>
    private sealed class ToEngine(Uri url, string? key) : HttpTransformer
    {
        public override ValueTask TransformRequestAsync(
            HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
        {
            EngineHttp.CopyRequest(httpContext.Request.Headers, proxyRequest, key is { Length: > 0 } ? $"Bearer {key}" : null);
            if (proxyRequest.Content is { } content)
                content.Headers.ContentLength = httpContext.Request.ContentLength;
            proxyRequest.RequestUri = url; // without a query, which has no meaning there
            return ValueTask.CompletedTask;
        }

        public override ValueTask<bool> TransformResponseAsync(HttpContext httpContext, HttpResponseMessage? proxyResponse, CancellationToken cancellationToken)
        {
            if (proxyResponse is not null)
                EngineHttp.CopyAnswer(proxyResponse, httpContext);
            return ValueTask.FromResult(true);
        }
    }
}
