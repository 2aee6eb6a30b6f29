using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using ModelHost.Core;

namespace ModelHost.Features.Nodes;

/// <summary>What a node's name and address may be.</summary>
internal static partial class NodeRules
{
    /// <summary>What is wrong with a host name; null: nothing.</summary>
    public static Failure? Hostname(string hostname) =>
        Name().IsMatch(hostname) ? null
        : Failure.Invalid("hostname", "must be letters, digits and hyphens in parts of up to 63 separated by dots, none of which begins or ends with a hyphen");

    /// <summary>Reads an address in one of its written forms.</summary>
    /// <returns>Its usual form, or a refusal of what is none that a machine can have.</returns>
    public static Result<string> Address(string text)
    {
        // "1" and "010.0.0.1" are read as addresses too, and not as the ones that were meant
        if (!IPAddress.TryParse(text, out var address) || (address.AddressFamily == AddressFamily.InterNetwork && address.ToString() != text)
            || text.AsSpan().ContainsAny("%[]") || address.IsIPv4MappedToIPv6)
            return Failure.Invalid("ip_address", "must be an IPv4 address such as 10.0.0.7, or an IPv6 address without brackets and zone");
        var first = address.GetAddressBytes()[0];
        var isNobodys = address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any) || address.IsIPv6Multicast
            || (address.AddressFamily == AddressFamily.InterNetwork && first is 0 or >= 224);
        return isNobodys ? Failure.Invalid("ip_address", "is the address of no single machine") : address.ToString();
    }

    [GeneratedRegex(@"^(?=.{1,253}\z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\z")]
    private static partial Regex Name();
}
