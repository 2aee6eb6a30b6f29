using System.Globalization;
using System.IO.Pipelines;
using System.Runtime.CompilerServices;
using Google.Protobuf;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Core.Features;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace ModelHost.Rpc;

/// <summary>What a method does with its requests; the token ends with the caller and with the caller's deadline.</summary>
public delegate IAsyncEnumerable<TResponse> RpcHandler<TRequest, TResponse>(IAsyncEnumerable<TRequest> requests, HttpContext context, CancellationToken cancellationToken);

/// <summary>
/// Serves gRPC methods as routes of an ASP.NET Core application that listens for HTTP/2. Handlers end a call with an <see cref="RpcException"/>; any
/// other exception is logged, and the caller is told no more than that.
/// </summary>
public static partial class RpcServer
{
    /// <summary>The longest message taken where nothing else is said, in bytes: 4 MiB, as in other implementations of gRPC.</summary>
    public const int DefaultMaxMessageBytes = 4 * 1024 * 1024;

    private const string Failed = "something went wrong inside the server; its log says what";

    /// <summary>Serves a method that is asked and answers by streams.</summary>
    /// <param name="routes">Where.</param>
    /// <param name="method">The method.</param>
    /// <param name="handler">What it does.</param>
    /// <param name="maxMessageBytes">The longest message taken, unpacked.</param>
    public static IEndpointConventionBuilder MapDuplex<TRequest, TResponse>(
        this IEndpointRouteBuilder routes, RpcMethod<TRequest, TResponse> method, RpcHandler<TRequest, TResponse> handler, int maxMessageBytes = DefaultMaxMessageBytes)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        ArgumentNullException.ThrowIfNull(method);
        return routes.MapPost(method.Path, context => ServeAsync(context, method, handler, maxMessageBytes));
    }

    /// <summary>Serves a method that is asked once and answers once.</summary>
    /// <inheritdoc cref="MapDuplex"/>
    public static IEndpointConventionBuilder MapUnary<TRequest, TResponse>(
        this IEndpointRouteBuilder routes, RpcMethod<TRequest, TResponse> method, Func<TRequest, HttpContext, CancellationToken, Task<TResponse>> handler,
        int maxMessageBytes = DefaultMaxMessageBytes)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        async IAsyncEnumerable<TResponse> Answer(IAsyncEnumerable<TRequest> requests, HttpContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
        {
            yield return await handler(await OneAsync(requests, cancellationToken), context, cancellationToken);
        }
        return routes.MapDuplex(method, Answer, maxMessageBytes);
    }

    /// <summary>Serves a method that is asked once and answers by a stream.</summary>
    /// <inheritdoc cref="MapDuplex"/>
    public static IEndpointConventionBuilder MapServerStream<TRequest, TResponse>(
        this IEndpointRouteBuilder routes, RpcMethod<TRequest, TResponse> method, Func<TRequest, HttpContext, CancellationToken, IAsyncEnumerable<TResponse>> handler,
        int maxMessageBytes = DefaultMaxMessageBytes)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        async IAsyncEnumerable<TResponse> Answer(IAsyncEnumerable<TRequest> requests, HttpContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
        {
            var request = await OneAsync(requests, cancellationToken);
            await foreach (var response in handler(request, context, cancellationToken).WithCancellation(cancellationToken))
                yield return response;
        }
        return routes.MapDuplex(method, Answer, maxMessageBytes);
    }

    /// <summary>Serves a method that is asked by a stream and answers once.</summary>
    /// <inheritdoc cref="MapDuplex"/>
    public static IEndpointConventionBuilder MapClientStream<TRequest, TResponse>(
        this IEndpointRouteBuilder routes, RpcMethod<TRequest, TResponse> method,
        Func<IAsyncEnumerable<TRequest>, HttpContext, CancellationToken, Task<TResponse>> handler, int maxMessageBytes = DefaultMaxMessageBytes)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        async IAsyncEnumerable<TResponse> Answer(IAsyncEnumerable<TRequest> requests, HttpContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
        {
            yield return await handler(requests, context, cancellationToken);
        }
        return routes.MapDuplex(method, Answer, maxMessageBytes);
    }

    /// <summary>Answers every call of a method that there is not, as gRPC has it; what is no gRPC gets 404.</summary>
    public static IEndpointConventionBuilder MapUnknownMethods(this IEndpointRouteBuilder routes) => routes.MapFallback(context =>
    {
        if (IsCall(context.Request))
            Finish(context.Response, RpcCode.Unimplemented, $"there is no method {context.Request.Path}");
        else
            context.Response.StatusCode = StatusCodes.Status404NotFound;
        return Task.CompletedTask;
    });

    /// <summary>
    /// Sets the limits of a listener for long calls: a slow reader is no fault, and a connection is pinged after 10 s of silence and ended 10 s later.
    /// </summary>
    public static void UseLongCalls(this KestrelServerLimits limits)
    {
        ArgumentNullException.ThrowIfNull(limits);
        limits.MinResponseDataRate = null; // cannot be set by request on HTTP/2
        limits.Http2.KeepAlivePingDelay = TimeSpan.FromSeconds(10);
        limits.Http2.KeepAlivePingTimeout = TimeSpan.FromSeconds(10);
    }


    /// <summary>Whether a request has the form of a call: HTTP/2, and the content type of gRPC.</summary>
    public static bool IsCall(HttpRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        return HttpProtocol.IsHttp2(request.Protocol) && RpcHeaders.IsRpc(request.ContentType);
    }

    private static async Task ServeAsync<TRequest, TResponse>(
        HttpContext context, RpcMethod<TRequest, TResponse> method, RpcHandler<TRequest, TResponse> handler, int maxMessageBytes)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        var (request, response) = (context.Request, context.Response);
        if (!IsCall(request))
        {
            response.StatusCode = HttpProtocol.IsHttp2(request.Protocol) ? StatusCodes.Status415UnsupportedMediaType : StatusCodes.Status426UpgradeRequired;
            return;
        }
        // one message is bounded, a stream of them is not, and may pause
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } size)
            size.MaxRequestBodySize = null;
        if (context.Features.Get<IHttpMinRequestBodyDataRateFeature>() is { } rate)
            rate.MinDataRate = null;
        response.ContentType = RpcHeaders.ContentType;
        response.Headers[RpcHeaders.AcceptEncoding] = RpcHeaders.Accepted;
        if (!RpcHeaders.TryParseTimeout(request.Headers[RpcHeaders.Timeout], out var timeout))
        {
            Finish(response, RpcCode.Internal, $"the header {RpcHeaders.Timeout} is no time");
            return;
        }
        var encoding = request.Headers[RpcHeaders.Encoding].ToString();
        if (encoding is not ("" or "identity" or "gzip"))
        {
            Finish(response, RpcCode.Unimplemented, $"messages in the encoding '{encoding}' cannot be read");
            return;
        }
        var time = context.RequestServices.GetService<TimeProvider>() ?? TimeProvider.System;
        using var late = timeout is { } limit ? new CancellationTokenSource(limit, time) : new CancellationTokenSource();
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(late.Token, context.RequestAborted);
        try
        {
            var requests = ReadAsync(request.BodyReader, method.Requests, encoding, maxMessageBytes, ended.Token);
            await foreach (var message in handler(requests, context, ended.Token).WithCancellation(ended.Token))
            {
                Frames.Write(response.BodyWriter, message);
                await response.BodyWriter.FlushAsync(ended.Token);
            }
            Finish(response, RpcCode.Ok, "");
        }
        catch (RpcException e)
        {
            Finish(response, e.Code, e.Detail);
        }
        catch (Exception) when (context.RequestAborted.IsCancellationRequested)
        {
            // nobody is there to be told
        }
        catch (OperationCanceledException) when (late.IsCancellationRequested)
        {
            Finish(response, RpcCode.DeadlineExceeded, "the time given had passed");
        }
