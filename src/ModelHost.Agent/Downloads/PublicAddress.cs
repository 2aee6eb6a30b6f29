using System.Net;
using System.Net.Sockets;

namespace ModelHost.Agent.Downloads;

/// <summary>Tells addresses of the public internet from those that only mean something nearer by (IANA's special-purpose registries, RFC 6890).</summary>
public static class PublicAddress
{
    private static readonly IPNetwork[] s_special =
    [
        .. ((string[])
        [
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
            "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            // within 2000::/3: Teredo, ORCHID and other protocols; documentation; 6to4, which carries any IPv4 address
            "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        ]).Select(IPNetwork.Parse),
    ];

    private static readonly IPNetwork s_global = IPNetwork.Parse("2000::/3");
    private static readonly IPNetwork s_nat64 = IPNetwork.Parse("64:ff9b::/96");

    /// <summary>Whether anybody on the internet would reach the same machine there. Addresses that carry an IPv4 one are judged by it.</summary>
    public static bool Is(IPAddress address)
    {
        ArgumentNullException.ThrowIfNull(address);
        var judged = Plain(address);
        return !s_special.Any(network => network.Contains(judged))
            && (judged.AddressFamily == AddressFamily.InterNetwork || s_global.Contains(judged));
    }

    /// <summary>The IPv4 address that an IPv6 one stands for; any other as it is, without its zone.</summary>
    internal static IPAddress Plain(IPAddress address)
    {
        if (address.AddressFamily != AddressFamily.InterNetworkV6)
            return address;
        if (address.IsIPv4MappedToIPv6)
            return address.MapToIPv4();
        var bytes = address.GetAddressBytes();
        var zoneless = new IPAddress(bytes);
        return s_nat64.Contains(zoneless) ? new IPAddress(bytes[12..]) : zoneless;
    }
}
