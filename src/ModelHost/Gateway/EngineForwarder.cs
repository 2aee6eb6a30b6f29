using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using Microsoft.Extensions.Options;
using Microsoft.Net.Http.Headers;
using ModelHost.Access;
using ModelHost.Agent.Http;
using ModelHost.Agent.Metering;
using ModelHost.Cluster;
using ModelHost.Core.Backends;
using ModelHost.Core.Routing;
using ModelHost.Features.Settings;
using ModelHost.Features.Usage;
using ModelHost.Gateway.Grpc;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Gateway;

/// <summary>
/// The one path of a request through <c>/v1</c>: read the model, look the route up, forward the bytes as they came. No database, and
/// nothing re-serialised.
/// </summary>
internal sealed partial class EngineForwarder : IDisposable
{
    private readonly RouteSource _routes;
    private readonly IHttpForwarder _forwarder;
    private readonly GatewayOptions _options;
    private readonly LiveSettings _settings;
    private readonly GatewayMeters _meters;
    private readonly UsageBook _usage;
    private readonly GatewayDrain _drain;
    private readonly GrpcAdapter _adapter;
    private readonly HeldRequests _held;
    private readonly TimeProvider _time;
    private readonly ILogger<EngineForwarder> _logger;
    private readonly HttpMessageInvoker _engines;
    private readonly HttpMessageInvoker _agents;
    private readonly CallDeadlines _deadlines = new();
    // the deadlines of a call are its own: YARP's one knows no first byte, and cannot end a stream in an event
    private static readonly ForwarderRequestConfig s_toEngine = new()
    {
        ActivityTimeout = Timeout.InfiniteTimeSpan,
        Version = HttpVersion.Version11,
        VersionPolicy = HttpVersionPolicy.RequestVersionExact,
    };
    // many requests share a connection, and its handshake; whoever stands between and speaks no HTTP/2 is spoken to as engines are
    private static readonly ForwarderRequestConfig s_toAgent = s_toEngine with { Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionOrLower };
    private readonly ConditionalWeakTable<ModelRoute, ToEngine> _transformers = [];

    public EngineForwarder(
        RouteSource routes, IHttpForwarder forwarder, IOptions<GatewayOptions> options, LiveSettings settings, GatewayMeters meters, UsageBook usage,
        GatewayDrain drain, GrpcAdapter adapter, HeldRequests held, NodeLinks links, TimeProvider time, ILogger<EngineForwarder> logger)
    {
        (_routes, _forwarder, _options, _settings, _meters) = (routes, forwarder, options.Value, settings, meters);
        (_usage, _drain, _adapter, _held, _time, _logger) = (usage, drain, adapter, held, time, logger);
        _engines = EngineHttp.Invoker(_options.ConnectTimeout);
        _agents = EngineHttp.Invoker(links.Handler(), _options.ConnectTimeout);
    }

    /// <summary>Forwards a request to the engine that serves its model, or answers why not.</summary>
    public async Task ForwardAsync(HttpContext context)
    {
        var began = _time.GetTimestamp();
        var model = GatewayMeters.NoModel;
        _drain.Begin();
        try
        {
            model = await ForwardCoreAsync(context);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // the client left while its body was read
        }
        catch (IOException e) when (!context.Response.HasStarted)
        {
            await RefuseBadBodyAsync(context, e);
        }
        finally
        {
            _drain.End();
            _meters.Count(context, model, _time.GetElapsedTime(began));
        }
    }

