using System.Net;
using System.Net.Sockets;

namespace ModelHost.Docker.Http;

/// <summary>Sends calls to one engine, in an API version agreed on with it.</summary>
internal sealed class EngineConnection : IDisposable
{
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);

    private readonly Uri _engine;
    private readonly HttpMessageInvoker _http;
    private readonly SemaphoreSlim _negotiating = new(1, 1);
    private volatile DockerPing? _agreed;

    /// <exception cref="ArgumentException">The endpoint is neither a unix socket nor plain TCP.</exception>
    public EngineConnection(Uri endpoint)
    {
        var handler = new SocketsHttpHandler
        {
            ConnectTimeout = ConnectTimeout,
            AllowAutoRedirect = false,
            UseCookies = false,
            UseProxy = false,
            // an answer that is left before its end is a log or a pull: its connection is closed at once instead of being read empty
            ResponseDrainTimeout = TimeSpan.Zero,
        };
        switch (endpoint.Scheme)
        {
            case "unix":
                var socket = new UnixDomainSocketEndPoint(Uri.UnescapeDataString(endpoint.AbsolutePath));
                handler.ConnectCallback = async (_, cancellationToken) => await ConnectAsync(socket, cancellationToken);
                _engine = new Uri("http://localhost/");
                break;
            case "tcp" or "http" when endpoint.Host.Length > 0:
                _engine = new UriBuilder("http", endpoint.Host, endpoint.Port > 0 ? endpoint.Port : 2375).Uri;
                break;
            default:
                handler.Dispose();
                throw new ArgumentException($"'{endpoint}' is neither unix:///path nor tcp://host:port", nameof(endpoint));
        }
        _http = new HttpMessageInvoker(handler);
    }

    /// <summary>Whether an exception tells of the way to the engine, and not of a mistake of ours. A connection that was closed under a call may be disposed of.</summary>
    public static bool IsTransportFailure(Exception e) =>
        e is HttpRequestException or IOException or SocketException or OperationCanceledException or ObjectDisposedException;

    /// <summary>Who answers, as far as is known: asked only when nobody was before, or the connection failed since.</summary>
    /// <exception cref="DockerException">The engine was not reached, or is too old.</exception>
    public async Task<DockerPing> AgreedAsync(CancellationToken cancellationToken) => _agreed ?? await NegotiateAsync(cancellationToken);

    /// <summary>Sends a call and waits for the head of its answer.</summary>
    /// <exception cref="DockerException">The engine was not reached, is too old, or refused.</exception>
    public async Task<EngineAnswer> SendAsync(EngineCall call, CancellationToken cancellationToken)
    {
        var agreed = await AgreedAsync(cancellationToken);
        try
        {
            return await SendAsync(call, agreed.ApiVersion, cancellationToken);
        }
        catch (DockerException e) when (IsVersionRefusal(e))
        {
            // Another engine answers now; the handler replaces closed connections silently. It refused before doing anything.
            _agreed = null;
            if (!call.Repeatable)
                throw;
        }
        agreed = await NegotiateAsync(cancellationToken);
        return await SendAsync(call, agreed.ApiVersion, cancellationToken);
    }

    /// <summary>Asks the engine for its version, whether one was agreed on already or not.</summary>
    /// <exception cref="DockerException">The engine was not reached, or is too old.</exception>
    public async Task<DockerPing> PingAsync(CancellationToken cancellationToken)
    {
        var call = EngineCall.Get("/_ping");
        using var answer = await SendAsync(call, version: null, cancellationToken);
        var header = answer.Header("Api-Version");
        if (!ApiVersion.TryParse(header, out var theirs))
            throw answer.Unusable($"not a Docker engine: its Api-Version is '{header}'");
        if (theirs.CompareTo(ApiVersion.Oldest) < 0)
            throw answer.Unusable($"the engine is too old: it speaks API {theirs}, and {ApiVersion.Oldest} is the oldest supported");
        var ping = new DockerPing(ApiVersion.Lower(theirs, ApiVersion.Newest).ToString(), theirs.ToString(), answer.Header("Server"))
        {
            IsPodman = answer.Header("Libpod-Api-Version") is not null,
        };
        _agreed = ping;
        return ping;
    }

    // not the semaphore, which holds nothing: calls under way, and later ones, fail for want of a connection
    public void Dispose() => _http.Dispose();

    /// <summary>Agrees on a version; callers that come meanwhile wait for the same answer.</summary>
    private async Task<DockerPing> NegotiateAsync(CancellationToken cancellationToken)
    {
        await _negotiating.WaitAsync(cancellationToken);
        try
        {
            return _agreed ?? await PingAsync(cancellationToken);
        }
        finally
        {
            _negotiating.Release();
        }
    }

    private async Task<EngineAnswer> SendAsync(EngineCall call, string? version, CancellationToken cancellationToken)
    {
        HttpResponseMessage response;
        Stream body;
        try
        {
            response = await _http.SendAsync(call.ToRequest(_engine, version), cancellationToken);
            body = await response.Content.ReadAsStreamAsync(cancellationToken);
        }
        catch (Exception e) when (IsTransportFailure(e))
        {
            cancellationToken.ThrowIfCancellationRequested();
            Forget();
            throw new DockerException(call.Name, null, Reason(e), e);
        }
        var answer = new EngineAnswer(call.Name, response, body, Forget);
        // "not modified": it is started, or stopped, already
        if (response.IsSuccessStatusCode || response.StatusCode == HttpStatusCode.NotModified)
            return answer;
        using (answer)
            throw await answer.ReadRefusalAsync(cancellationToken);
    }

    /// <summary>After a failed connection the engine may come back as another version.</summary>
    private void Forget() => _agreed = null;

    private static bool IsVersionRefusal(DockerException e) =>
        e.StatusCode == HttpStatusCode.BadRequest && e.EngineMessage.StartsWith("client version ", StringComparison.Ordinal);

    private static string Reason(Exception e) =>
        e is OperationCanceledException
            ? $"the engine did not take the connection within {ConnectTimeout.TotalSeconds} s"
            : $"the engine was not reached: {e.InnerException?.Message ?? e.Message}";

    private static async Task<Stream> ConnectAsync(UnixDomainSocketEndPoint endpoint, CancellationToken cancellationToken)
    {
        // the system's word for it is "Cannot assign requested address"
        if (!File.Exists(endpoint.ToString()))
            throw new IOException($"there is no socket {endpoint}");
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(endpoint, cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
