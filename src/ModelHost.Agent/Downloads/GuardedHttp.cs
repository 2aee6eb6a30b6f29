using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Security.Authentication;
using Microsoft.AspNetCore.WebUtilities;

namespace ModelHost.Agent.Downloads;

/// <summary>
/// The one way to addresses that somebody else named: galleries, models, registries. It connects to public addresses only, as they are at the moment
/// of the connection, follows redirects itself and judges each, and gives up servers that stall.
/// </summary>
/// <remarks>
/// Proxies of the environment are not used: the address to be judged would be the proxy's. Through the one that the operator names on purpose
/// (<see cref="DownloadOptions.Proxy"/>) go public names and addresses alone; what names lead to is for the proxy to judge.
/// </remarks>
public sealed class GuardedHttp : IDisposable
{
    private static readonly TimeSpan LongestRetryAfter = TimeSpan.FromMinutes(5);
    private readonly DownloadOptions _options;
    private readonly IReadOnlyList<IPNetwork> _allowed;
    private readonly TimeProvider _time;
    private readonly HttpMessageInvoker _direct;
    private readonly HttpMessageInvoker? _proxied;
    private readonly DownloadProxy? _proxy;

    /// <summary>Makes one; to be kept and shared.</summary>
    public GuardedHttp(DownloadOptions options, TimeProvider time)
    {
        ArgumentNullException.ThrowIfNull(options);
        (_options, _allowed, _time) = (options, options.Networks, time);
        var direct = Handler(options);
        direct.ConnectCallback = (context, cancellationToken) => ConnectAsync(context.DnsEndPoint, cancellationToken);
        _direct = new HttpMessageInvoker(direct);
        _proxy = DownloadProxy.Of(options);
        if (_proxy is null)
            return;
        var proxied = Handler(options);
        (proxied.UseProxy, proxied.Proxy) = (true, _proxy);
        _proxied = new HttpMessageInvoker(proxied);
    }

    /// <summary>An address for logs and messages: without its query, which may be a signature.</summary>
    public static string Display(Uri url)
    {
        ArgumentNullException.ThrowIfNull(url);
        return url.GetComponents(UriComponents.SchemeAndServer | UriComponents.Path, UriFormat.UriEscaped);
    }

    /// <summary>The same of any address that something is pulled from.</summary>
    public static string Display(string address) =>
        Uri.TryCreate(address, UriKind.Absolute, out var url) && url.Scheme is "http" or "https" ? Display(url) : address;

    /// <summary>Gets an address. Statuses from 400 on are failures; others, 304 too, are the caller's to look at.</summary>
    /// <param name="url">http or https, without login.</param>
    /// <param name="headers">Sent along to every redirect, but for <c>Authorization</c>, which only the host asked first gets to see.</param>
    /// <param name="cancellationToken">Ends the request and the reading of its answer.</param>
    /// <exception cref="DownloadException">It could not be had.</exception>
    public async Task<GuardedAnswer> GetAsync(Uri url, IReadOnlyDictionary<string, string> headers, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(url);
        ArgumentNullException.ThrowIfNull(headers);
        Check(url);
        var current = url;
        for (var redirects = 0; ; redirects++)
        {
            var isFirstHost = Authority(current) == Authority(url);
            var answer = await SendAsync(current, headers, isFirstHost, cancellationToken);
            if ((int)answer.StatusCode is not (301 or 302 or 303 or 307 or 308))
                return Checked(answer, current, isFirstHost, cancellationToken);
            var location = answer.Headers.Location;
            answer.Dispose();
            if (redirects >= _options.MaxRedirects)
                throw new DownloadException("redirect_refused", $"{Display(url)} redirects more than {_options.MaxRedirects} times");
            current = Next(current, location);
        }
    }

    /// <summary>Gets a document whole.</summary>
    /// <param name="url">http or https, without login.</param>
    /// <param name="headers">As for <see cref="GetAsync"/>.</param>
    /// <param name="maxBytes">The longest taken.</param>
    /// <param name="cancellationToken">Ends the request.</param>
    /// <exception cref="DownloadException">It could not be had, or is longer.</exception>
    public async Task<byte[]> GetBytesAsync(Uri url, IReadOnlyDictionary<string, string> headers, int maxBytes, CancellationToken cancellationToken)
    {
        using var answer = await GetAsync(url, headers, cancellationToken);
        return await answer.ReadAsync(maxBytes, cancellationToken);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _direct.Dispose();
        _proxied?.Dispose();
    }

