using System.ComponentModel.DataAnnotations;
using System.Net;

namespace ModelHost.Agent.Downloads;

/// <summary>The proxy that the operator has downloads go through, and what does not go through it.</summary>
/// <remarks>
/// Through it the addresses that names lead to are not known here. So whatever may mean something nearby is never asked of it: addresses that are not public,
/// in any spelling, and names that only the own network has. Those are reached directly, where they are judged.
/// </remarks>
public sealed class DownloadProxy : IWebProxy
{
    // RFC 6761, RFC 6762 appendix G, RFC 8375, and ICANN's "internal"
    private static readonly string[] s_nearby = ["localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa"];
    private readonly Uri _address;
    private readonly IReadOnlyList<string> _exempt;

    private DownloadProxy(Uri proxy, IReadOnlyList<string> exempt)
    {
        _address = new UriBuilder(proxy.Scheme, proxy.Host, proxy.Port).Uri; // without the login, which messages would have in them
        _exempt = exempt;
        if (proxy.UserInfo.Split(':', 2) is [var user, .. var password] && user.Length > 0)
            Credentials = new NetworkCredential(Uri.UnescapeDataString(user), Uri.UnescapeDataString(string.Concat(password)));
    }

    /// <inheritdoc/>
    public ICredentials? Credentials { get; set; }

    /// <summary>The proxy of the configuration; null: there is none.</summary>
    public static DownloadProxy? Of(DownloadOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        return options.Proxy.Length == 0 ? null : new(new Uri(options.Proxy), HostListAttribute.Split(options.NoProxy));
    }

    /// <inheritdoc/>
    public Uri? GetProxy(Uri destination) => IsBypassed(destination) ? null : _address;

    /// <inheritdoc/>
    public bool IsBypassed(Uri host)
    {
        ArgumentNullException.ThrowIfNull(host);
        var name = host.IdnHost.TrimEnd('.');
        return IsNearby(name) || _exempt.Any(one => IsWithin(name, one));
    }

    private static bool IsNearby(string name)
    {
        if (IPAddress.TryParse(name, out var address))
            return !PublicAddress.Is(address);
        var last = name[(name.LastIndexOf('.') + 1)..];
        // what ends in a number is an address to some: 127.1, 0x7f.1
        return last.Length == name.Length || last.Length == 0 || last.All(char.IsAsciiDigit) || last.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
            || s_nearby.Any(one => IsWithin(name, one));
    }

    private static bool IsWithin(string name, string domain) =>
        name.EndsWith(domain, StringComparison.OrdinalIgnoreCase) && (name.Length == domain.Length || name[^(domain.Length + 1)] == '.');
}

/// <summary>Lets through the address of a proxy, and nothing.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class ProxyAddressAttribute() : ValidationAttribute("a proxy is http://[USER:PASSWORD@]HOST:PORT, and nothing after it")
{
    public override bool IsValid(object? value) => value is null or "" || (value is string text && Uri.TryCreate(text, UriKind.Absolute, out var url)
        && url is { Scheme: "http", PathAndQuery: "/", Fragment.Length: 0, Host.Length: > 0 } && !url.UserInfo.StartsWith(':'));
}

/// <summary>Lets through names of hosts and addresses, separated by commas, and nothing.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class HostListAttribute() : ValidationAttribute("hosts are names or addresses without port, separated by commas: registry.example, .lab.example, 10.0.0.5")
{
    public static IReadOnlyList<string> Split(string text) =>
        [.. text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Select(host => host.TrimStart('*').TrimStart('.'))];

    public override bool IsValid(object? value) => value is null || (value is string text && Split(text).All(host => Uri.CheckHostName(host) != UriHostNameType.Unknown));
}
