using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Runtime.CompilerServices;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.ObjectPool;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Primitives;
using ModelHost.Access;
using ModelHost.Common;
using ModelHost.Core.Routing;
using ModelHost.Features.Settings;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Gateway;

/// <summary>
/// The one path of a request through <c>/v1</c>: read the model, look the route up, forward the bytes as they came. No database, and
/// nothing re-serialised.
/// </summary>
internal sealed partial class EngineForwarder : IDisposable
{
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);
    // vLLM closes idle connections after 5 s: one that is reused later may be closing
    private static readonly TimeSpan IdleTimeout = TimeSpan.FromSeconds(3);

    private readonly RouteSource _routes;
    private readonly IHttpForwarder _forwarder;
    private readonly GatewayOptions _options;
    private readonly LiveSettings _settings;
    private readonly GatewayMeters _meters;
    private readonly TimeProvider _time;
    private readonly ILogger<EngineForwarder> _logger;
    private readonly HttpMessageInvoker _engines;
    private readonly ForwarderRequestConfig _stream;
    private readonly ObjectPool<CancellationTokenSource> _deadlines = new DefaultObjectPoolProvider { MaximumRetained = 256 }.Create(new DeadlinePolicy());
    private volatile WholeCall _whole;
    private readonly ConditionalWeakTable<ModelRoute, ToEngine> _transformers = [];

    public EngineForwarder(
        RouteSource routes, IHttpForwarder forwarder, IOptions<GatewayOptions> options, LiveSettings settings, GatewayMeters meters, TimeProvider time,
        ILogger<EngineForwarder> logger)
    {
        (_routes, _forwarder, _options, _settings, _meters, _time, _logger) = (routes, forwarder, options.Value, settings, meters, time, logger);
        _engines = new HttpMessageInvoker(new SocketsHttpHandler
        {
            UseProxy = false,
            AllowAutoRedirect = false,
            UseCookies = false,
            AutomaticDecompression = DecompressionMethods.None,
            ActivityHeadersPropagator = null,
            ConnectTimeout = ConnectTimeout,
            PooledConnectionIdleTimeout = IdleTimeout,
        });
        _stream = Config(_options.ActivityTimeout);
        _whole = WholeCall.Of(settings.Current.GatewayTimeoutSeconds);
    }

    /// <summary>Forwards a request to the engine that serves its model, or answers why not.</summary>
    public async Task ForwardAsync(HttpContext context)
    {
        var began = _time.GetTimestamp();
        var model = GatewayMeters.NoModel;
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
            _meters.Count(context, model, _time.GetElapsedTime(began));
        }
    }

    /// <returns>The model label of the request: a known name, or <see cref="GatewayMeters.NoModel"/>.</returns>
    private async Task<string> ForwardCoreAsync(HttpContext context)
    {
        if (!context.Request.HasJsonContentType())
        {
            await OpenAiErrors.WriteAsync(context, StatusCodes.Status415UnsupportedMediaType, OpenAiErrors.NotJson());
            return GatewayMeters.NoModel;
        }
        var (body, status, error) = await RequestBody.ReadAsync(
            context.Request.Body, context.Request.ContentLength, _options.MaxModelOffset, context.RequestAborted);
        if (body is null)
        {
            await RefuseBodyAsync(context, status, error!);
            return GatewayMeters.NoModel;
        }
        await using (body)
        {
            var answer = _routes.Current.Find(body.Model, context.RouteScope());
            if (answer.Route is not { } route)
            {
                await RefuseAsync(context, body.Model, answer);
                return answer.Miss == RouteMiss.NotFound ? GatewayMeters.NoModel : body.Model;
            }
            context.Request.Body = body;
            var toEngine = _transformers.GetValue(route, static route => new ToEngine(route));
            var whole = body.Streams ? null : Whole();
            var deadline = whole is null ? null : _deadlines.Get();
            try
            {
                body.Deadline = deadline;
                deadline?.CancelAfter(whole!.Timeout);
                var failure = await _forwarder.SendAsync(context, toEngine.Url, _engines, whole?.Config ?? _stream, toEngine, deadline?.Token ?? CancellationToken.None);
                if (failure != ForwarderError.None)
                    await FailedAsync(context, route, failure, isLate: failure == ForwarderError.RequestTimedOut || deadline is { IsCancellationRequested: true });
            }
            finally
            {
                if (deadline is not null)
                    _deadlines.Return(deadline);
            }
            return route.PublicName;
        }
    }

    /// <summary>How calls that are not streamed are sent, by the setting of now.</summary>
    private WholeCall Whole()
    {
        var (whole, seconds) = (_whole, _settings.Current.GatewayTimeoutSeconds);
        return whole.Timeout.TotalSeconds == seconds ? whole : _whole = WholeCall.Of(seconds);
    }

    private static ForwarderRequestConfig Config(TimeSpan silence) =>
        new() { ActivityTimeout = silence, Version = HttpVersion.Version11, VersionPolicy = HttpVersionPolicy.RequestVersionExact };

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
            context.Response.Headers.RetryAfter = ((int)_options.RetryAfter.TotalSeconds).ToString(CultureInfo.InvariantCulture);
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

    private static MalformedBodyException? FindMalformed(Exception? exception)
    {
        for (var e = exception; e is not null; e = e.InnerException)
        {
            if (e is MalformedBodyException malformed)
                return malformed;
        }
        return null;
    }

    public void Dispose() => _engines.Dispose();

    [LoggerMessage(1301, LogLevel.Warning, "The engine of deployment {DeploymentId} failed a request: {Failure} ({Reason}).")]
    private partial void LogFailed(int deploymentId, ForwarderError failure, string? reason);

    /// <summary>A call that is answered whole: an engine is silent until it has the answer, so that its silence says nothing.</summary>
    private sealed record WholeCall(TimeSpan Timeout, ForwarderRequestConfig Config)
    {
        public static WholeCall Of(int seconds) => new(TimeSpan.FromSeconds(seconds), EngineForwarder.Config(TimeSpan.FromSeconds(seconds)));
    }

    /// <summary>Keeps deadlines that did not come for the next calls: each costs an object, a timer and its registrations.</summary>
    private sealed class DeadlinePolicy : PooledObjectPolicy<CancellationTokenSource>
    {
        public override CancellationTokenSource Create() => new();

        public override bool Return(CancellationTokenSource obj) => obj.TryReset();
    }

    /// <summary>What goes to the engine and what comes back: only headers that either side has a use for.</summary>
    private sealed class ToEngine(ModelRoute route) : HttpTransformer
    {
        private static readonly string[] RequestHeaders = ["Accept", "User-Agent", "X-Request-Id", "traceparent", "tracestate"];
        private static readonly string[] ContentHeaders = ["Content-Type", "Content-Length", "Content-Encoding"];
        private readonly string? _authorization = route.EngineKey is { Length: > 0 } key ? $"Bearer {key}" : null;
        // by the route's own path, which an engine has too: few, whatever the requests write, and without a query, which has no meaning there
        private readonly ConcurrentDictionary<string, Uri> _urls = new();

        /// <summary>Where the engine is.</summary>
        public string Url { get; } = route.EngineUrl!.OriginalString.TrimEnd('/');

        public override ValueTask TransformRequestAsync(
            HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
        {
            var headers = httpContext.Request.Headers;
            foreach (var name in RequestHeaders)
                Add(proxyRequest.Headers, name, headers[name]);
            if (proxyRequest.Content is { } content)
            {
                foreach (var name in ContentHeaders)
                    Add(content.Headers, name, headers[name]);
            }
            var pattern = ((RouteEndpoint)httpContext.GetEndpoint()!).RoutePattern.RawText!;
            proxyRequest.RequestUri = _urls.GetOrAdd(pattern, static (path, url) => new Uri(url + path), Url);
            if (_authorization is not null)
                proxyRequest.Headers.TryAddWithoutValidation("Authorization", _authorization);
            return ValueTask.CompletedTask;
        }

        private static void Add(HttpHeaders to, string name, StringValues values)
        {
            if (values.Count == 1)
                to.TryAddWithoutValidation(name, values.ToString());
            else if (values.Count > 1)
                to.TryAddWithoutValidation(name, values.ToArray());
        }

        public override async ValueTask<bool> TransformResponseAsync(
            HttpContext httpContext, HttpResponseMessage? proxyResponse, CancellationToken cancellationToken)
        {
            if (proxyResponse is null)
                return true;
            await base.TransformResponseAsync(httpContext, proxyResponse, cancellationToken);
            var headers = httpContext.Response.Headers;
            headers.Remove("Server");
            headers.Remove("Set-Cookie");
            if (proxyResponse.Content.Headers.ContentType?.MediaType == "text/event-stream")
            {
                (httpContext.Request.Body as RequestBody)?.Deadline?.CancelAfter(Timeout.InfiniteTimeSpan); // a stream after all: it may go on
                headers.CacheControl = "no-cache";
                headers["X-Accel-Buffering"] = "no"; // nginx in front of us must not hold events back
                httpContext.Features.Get<IHttpResponseBodyFeature>()?.DisableBuffering();
            }
            return true;
        }
    }
}
