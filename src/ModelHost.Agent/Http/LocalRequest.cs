using System.Net;
using Microsoft.AspNetCore.Http;

namespace ModelHost.Agent.Http;

/// <summary>
/// What tells a request of a program on this machine from that of somebody behind it: a reverse proxy, a web page, a name that was rebound to this
/// address.
/// </summary>
public static class LocalRequest
{
    private static readonly string[] ForwardingHeaders = ["Forwarded", "Via", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP"];

    /// <summary>Whether a program on this machine sends it, to a listener that is reached from this machine only.</summary>
    public static bool IsLocal(HttpContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        return IsLoopbackName(context.Request.Host.Host) && IsLocalApartFromName(context);
    }

    /// <summary>As <see cref="IsLocal"/>, of a request whose host is known to be a name of this machine.</summary>
    public static bool IsLocalApartFromName(HttpContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var request = context.Request;
        return context.Connection.RemoteIpAddress is { } remote && IPAddress.IsLoopback(remote)
            // as nginx speaks where it is not told to add headers
            && !HttpProtocol.IsHttp10(request.Protocol)
            && !IsFromForeignPage(request)
            && !IsForwarded(request.Headers);
    }

    /// <summary>Whether a browser sends the request for a page of another origin.</summary>
    public static bool IsFromForeignPage(HttpRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        return (request.Headers.Origin.Count > 0 && !IsOwnOrigin(request))
            || request.Headers["Sec-Fetch-Site"].ToString() is not ("" or "none" or "same-origin");
    }

    /// <summary>Whether a host is this machine to itself.</summary>
    public static bool IsLoopbackName(string host)
    {
        ArgumentNullException.ThrowIfNull(host);
        return host.Equals("localhost", StringComparison.OrdinalIgnoreCase)
            || (IPAddress.TryParse(host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address));
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
}
