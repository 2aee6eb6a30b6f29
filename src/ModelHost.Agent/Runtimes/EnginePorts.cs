using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;

namespace ModelHost.Agent.Runtimes;

/// <summary>Which ports of this machine are free.</summary>
internal static class EnginePorts
{
    /// <summary>A loopback port for an engine.</summary>
    /// <param name="options">Says from where to where.</param>
    /// <param name="taken">Ports of engines that may not listen yet.</param>
    /// <exception cref="InvalidOperationException">None is free.</exception>
    public static int Free(NodeOptions options, HashSet<int> taken)
    {
        var range = options.EnginePortLast - options.EnginePortFirst + 1;
        // not always from the first one: another ModelHost on this machine may look at the same moment
        var begin = RandomNumberGenerator.GetInt32(range);
        for (var i = 0; i < range; i++)
        {
            var port = options.EnginePortFirst + ((begin + i) % range);
            if (!taken.Contains(port) && WhyNotBindable(IPAddress.Loopback, port) is null)
                return port;
        }
        throw new InvalidOperationException($"no port is free between {options.EnginePortFirst} and {options.EnginePortLast}");
    }

    /// <summary>Why nothing could listen at a port now, on any address; null: something could.</summary>
    public static string? WhyTaken(int port) =>
        WhyNotBindable(IPAddress.Any, port) ?? (Socket.OSSupportsIPv6 ? WhyNotBindable(IPAddress.IPv6Any, port) : null);

    private static string? WhyNotBindable(IPAddress address, int port)
    {
        try
        {
            using var listener = new TcpListener(address, port);
            listener.Start();
            return null;
        }
        catch (SocketException e)
        {
            return e.Message;
        }
    }
}