    /// <returns>The model label of the request: a known name, or <see cref="GatewayMeters.NoModel"/>.</returns>
    private async Task<string> ForwardCoreAsync(HttpContext context)
    {
        var kind = context.GetEndpoint()!.Metadata.GetMetadata<GatewayRoute>()!;
        if (Scanner(kind, context.Request) is not { } scanner)
        {
            await OpenAiErrors.WriteAsync(context, StatusCodes.Status415UnsupportedMediaType, kind.Body == BodyKind.Json ? OpenAiErrors.NotJson() : OpenAiErrors.NotForm());
            return GatewayMeters.NoModel;
        }
        var (body, status, error) = await RequestBody.ReadAsync(
            context.Request.Body, context.Request.ContentLength, _options.MaxModelOffset, context.RequestAborted, scanner);
        if (body is null)
        {
            await RefuseBodyAsync(context, status, error!);
            return GatewayMeters.NoModel;
        }
        await using (body)
        {
            var toEngine = Enter(body.Model, context.RouteScope(), out var answer);
            if (toEngine is null && answer.Miss == RouteMiss.Loading)
            {
                if (await _held.WaitAsync(body.Model, context.RouteScope(), context.RequestAborted) is { } refusal)
                {
                    await RefuseAsync(context, refusal.Error, refusal.RetryAfter);
                    return body.Model;
                }
                toEngine = Enter(body.Model, context.RouteScope(), out answer);
            }
            if (toEngine is null)
            {
                await RefuseAsync(context, body.Model, answer);
                return answer.Miss == RouteMiss.NotFound ? GatewayMeters.NoModel : body.Model;
            }
            try
            {
                if (answer.Route!.Protocol == BackendCatalogue.Grpc)
                {
                    await _adapter.ServeAsync(context, kind, answer.Route, body);
                    return answer.Route.PublicName;
                }
                if (kind.CountsOnRequest)
                    body.AskForUsage();
                else if (kind.TakesContent)
                    body.Rename("content"u8, "prompt", "messages"u8);
                context.Request.Body = body;
                await SendAsync(context, new MeteredCall(kind, answer.Route!, body, _deadlines), body, toEngine);
                return answer.Route!.PublicName;
            }
            finally
            {
                toEngine.Requests.End();
            }
        }
    }

    /// <summary>Finds the engine, and counts the request as under way on it: whoever takes a route away and then finds none under way on it may end the engine.</summary>
    private ToEngine? Enter(string model, RouteScope? scope, out RouteAnswer answer)
    {
        while (true)
        {
            var table = _routes.Current;
            answer = table.Find(model, scope);
            if (answer.Route is not { } route)
                return null;
            var toEngine = _transformers.GetValue(route, found => new ToEngine(found, this));
            toEngine.Requests.Begin();
            if (ReferenceEquals(table, _routes.Current))
                return toEngine;
            toEngine.Requests.End(); // it may have been taken away before the count was seen
        }
    }

    private static BodyScanner? Scanner(GatewayRoute kind, HttpRequest request)
    {
        if (kind.Body == BodyKind.Json)
            return request.HasJsonContentType() ? new ModelScanner(kind.CountsOnRequest) : null;
        return MediaTypeHeaderValue.TryParse(request.ContentType, out var type) && type.MediaType.Equals("multipart/form-data", StringComparison.OrdinalIgnoreCase)
            && HeaderUtilities.RemoveQuotes(type.Boundary) is { Length: > 0 and <= MultipartScanner.LongestBoundary } boundary
            ? new MultipartScanner(boundary.ToString()) : null;
    }

    private async Task SendAsync(HttpContext context, MeteredCall call, RequestBody body, ToEngine toEngine)
    {
        body.Call = call; // found by way of the body, which costs less than by a feature
        call.Deadline = _deadlines.Get();
        using var over = _drain.Over.UnsafeRegister(static late => ((HttpContext)late!).Abort(), context);
        var isPassed = false;
        try
        {
            call.Deadline.CancelAfter(body.Streams ? _options.FirstByteTimeout : TimeSpan.FromSeconds(_settings.Current.GatewayTimeoutSeconds));
            var failure = await _forwarder.SendAsync(context, toEngine.Url, toEngine.Http, toEngine.Config, toEngine, call.Deadline.Token);
            isPassed = failure == ForwarderError.None;
            if (failure != ForwarderError.None)
                await FailedAsync(context, call.Route, failure, isLate: failure == ForwarderError.RequestTimedOut || call.Deadline.IsCancellationRequested);
            else if (call.IsBroken)
                LogBroken(call.Route.DeploymentId);
        }
        finally
        {
            _usage.Add(UsageCaller.Of(context), call.Route, call.End(isPassed, context.Response.StatusCode));
        }
    }

