using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using ModelHost.Agent.Http;

namespace ModelHost.Access;

/// <summary>
/// Whether a request comes from a program on this machine and from nobody behind it: not through a reverse proxy, not from a web
/// page, not under a name that was rebound to this address.
/// </summary>
internal sealed class LoopbackGuard(IServer server)
{
    private bool? _isBoundToLoopbackOnly;
    // the name that was last found to be of this machine: nearly all requests come with the same one
    private volatile string _localName = "localhost";

    /// <summary>Whether every listener is bound to loopback; asked by requests only, when all of them are bound.</summary>
    public bool IsBoundToLoopbackOnly => _isBoundToLoopbackOnly ??=
        server.Features.Get<IServerAddressesFeature>()?.Addresses is { Count: > 0 } addresses
        && addresses.All(IsLoopback);

    /// <summary>Whether an address listened on is reached from this machine only.</summary>
    public static bool IsLoopback(string url) => BindingAddress.Parse(url) is { IsUnixPipe: false } binding && LocalRequest.IsLoopbackName(binding.Host);

    /// <summary>Whether the request is local.</summary>
    public bool IsLocal(HttpContext context) => IsBoundToLoopbackOnly && IsLocalName(context.Request.Host) && LocalRequest.IsLocalApartFromName(context);

    private bool IsLocalName(HostString host)
    {
        if (host.Value == _localName)
            return true;
        if (!LocalRequest.IsLoopbackName(host.Host))
            return false;
        _localName = host.Value!;
        return true;
    }
}
