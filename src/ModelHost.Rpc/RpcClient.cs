using System.IO.Pipelines;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Google.Protobuf;

namespace ModelHost.Rpc;

/// <summary>
/// Calls the methods of one gRPC server. A call ends with its answer, with an <see cref="RpcException"/>, or with an
/// <see cref="OperationCanceledException"/> when its own token is cancelled. Calls may be made side by side.
/// </summary>
public sealed class RpcClient : IDisposable
{
    private readonly HttpMessageInvoker _http;
    private readonly string _address;
    private readonly RpcClientOptions _options;
    private readonly bool _ownsHttp;

    /// <summary>Makes a client; nothing is sent before the first call.</summary>
    /// <param name="address">
    /// <c>http://</c> (HTTP/2 without TLS) or <c>https://</c> with host and port, and where the server stands behind another one a path; or <c>unix:///path</c>.
    /// </param>
    /// <param name="options">How it speaks; null: as by default.</param>
    public RpcClient(Uri address, RpcClientOptions? options = null)
        : this(Reached(address), new HttpMessageInvoker(Handler(address, options ?? new())), options) => _ownsHttp = true;

    /// <summary>Makes a client over connections that others use too and that it does not end; nothing is sent before the first call.</summary>
    /// <param name="address">As above, without <c>unix</c>.</param>
    /// <param name="http">The connections, of a handler that <see cref="UseLongCalls"/> has set up.</param>
    /// <param name="options">How it speaks; what is about connections does not count.</param>
    public RpcClient(Uri address, HttpMessageInvoker http, RpcClientOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(address);
        (_address, _http, _options) = (address.GetLeftPart(UriPartial.Path).TrimEnd('/'), http, options ?? new());
    }

    /// <summary>Sets up a handler for calls that last, and for a server that goes silent.</summary>
    public static void UseLongCalls(SocketsHttpHandler handler, TimeSpan keepAlive)
    {
        ArgumentNullException.ThrowIfNull(handler);
        // a server allows 100 calls on a connection by default, and the next would wait
        handler.EnableMultipleHttp2Connections = true;
        (handler.KeepAlivePingDelay, handler.KeepAlivePingTimeout) = (keepAlive, keepAlive);
    }

    private static SocketsHttpHandler Handler(Uri address, RpcClientOptions options)
    {
        var handler = new SocketsHttpHandler
        {
            UseProxy = false,
            AllowAutoRedirect = false,
            UseCookies = false,
            ConnectTimeout = options.ConnectTimeout,
            PooledConnectionLifetime = options.ConnectionLifetime,
        };
        UseLongCalls(handler, options.KeepAlive);
        if (options.Connect is { } connect)
            handler.ConnectCallback = (context, token) => connect(context.DnsEndPoint, token);
        if (options.Tls is { } tls)
            handler.SslOptions = tls;
        if (address.Scheme == "unix")
        {
            var socket = new UnixDomainSocketEndPoint(address.LocalPath);
            handler.ConnectCallback = (_, token) => ConnectAsync(socket, token);
        }
        return handler;
    }

    private static Uri Reached(Uri address)
    {
        ArgumentNullException.ThrowIfNull(address);
        return address.Scheme == "unix" ? new Uri("http://localhost") : address;
    }

    /// <summary>Asks once, and is answered once.</summary>
    /// <param name="method">What is called.</param>
    /// <param name="request">What is asked.</param>
    /// <param name="deadline">Time for all of it, told to the server too; null: none.</param>
    /// <param name="cancellationToken">Gives the call up.</param>
    public Task<TResponse> UnaryAsync<TRequest, TResponse>(
        RpcMethod<TRequest, TResponse> method, TRequest request, TimeSpan? deadline, CancellationToken cancellationToken)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse> => ClientStreamAsync(method, One(request), deadline, cancellationToken);

    /// <summary>Asks once, and is answered by a stream.</summary>
    /// <inheritdoc cref="UnaryAsync"/>
    public IAsyncEnumerable<TResponse> ServerStreamAsync<TRequest, TResponse>(
        RpcMethod<TRequest, TResponse> method, TRequest request, TimeSpan? deadline, CancellationToken cancellationToken)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse> => DuplexAsync(method, One(request), deadline, cancellationToken);