#pragma warning disable CA1031 // whatever a handler throws, its caller is told in the form of the protocol
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogFailed(Logger(context), e, method.Path);
            Finish(response, RpcCode.Unknown, Failed);
        }
    }

    private static async IAsyncEnumerable<T> ReadAsync<T>(
        PipeReader input, MessageParser<T> parser, string encoding, int maxMessageBytes, [EnumeratorCancellation] CancellationToken cancellationToken)
        where T : class, IMessage<T>
    {
        while (await Frames.ReadAsync(input, parser, encoding, maxMessageBytes, cancellationToken) is { } message)
            yield return message;
    }

    private static async Task<T> OneAsync<T>(IAsyncEnumerable<T> requests, CancellationToken cancellationToken) where T : class
    {
        T? request = null;
        await foreach (var message in requests.WithCancellation(cancellationToken))
            request = request is null ? message : throw new RpcException(RpcCode.Internal, "more than one message came where one was due");
        return request ?? throw new RpcException(RpcCode.Internal, "no message came where one was due");
    }

    // before the first byte the status may stand in the headers, and has to when there is no message; after it, in the trailers
    private static void Finish(HttpResponse response, RpcCode code, string detail)
    {
        var (status, message) = (((int)code).ToString(CultureInfo.InvariantCulture), RpcHeaders.EncodeMessage(detail));
        if (response.HasStarted || code == RpcCode.Ok)
        {
            AppendStatus(response, code, detail);
            return;
        }
        response.ContentType = RpcHeaders.ContentType;
        response.Headers[RpcHeaders.Status] = status;
        if (message.Length > 0)
            response.Headers[RpcHeaders.Message] = message;
    }

    /// <summary>Says at the end of an answer how the call ended.</summary>
    public static void AppendStatus(HttpResponse response, RpcCode code, string detail)
    {
        response.AppendTrailer(RpcHeaders.Status, ((int)code).ToString(CultureInfo.InvariantCulture));
        if (RpcHeaders.EncodeMessage(detail) is { Length: > 0 } message)
            response.AppendTrailer(RpcHeaders.Message, message);
    }

    private static ILogger Logger(HttpContext context) => context.RequestServices.GetRequiredService<ILoggerFactory>().CreateLogger("ModelHost.Rpc");

    [LoggerMessage(2901, LogLevel.Error, "A call of {Method} failed.")]
    private static partial void LogFailed(ILogger logger, Exception exception, string method);
}
