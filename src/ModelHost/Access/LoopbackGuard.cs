using System.Net;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;

namespace ModelHost.Access;

/// <summary>
/// Whether a request comes from a program on this machine and from nobody behind it: not through a reverse proxy, not from a web
/// page, not under a name that was rebound to this address.
/// </summary>
internal sealed class LoopbackGuard(IServer server)
{
    private static readonly string[] ForwardingHeaders = ["Forwarded", "Via", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP"];

    private bool? _isBoundToLoopbackOnly;
    // the name that was last found to be of this machine: nearly all requests come with the same one
    private volatile string _localName = "localhost";

    /// <summary>Whether every listener is bound to loopback; asked by requests only, when all of them are bound.</summary>
    public bool IsBoundToLoopbackOnly => _isBoundToLoopbackOnly ??=
        server.Features.Get<IServerAddressesFeature>()?.Addresses is { Count: > 0 } addresses
        && addresses.All(IsLoopback);

    /// <summary>Whether an address listened on is reached from this machine only.</summary>
    public static bool IsLoopback(string url) => BindingAddress.Parse(url) is { IsUnixPipe: false } binding && IsLoopbackName(binding.Host);

    /// <summary>Whether the request is local.</summary>
    public bool IsLocal(HttpContext context)
    {
        var request = context.Request;
        return IsBoundToLoopbackOnly
            && context.Connection.RemoteIpAddress is { } remote && IPAddress.IsLoopback(remote)
            && IsLocalName(request.Host)
            // as nginx speaks where it is not told to add headers
            && !HttpProtocol.IsHttp10(request.Protocol)
            && !IsFromForeignPage(request)
            && !IsForwarded(request.Headers);
    }

    /// <summary>Whether a browser sends the request for a page of another origin.</summary>
    public static bool IsFromForeignPage(HttpRequest request) =>
        (request.Headers.Origin.Count > 0 && !IsOwnOrigin(request))
        || request.Headers["Sec-Fetch-Site"].ToString() is not ("" or "none" or "same-origin");

    private bool IsLocalName(HostString host)
    {
        if (host.Value == _localName)
            return true;
        if (!IsLoopbackName(host.Host))
            return false;
        _localName = host.Value!;
        return true;
    }

    private static bool IsForwarded(IHeaderDictionary headers)
    {
        foreach (var (name, _) in headers)
        {
            if (IsForwarding(name))
                return true;
        }
        return false;
    }

    private static bool IsOwnOrigin(HttpRequest request) =>
        request.Headers.Origin is [{ } origin] && origin.Equals($"{request.Scheme}://{request.Host}", StringComparison.OrdinalIgnoreCase);

    private static bool IsForwarding(string header) =>
        header.StartsWith("X-Forwarded", StringComparison.OrdinalIgnoreCase)
        || header.StartsWith("X-Original", StringComparison.OrdinalIgnoreCase)
        || ForwardingHeaders.Contains(header, StringComparer.OrdinalIgnoreCase);

    private static bool IsLoopbackName(string host) =>
        host.Equals("localhost", StringComparison.OrdinalIgnoreCase)
        || (IPAddress.TryParse(host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address));
}
