using System.Net;
using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Primitives;

namespace ModelHost.Agent.Http;

/// <summary>What the gateway and the nodes have in common on the way to an engine: the connection, and the headers that either side has a use for.</summary>
public static class EngineHttp
{
    private static readonly string[] RequestHeaders = ["Accept", "User-Agent", RequestId.Header, "traceparent", "tracestate"];
    private static readonly string[] ContentHeaders = ["Content-Type", "Content-Encoding"];
    private static readonly string[] AnswerHeaders = [RequestId.Header, "Retry-After", "Cache-Control", "traceparent"];
    private static readonly string[] AnswerContentHeaders = ["Content-Type", "Content-Length", "Content-Encoding", "Content-Disposition"];

    /// <summary>Longest wait for a connection where nothing else is said.</summary>
    public static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);

    // vLLM closes idle connections after 5 s: one that is reused later may be closing
    private static readonly TimeSpan IdleTimeout = TimeSpan.FromSeconds(3);
    // of the headers of an answer, in KiB: half of what the gateway takes from an agent, where more would end a connection that others share
    private const int MaxAnswerHeaders = 32;

    /// <summary>Makes what speaks with engines.</summary>
    /// <param name="connectTimeout">Longest wait for a connection.</param>
    public static HttpMessageInvoker Invoker(TimeSpan connectTimeout) =>
        Invoker(new SocketsHttpHandler { PooledConnectionIdleTimeout = IdleTimeout, MaxResponseHeadersLength = MaxAnswerHeaders }, connectTimeout);

    /// <summary>Sets a handler up for engines, or for who stands before them: bytes pass as they are, and nobody is asked elsewhere.</summary>
    /// <param name="handler">The handler.</param>
    /// <param name="connectTimeout">Longest wait for a connection.</param>
    public static HttpMessageInvoker Invoker(SocketsHttpHandler handler, TimeSpan connectTimeout)
    {
        ArgumentNullException.ThrowIfNull(handler);
        handler.UseProxy = false;
        handler.AllowAutoRedirect = false;
        handler.UseCookies = false;
        handler.AutomaticDecompression = DecompressionMethods.None;
        handler.ActivityHeadersPropagator = null;
        handler.ConnectTimeout = connectTimeout;
        return new HttpMessageInvoker(handler);
    }

    /// <summary>Copies what an engine has a use for, and the key of its run; the client's credential is not for it.</summary>
    /// <param name="from">The headers of the client's request.</param>
    /// <param name="to">The request to the engine.</param>
    /// <param name="authorization">The engine's own credential; null: it has none.</param>
    public static void CopyRequest(IHeaderDictionary from, HttpRequestMessage to, string? authorization)
    {
        ArgumentNullException.ThrowIfNull(from);
        ArgumentNullException.ThrowIfNull(to);
        foreach (var name in RequestHeaders)
            Add(to.Headers, name, from[name]);
        if (to.Content is { } content)
        {
            foreach (var name in ContentHeaders)
                Add(content.Headers, name, from[name]);
        }
        if (authorization is not null)
            to.Headers.TryAddWithoutValidation("Authorization", authorization);
    }

    /// <summary>Copies what a client has a use for.</summary>
    /// <returns>Whether the answer is a stream of events, none of which is held back from now on.</returns>
    public static bool CopyAnswer(HttpResponseMessage from, HttpContext to)
    {
        CopyAnswerHeaders(from, to);
        var headers = to.Response.Headers;
        // the engine's name for it, else the client's, else ours: for a person who looks for it in a log
        if (!headers.ContainsKey(RequestId.Header))
            headers[RequestId.Header] = RequestId.Of(to);
        if (!"text/event-stream".Equals(from.Content.Headers.ContentType?.MediaType, StringComparison.OrdinalIgnoreCase))
            return false;
        headers.ContentLength = null;
        headers.CacheControl = "no-cache";
        headers["X-Accel-Buffering"] = "no"; // nginx in front of us must not hold events back
        to.Features.Get<IHttpResponseBodyFeature>()?.DisableBuffering();
        return true;
    }

    /// <summary>Copies the headers of an answer that a client has a use for, as they are.</summary>
    public static void CopyAnswerHeaders(HttpResponseMessage from, HttpContext to)
    {
        ArgumentNullException.ThrowIfNull(from);
        ArgumentNullException.ThrowIfNull(to);
        Copy(from.Headers, AnswerHeaders, to.Response.Headers);
        Copy(from.Content.Headers, AnswerContentHeaders, to.Response.Headers);
    }

    // what is not ASCII can be sent by neither side here, and says nothing that the other needs
    private static void Add(System.Net.Http.Headers.HttpHeaders to, string name, StringValues values)
    {
        foreach (var value in values)
        {
            if (value is not null && Ascii.IsValid(value))
                to.TryAddWithoutValidation(name, value);
        }
    }

    private static void Copy(System.Net.Http.Headers.HttpHeaders from, string[] names, IHeaderDictionary to)
    {
        var all = from.NonValidated;
        foreach (var name in names)
        {
            if (!all.TryGetValues(name, out var values))
                continue;
            StringValues value = values.Count == 1 ? values.ToString() : new StringValues([.. values]);
            if (Ascii.IsValid(value.ToString()))
                to[name] = value;
        }
    }
}