    // not every fault of a body is told as a bad request: a chunk longer than numbers go is not
    private static Task RefuseBadBodyAsync(HttpContext context, Exception? exception)
    {
        var status = (exception as BadHttpRequestException)?.StatusCode ?? StatusCodes.Status400BadRequest;
        return RefuseBodyAsync(context, status, OpenAiErrors.BadBody(status));
    }

    private static Task RefuseBodyAsync(HttpContext context, int status, OpenAiError error)
    {
        // what is left of a body that is too large is not read: the connection ends with the answer
        if (status == StatusCodes.Status413PayloadTooLarge && !context.Response.HasStarted)
            context.Response.Headers.Connection = "close";
        return OpenAiErrors.WriteAsync(context, status, error);
    }

    private Task RefuseAsync(HttpContext context, string model, RouteAnswer answer)
    {
        if (answer.Miss == RouteMiss.Loading)
            return RefuseAsync(context, OpenAiErrors.Loading(model), _options.RetryAfter);
        var (status, error) = answer.Miss switch
        {
            RouteMiss.NotFound => (StatusCodes.Status404NotFound, OpenAiErrors.NotFound(model, answer.Candidates)),
            RouteMiss.Forbidden => (StatusCodes.Status403Forbidden, OpenAiErrors.ModelForbidden(model)),
            RouteMiss.Ambiguous => (StatusCodes.Status400BadRequest, OpenAiErrors.Ambiguous(model, answer.Candidates)),
            RouteMiss.Loading => (StatusCodes.Status503ServiceUnavailable, OpenAiErrors.Loading(model)),
            RouteMiss.Unreachable => (StatusCodes.Status502BadGateway, OpenAiErrors.Unreachable(model)),
        };
        return OpenAiErrors.WriteAsync(context, status, error);
    }

    private static Task RefuseAsync(HttpContext context, OpenAiError error, TimeSpan? retryAfter)
    {
        if (retryAfter is { } wait)
            context.Response.Headers.RetryAfter = ((int)Math.Ceiling(wait.TotalSeconds)).ToString(CultureInfo.InvariantCulture);
        return OpenAiErrors.WriteAsync(context, StatusCodes.Status503ServiceUnavailable, error);
    }

    private async Task FailedAsync(HttpContext context, ModelRoute route, ForwarderError failure, bool isLate)
    {
        if (context.RequestAborted.IsCancellationRequested)
            return;
        var exception = context.GetForwarderErrorFeature()?.Exception;
        if (FindMalformed(exception) is { } malformed)
        {
            await OpenAiErrors.WriteAsync(context, StatusCodes.Status400BadRequest, malformed.Error);
            return;
        }
        if (exception is BadHttpRequestException || failure == ForwarderError.RequestBodyClient)
        {
            await RefuseBadBodyAsync(context, exception);
            return;
        }
        LogFailed(route.DeploymentId, failure, exception?.Message);
        if (isLate)
            await OpenAiErrors.WriteAsync(context, StatusCodes.Status504GatewayTimeout, OpenAiErrors.Timeout(route.PublicName));
        else
            await OpenAiErrors.WriteAsync(context, StatusCodes.Status502BadGateway, OpenAiErrors.Unreachable(route.PublicName));
    }

    /// <summary>Whether nobody has said why there is no answer: an agent that did not reach its engine does not.</summary>
    private static bool Unsaid(HttpResponseMessage answer) => answer.Content.Headers.ContentType is null
        && answer.StatusCode is HttpStatusCode.BadGateway or HttpStatusCode.ServiceUnavailable or HttpStatusCode.GatewayTimeout;

