using System.Collections.Frozen;
using System.Net;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;
using ModelHost.Agent.Http;
using ModelHost.Agent.Metering;
using ModelHost.Core.Routing;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Agent.Proxy;

/// <summary>
/// The way of a request to a public port: who asks, for what, and on to the engine. What the gateway forwards to engines passes, by its path there or at
/// the engine, and the list of models; nothing else of an engine is reached.
/// </summary>
internal sealed partial class DirectRequests(
    DirectAccess access, DirectJournal journal, NodeOptions options, IHttpForwarder forwarder, DirectMeters meters, TimeProvider time, ILogger logger) : IDisposable
{
    private const string OtherRoute = "_other";
    private const string RetryAfterSeconds = "2";

    // by the path as it has to stand in the request, byte for byte: one that is written in another way is another one
    private static readonly FrozenDictionary<string, GatewayRoute> Routes = GatewayRoutes.All
        .SelectMany(route => ((string[])[route.PublicPath, route.EnginePath]).Distinct().Select(path => (path, route)))
        .DistinctBy(pair => pair.path).ToFrozenDictionary(pair => pair.path, pair => pair.route, StringComparer.Ordinal);

    // options of a stream are read whole; what is longer is none
    private const int LongestOptions = 8 * 1024 * 1024;

    // not of length; a model that has a long queue takes long
    private static readonly TimeSpan Silence = TimeSpan.FromMinutes(10);

    private static readonly ForwarderRequestConfig Config = new()
    {
        // later than the end of a stream in which nothing comes, which is told to its client
        ActivityTimeout = Silence + TimeSpan.FromMinutes(1),
        Version = HttpVersion.Version11,
        VersionPolicy = HttpVersionPolicy.RequestVersionExact,
    };

    private readonly CallDeadlines _deadlines = new();
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
            var path = RawPath(context);
            if (Refusal(context, listener.Target.Route, out var caller) is { } refusal)
                await RefuseAsync(context, refusal);
            else if (HttpMethods.IsPost(context.Request.Method) && Routes.TryGetValue(path, out var kind))
                await ForwardAsync(context, listener, route = path, (kind, caller));
            else if (HttpMethods.IsGet(context.Request.Method) && path == GatewayRoutes.Models)
                await ForwardAsync(context, listener, route = path, null);
            else
                await RefuseAsync(context, (StatusCodes.Status404NotFound, OpenAiErrors.NoRoute(context.Request.Method, path)));
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

    private (int Status, OpenAiError Error)? Refusal(HttpContext context, ModelRoute route, out DirectCaller caller)
    {
        caller = default;
        if (IsStopping)
            return (StatusCodes.Status503ServiceUnavailable, OpenAiErrors.ShuttingDown());
        // Kestrel takes the last one, and whoever stands before it may have taken the first: what follows may be another's request
        if (context.Request.Headers.TransferEncoding.Count > 1)
            return (StatusCodes.Status400BadRequest, OpenAiErrors.BadBody(StatusCodes.Status400BadRequest));
        if (options.DirectAccess != DirectAccessMode.Open)
            return access.Refusal(context, route, _isLoopback, out caller);
        caller = access.Caller(context);
        return null;
    }

    // as it was sent: nothing is decoded, joined or left out
    private static string RawPath(HttpContext context) => context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget.Split('?', 2)[0];

    /// <summary>Forwards a request.</summary>
    /// <param name="context">The request.</param>
    /// <param name="listener">Where it came in.</param>
    /// <param name="path">Its path.</param>
    /// <param name="metered">The route that is counted, and for whom; null: nothing is used by it.</param>
    private async Task ForwardAsync(HttpContext context, DirectListener listener, string path, (GatewayRoute Kind, DirectCaller Caller)? metered)
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
            if (metered is not { } call)
                await SendAsync(context, target, path, null, null);
            else if (call.Kind.CountsOnRequest)
                await SendReadAsync(context, target, call.Kind, call.Caller);
            else
                await SendMeteredAsync(context, target, call.Kind, call.Caller, null);
        }
        finally
        {
            counter.End();
        }
    }

    /// <summary>Sends a request whose body is looked at, since its stream tells its count only to those who ask for it.</summary>
    private async Task SendReadAsync(HttpContext context, DirectTarget target, GatewayRoute kind, DirectCaller caller)
    {
        if (!context.Request.HasJsonContentType())
        {
            await RefuseAsync(context, (StatusCodes.Status415UnsupportedMediaType, OpenAiErrors.NotJson()));
            return;
        }
        RequestBody? body;
        try
        {
            (body, var status, var error) = await RequestBody.ReadAsync(context.Request.Body, context.Request.ContentLength, LongestOptions,
                context.RequestAborted, new ModelScanner(countsOnRequest: true, needsModel: false));
            if (body is null)
            {
                await RefuseAsync(context, (status, error!));
                return;
            }
        }
        catch (IOException e) when (!context.RequestAborted.IsCancellationRequested)
        {
            // not every fault of a body is told as a bad request: a chunk longer than numbers go is not
            await RefuseAsync(context, Fault(e) ?? (StatusCodes.Status400BadRequest, OpenAiErrors.BadBody(StatusCodes.Status400BadRequest)));
            return;
        }
        await using (body)
        {
            body.AskForUsage();
            context.Request.Body = body;
            await SendMeteredAsync(context, target, kind, caller, body);
        }
    }

    private async Task SendMeteredAsync(HttpContext context, DirectTarget target, GatewayRoute kind, DirectCaller caller, RequestBody? body)
    {
        var call = new MeteredCall(kind, target.Route, body, _deadlines);
        var isPassed = false;
        try
        {
            isPassed = await SendAsync(context, target, kind.EnginePath, call, body);
        }
        finally
        {
            journal.Add(target.Route.DeploymentUid, caller, call.End(isPassed, context.Response.StatusCode));
        }
    }

    /// <returns>Whether the answer was passed on to what came as its end.</returns>
    private async Task<bool> SendAsync(HttpContext context, DirectTarget target, string path, MeteredCall? call, RequestBody? body)
    {
        var url = target.Route.EngineUrl!.OriginalString.TrimEnd('/') + path;
        var failure = await forwarder.SendAsync(context, url, _engines, Config, new ToEngine(new Uri(url), target.Route.EngineKey, call, body));
        if (failure != ForwarderError.None && !context.RequestAborted.IsCancellationRequested)
            await FailedAsync(context, target.Route, failure);
        else if (call is { IsBroken: true })
            LogFailed(target.Route.DeploymentId, failure, "it broke off a stream");
        return failure == ForwarderError.None;
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
        if (Fault(exception) is { } fault)
        {
            await RefuseAsync(context, fault);
            return;
        }
        if (failure == ForwarderError.RequestBodyClient)
        {
            await RefuseAsync(context, (StatusCodes.Status400BadRequest, OpenAiErrors.BadBody(StatusCodes.Status400BadRequest)));
            return;
        }
        LogFailed(route.DeploymentId, failure, exception?.Message);
        await RefuseAsync(context, failure == ForwarderError.RequestTimedOut
            ? (StatusCodes.Status504GatewayTimeout, OpenAiErrors.Timeout(route.PublicName))
            : (StatusCodes.Status502BadGateway, OpenAiErrors.Unreachable(route.PublicName)));
    }

    /// <summary>What is wrong with the body of a request that failed so; null: nothing is known.</summary>
    /// <remarks>The copying of the body and the waiting for the answer fail together.</remarks>
    private static (int Status, OpenAiError Error)? Fault(Exception? exception) => exception switch
    {
        MalformedBodyException malformed => (StatusCodes.Status400BadRequest, malformed.Error),
        BadHttpRequestException bad => (bad.StatusCode, OpenAiErrors.BadBody(bad.StatusCode)),
        AggregateException all => all.InnerExceptions.Select(Fault).FirstOrDefault(found => found is not null),
        _ => exception?.InnerException is { } inner ? Fault(inner) : null,
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
    private sealed class ToEngine(Uri url, string? key, MeteredCall? call, RequestBody? body) : HttpTransformer
    {
        public override ValueTask TransformRequestAsync(
            HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
        {
            EngineHttp.CopyRequest(httpContext.Request.Headers, proxyRequest, key is { Length: > 0 } ? $"Bearer {key}" : null);
            if (proxyRequest.Content is { } content)
                content.Headers.ContentLength = body?.KnownLength ?? (body is { MayGrow: true } ? null : httpContext.Request.ContentLength);
            proxyRequest.RequestUri = url; // without a query, which has no meaning there
            return ValueTask.CompletedTask;
        }

        public override ValueTask<bool> TransformResponseAsync(HttpContext httpContext, HttpResponseMessage? proxyResponse, CancellationToken cancellationToken)
        {
            if (proxyResponse is null)
                return ValueTask.FromResult(true);
            if (call is null)
                EngineHttp.CopyAnswer(proxyResponse, httpContext);
            else
                call.Pass(proxyResponse, httpContext, Silence);
            return ValueTask.FromResult(true);
        }
    }
}