    private static SocketsHttpHandler Handler(DownloadOptions options) => new()
    {
        UseProxy = false,
        AllowAutoRedirect = false,
        UseCookies = false,
        AutomaticDecompression = DecompressionMethods.None, // lengths and hashes are of what is sent
        ConnectTimeout = options.ConnectTimeout,
        PooledConnectionLifetime = TimeSpan.FromMinutes(2), // names may come to lead elsewhere
    };

    private static string Authority(Uri url) => url.GetComponents(UriComponents.SchemeAndServer, UriFormat.UriEscaped);

    private static void Check(Uri url)
    {
        if (!url.IsAbsoluteUri || url.Scheme is not ("http" or "https") || url.UserInfo.Length > 0)
            throw new DownloadException("uri_invalid", "an address to download from is http or https and has no login in it");
    }

    /// <summary>Where a redirect leads.</summary>
    internal static Uri Next(Uri from, Uri? location)
    {
        if (location is null || !Uri.TryCreate(from, location, out var next) || next.Scheme is not ("http" or "https") || next.UserInfo.Length > 0)
            throw new DownloadException("redirect_refused", $"{Display(from)} redirects to no http or https address");
        if (from.Scheme == "https" && next.Scheme == "http")
            throw new DownloadException("redirect_refused", $"{Display(from)} redirects from https to http ({Display(next)})");
        return next;
    }

    private async Task<HttpResponseMessage> SendAsync(Uri url, IReadOnlyDictionary<string, string> headers, bool isFirstHost, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, url);
        request.Headers.TryAddWithoutValidation("User-Agent", "modelhost");
        foreach (var (name, value) in headers)
        {
            if (isFirstHost || !name.Equals("Authorization", StringComparison.OrdinalIgnoreCase))
                request.Headers.TryAddWithoutValidation(name, value);
        }
        var isProxied = _proxy?.IsBypassed(url) == false;
        using var stall = new CancellationTokenSource(_options.ConnectTimeout + _options.StallTimeout, _time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(stall.Token, cancellationToken);
        try
        {
            var answer = await (isProxied ? _proxied! : _direct).SendAsync(request, either.Token);
            if (!isProxied || answer.StatusCode != HttpStatusCode.ProxyAuthenticationRequired)
                return answer;
            answer.Dispose();
            throw NotLetThrough(url, HttpStatusCode.ProxyAuthenticationRequired);
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw new DownloadException("timed_out", $"{Display(url)} did not answer in time", isPassing: true, e);
        }
        catch (HttpRequestException e) when (e.InnerException is DownloadException refused)
        {
            throw refused;
        }
        catch (HttpRequestException e) when (e.HttpRequestError == HttpRequestError.ProxyTunnelError && e.StatusCode is { } status)
        {
            throw NotLetThrough(url, status, e);
        }
        catch (HttpRequestException e)
        {
            var reason = e.InnerException is SocketException or AuthenticationException or IOException ? e.InnerException.Message : e.Message;
            throw new DownloadException("unreachable", $"{Display(url)} cannot be reached{(isProxied ? " through the proxy (Downloads:Proxy)" : "")}: {reason}", isPassing: true, e);
        }
    }

    private GuardedAnswer Checked(HttpResponseMessage answer, Uri url, bool isFirstHost, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        var status = (int)answer.StatusCode;
        if (status is < 400 or 416)
            return new GuardedAnswer(answer, url, _options.StallTimeout, _time);
        var wait = answer.Headers.RetryAfter is { } after ? after.Delta ?? after.Date - _time.GetUtcNow() : null;
        var challenge = status == 401 && isFirstHost ? Challenge(answer.Headers, "Bearer") ?? Challenge(answer.Headers, "Basic") : null;
        answer.Dispose();
        throw new DownloadException(
            status switch { 401 or 403 => "access_denied", 404 or 410 => "not_found", _ => "http_status" },
            $"{Display(url)} answers {status}", isPassing: status is 408 or 425 or 429 or >= 500)
        {
            Challenge = challenge,
            RetryAfter = wait is { } asked && asked > TimeSpan.Zero ? (asked < LongestRetryAfter ? asked : LongestRetryAfter) : null,
        };
    }

    private static DownloadException NotLetThrough(Uri url, HttpStatusCode status, Exception? inner = null) => new(
        "unreachable", $"the proxy (Downloads:Proxy) does not let through to {Display(url)}: it answers {(int)status}{(status == HttpStatusCode.ProxyAuthenticationRequired ? ", it wants a login or another one" : "")}",
        isPassing: (int)status is 408 or 429 or >= 500, inner);