    /// <summary>Words an error that came as a bare status.</summary>
    /// <returns>False: it has its body.</returns>
    private async Task<bool> WordAsync(HttpContext context, ModelRoute route, HttpStatusCode status)
    {
        LogFailed(route.DeploymentId, ForwarderError.Request, $"its node answered {(int)status}");
        if (status == HttpStatusCode.ServiceUnavailable)
            await RefuseAsync(context, OpenAiErrors.Loading(route.PublicName), _options.RetryAfter);
        else
            await OpenAiErrors.WriteAsync(context, (int)status, status == HttpStatusCode.GatewayTimeout ? OpenAiErrors.Timeout(route.PublicName) : OpenAiErrors.Unreachable(route.PublicName));
        return false;
    }

    private static MalformedBodyException? FindMalformed(Exception? exception)
    {
        for (var e = exception; e is not null; e = e.InnerException)
        {
            if (e is MalformedBodyException malformed)
                return malformed;
        }
        return null;
    }

    public void Dispose()
    {
        _engines.Dispose();
        _agents.Dispose();
    }

    [LoggerMessage(1302, LogLevel.Warning, "The engine of deployment {DeploymentId} broke off a stream.")]
    private partial void LogBroken(int deploymentId);

    [LoggerMessage(1301, LogLevel.Warning, "The engine of deployment {DeploymentId} failed a request: {Failure} ({Reason}).")]
    private partial void LogFailed(int deploymentId, ForwarderError failure, string? reason);

    /// <summary>What goes to the engine and what comes back: only headers that either side has a use for.</summary>
    private sealed class ToEngine(ModelRoute route, EngineForwarder forwarder) : HttpTransformer
    {
        private readonly string? _authorization = route.EngineKey is { Length: > 0 } key ? $"Bearer {key}" : null;
        // by the engine's own path for a route: few, whatever the requests write, and without a query, which has no meaning there
        private readonly ConcurrentDictionary<string, Uri> _urls = new();

        /// <summary>The requests under way on it.</summary>
        public RequestCounter Requests { get; } = forwarder._routes.Requests.Of(route.DeploymentUid);

        /// <summary>Where the engine is.</summary>
        public string Url { get; } = route.EngineUrl!.OriginalString.TrimEnd('/');

        /// <summary>The connections by which it is reached.</summary>
        public HttpMessageInvoker Http { get; } = NodeLinks.IsAgent(route.EngineUrl) ? forwarder._agents : forwarder._engines;

        /// <summary>How it is spoken to on them.</summary>
        public ForwarderRequestConfig Config { get; } = NodeLinks.IsAgent(route.EngineUrl) ? s_toAgent : s_toEngine;

        public override ValueTask TransformRequestAsync(
            HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
        {
            var body = (RequestBody)httpContext.Request.Body;
            EngineHttp.CopyRequest(httpContext.Request.Headers, proxyRequest, _authorization);
            if (proxyRequest.Content is { } content)
                content.Headers.ContentLength = body.KnownLength ?? (body.MayGrow ? null : httpContext.Request.ContentLength);
            proxyRequest.RequestUri = _urls.GetOrAdd(body.Call!.Kind.EnginePath, static (path, url) => new Uri(url + path), Url);
            return ValueTask.CompletedTask;
        }

        public override ValueTask<bool> TransformResponseAsync(
            HttpContext httpContext, HttpResponseMessage? proxyResponse, CancellationToken cancellationToken)
        {
            if (proxyResponse is null)
                return ValueTask.FromResult(true);
            if (Unsaid(proxyResponse))
                return new(forwarder.WordAsync(httpContext, route, proxyResponse.StatusCode));
            var body = (RequestBody)httpContext.Request.Body;
            body.Call!.Pass(proxyResponse, httpContext, forwarder._options.ActivityTimeout);
            if (body.Call is { IsStream: true, Deadline: { } deadline } && !body.Streams)
                deadline.CancelAfter(forwarder._options.FirstByteTimeout); // a stream after all: it may go on
            return ValueTask.FromResult(true);
        }
    }
}