    /// <summary>Asks by a stream, and is answered once.</summary>
    /// <inheritdoc cref="UnaryAsync"/>
    public async Task<TResponse> ClientStreamAsync<TRequest, TResponse>(
        RpcMethod<TRequest, TResponse> method, IAsyncEnumerable<TRequest> requests, TimeSpan? deadline, CancellationToken cancellationToken)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        TResponse? answer = null;
        await foreach (var response in DuplexAsync(method, requests, deadline, cancellationToken))
            answer = answer is null ? response : throw new RpcException(RpcCode.Internal, "more than one message came where one was due");
        return answer ?? throw new RpcException(RpcCode.Internal, "no message came where one was due");
    }

    /// <summary>Asks and is answered by streams, each at its own pace. Leaving the answers before their end gives the call up.</summary>
    /// <inheritdoc cref="UnaryAsync"/>
    public async IAsyncEnumerable<TResponse> DuplexAsync<TRequest, TResponse>(
        RpcMethod<TRequest, TResponse> method, IAsyncEnumerable<TRequest> requests, TimeSpan? deadline, [EnumeratorCancellation] CancellationToken cancellationToken)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse>
    {
        ArgumentNullException.ThrowIfNull(method);
        if (deadline > RpcHeaders.MaxTimeout)
            deadline = RpcHeaders.MaxTimeout;
        using var late = deadline is { } time ? new CancellationTokenSource(time, _options.Time) : new CancellationTokenSource();
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(late.Token, cancellationToken);
        using var content = new RequestContent<TRequest>(requests, ended.Token);
        using var message = Message(method.Path, content, deadline);
        // what the failure of a step means: the caller's own wish, the deadline, or the failure
        Exception Explain(Exception e) =>
            cancellationToken.IsCancellationRequested ? new OperationCanceledException("the call was given up", e, cancellationToken)
            : late.IsCancellationRequested ? new RpcException(RpcCode.DeadlineExceeded, $"no answer within {deadline?.TotalSeconds:0.###} s", e)
            : RpcException.Of(content.Failure ?? e);

        HttpResponseMessage response;
        try
        {
            response = await _http.SendAsync(message, ended.Token);
        }
        catch (Exception e) when (e is not RpcException)
        {
            throw Explain(e);
        }
        using (response)
        {
            var encoding = CheckHead(response);
            var input = PipeReader.Create(await response.Content.ReadAsStreamAsync(ended.Token));
            try
            {
                while (true)
                {
                    TResponse? next;
                    try
                    {
                        next = await Frames.ReadAsync(input, method.Responses, encoding, _options.MaxMessageBytes, ended.Token);
                    }
                    catch (Exception e) when (e is not RpcException)
                    {
                        throw Explain(e);
                    }
                    if (next is null)
                        break;
                    yield return next;
                }
                CheckEnd(response);
            }
            finally
            {
                // the server hears of it, and requests that are still to be sent end
                await ended.CancelAsync();
                await input.CompleteAsync();
            }
        }
    }

    /// <summary>Ends its connections, if they are its own, and the calls on them.</summary>
    public void Dispose()
    {
        if (_ownsHttp)
            _http.Dispose();
    }

    private HttpRequestMessage Message(string path, HttpContent content, TimeSpan? deadline)
    {
        var message = new HttpRequestMessage(HttpMethod.Post, new Uri(_address + path))
        {
            Version = HttpVersion.Version20,
            VersionPolicy = HttpVersionPolicy.RequestVersionExact,
            Content = content,
        };
        message.Headers.TE.Add(new TransferCodingWithQualityHeaderValue("trailers"));
        message.Headers.TryAddWithoutValidation(RpcHeaders.AcceptEncoding, RpcHeaders.Accepted);
        if (_options.BearerToken is { Length: > 0 } token)
            message.Headers.TryAddWithoutValidation("authorization", "Bearer " + token);
        if (deadline is { } time)
            message.Headers.TryAddWithoutValidation(RpcHeaders.Timeout, RpcHeaders.FormatTimeout(time));
        return message;
    }

    /// <summary>Refuses what is no answer, and one that says with its headers how the call ended.</summary>
    /// <returns>The encoding of its messages.</returns>
    private static string? CheckHead(HttpResponseMessage response)
    {
        if (response.StatusCode != HttpStatusCode.OK)
            throw RpcHeaders.ReadStatus(response.Headers) is { } told ? new RpcException(told.Code, told.Detail) : RpcException.OfHttp(response.StatusCode);
        if (!RpcHeaders.IsRpc(response.Content.Headers.ContentType?.ToString()))
            throw new RpcException(RpcCode.Unknown, $"the answer is no gRPC: its content type is '{response.Content.Headers.ContentType}'");
        if (RpcHeaders.ReadStatus(response.Headers) is { Code: not RpcCode.Ok } status)
            throw new RpcException(status.Code, status.Detail);
        return response.Headers.TryGetValues(RpcHeaders.Encoding, out var encodings) ? encodings.First() : null;
    }

    private static void CheckEnd(HttpResponseMessage response)
    {
        var status = RpcHeaders.ReadStatus(response.TrailingHeaders) ?? RpcHeaders.ReadStatus(response.Headers)
            ?? (RpcCode.Unknown, "the answer ended without a status");
        if (status.Code != RpcCode.Ok)
            throw new RpcException(status.Code, status.Detail);
    }

    private static async IAsyncEnumerable<T> One<T>(T message)
    {
        await Task.CompletedTask;
        yield return message;
    }

    private static async ValueTask<Stream> ConnectAsync(EndPoint endPoint, CancellationToken cancellationToken)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(endPoint, cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>The requests as the body of a call: each is on its way before the next is asked for.</summary>
    private sealed class RequestContent<T> : HttpContent where T : IMessage
    {
        private readonly IAsyncEnumerable<T> _requests;
        private readonly CancellationToken _ended;

        public RequestContent(IAsyncEnumerable<T> requests, CancellationToken ended)
        {
            (_requests, _ended) = (requests, ended);
            Headers.ContentType = new MediaTypeHeaderValue(RpcHeaders.ContentType);
        }

        /// <summary>Why there are no more requests, when the caller's own code failed to make them.</summary>
        public Exception? Failure { get; private set; }

        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) => SerializeToStreamAsync(stream, context, CancellationToken.None);

        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context, CancellationToken cancellationToken)
        {
            using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _ended);
            var writer = PipeWriter.Create(stream, new StreamPipeWriterOptions(leaveOpen: true));
            await using var requests = _requests.GetAsyncEnumerator(either.Token);
            while (await NextAsync(requests, either.Token))
            {
                Frames.Write(writer, requests.Current);
                await writer.FlushAsync(either.Token);
                await stream.FlushAsync(either.Token);
            }
            await writer.CompleteAsync();
        }

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }

        private async ValueTask<bool> NextAsync(IAsyncEnumerator<T> requests, CancellationToken cancellationToken)
        {
            try
            {
                return await requests.MoveNextAsync();
            }
            catch (Exception e) when (!cancellationToken.IsCancellationRequested)
            {
                Failure = e as RpcException ?? new RpcException(RpcCode.Unknown, $"the requests ended: {e.Message}", e);
                throw;
            }
        }
    }
}