    private static AuthenticationHeaderValue? Challenge(HttpResponseHeaders headers, string scheme) =>
        headers.WwwAuthenticate.FirstOrDefault(header => header.Scheme.Equals(scheme, StringComparison.OrdinalIgnoreCase));

    /// <summary>Connects to what a name leads to now: what was looked up before may have been another answer.</summary>
    private async ValueTask<Stream> ConnectAsync(DnsEndPoint endPoint, CancellationToken cancellationToken)
    {
        var addresses = IPAddress.TryParse(endPoint.Host, out var literal) ? [literal] : await Dns.GetHostAddressesAsync(endPoint.Host, cancellationToken);
        var usable = addresses.Where(IsAllowed).ToArray();
        if (usable.Length == 0)
        {
            throw new DownloadException(
                "address_refused", $"{endPoint.Host} leads to no public address, and the node does not allow others (Downloads:AllowedNetworks)");
        }
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(usable, endPoint.Port, cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private bool IsAllowed(IPAddress address)
    {
        var plain = PublicAddress.Plain(address);
        return PublicAddress.Is(address) || _allowed.Any(network => network.Contains(plain));
    }
}

/// <summary>An answer whose body comes as it is read.</summary>
public sealed class GuardedAnswer : IDisposable
{
    private readonly HttpResponseMessage _answer;
    private readonly TimeSpan _stallTimeout;
    private readonly TimeProvider _time;

    internal GuardedAnswer(HttpResponseMessage answer, Uri url, TimeSpan stallTimeout, TimeProvider time) =>
        (_answer, Url, _stallTimeout, _time) = (answer, url, stallTimeout, time);

    /// <summary>Where it came from in the end.</summary>
    public Uri Url { get; }

    /// <summary>The status: below 400, or 416.</summary>
    public HttpStatusCode Status => _answer.StatusCode;

    /// <summary>Headers of the answer.</summary>
    public HttpResponseHeaders Headers => _answer.Headers;

    /// <summary>Headers of the body.</summary>
    public HttpContentHeaders ContentHeaders => _answer.Content.Headers;

    /// <summary>The body. Reading fails with a <see cref="DownloadException"/> when the server stalls or the connection breaks.</summary>
    public async Task<Stream> OpenAsync(CancellationToken cancellationToken) =>
        new StallGuard(await _answer.Content.ReadAsStreamAsync(cancellationToken), GuardedHttp.Display(Url), _stallTimeout, _time);

    /// <summary>The body whole.</summary>
    /// <exception cref="DownloadException">It is longer than <paramref name="maxBytes"/>, or did not come whole.</exception>
    public async Task<byte[]> ReadAsync(int maxBytes, CancellationToken cancellationToken)
    {
        if (ContentHeaders.ContentLength > maxBytes)
            throw TooLarge(maxBytes);
        await using var body = await OpenAsync(cancellationToken);
        using var whole = new MemoryStream();
        var buffer = new byte[16 * 1024];
        for (int read; (read = await body.ReadAsync(buffer, cancellationToken)) > 0;)
        {
            if (whole.Length + read > maxBytes)
                throw TooLarge(maxBytes);
            whole.Write(buffer, 0, read);
        }
        return whole.ToArray();
    }

    /// <summary>The body whole, to be read as often as wanted: the first bytes of it in memory, and one that is longer in a file that goes with it.</summary>
    /// <param name="maxBytes">The longest taken.</param>
    /// <param name="memoryBytes">The longest kept in memory.</param>
    /// <param name="folder">Where the file is.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="DownloadException">It is longer than <paramref name="maxBytes"/>, or did not come whole.</exception>
    /// <exception cref="IOException">The disk is full.</exception>
    public async Task<Stream> BufferAsync(int maxBytes, int memoryBytes, string folder, CancellationToken cancellationToken)
    {
        if (ContentHeaders.ContentLength > maxBytes)
            throw TooLarge(maxBytes);
        var whole = new FileBufferingReadStream(await OpenAsync(cancellationToken), memoryBytes, bufferLimit: null, folder);
        try
        {
            var buffer = new byte[16 * 1024];
            while (await whole.ReadAsync(buffer, cancellationToken) > 0)
            {
                if (whole.Length > maxBytes)
                    throw TooLarge(maxBytes);
            }
            whole.Position = 0;
            return whole;
        }
        catch
        {
            await whole.DisposeAsync();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _answer.Dispose();

    private DownloadException TooLarge(int maxBytes) => new("too_large", $"{GuardedHttp.Display(Url)} is longer than {maxBytes} bytes");
}
