using System.Net;
using System.Net.Sockets;

namespace ModelHost.TestKit;

/// <summary>Ports that tests use side by side without meeting.</summary>
public static class TestPorts
{
    private const int First = 41000, Last = 41999, Each = 20;
    // test processes that run at the same time begin at different places
    private static int s_next = Environment.ProcessId * 7 % ((Last - First + 1) / Each);

    /// <summary>A range of engine ports for one node.</summary>
    public static (int First, int Last) EngineRange()
    {
        var slot = Interlocked.Increment(ref s_next) % ((Last - First + 1) / Each);
        return (First + (slot * Each), First + (slot * Each) + Each - 1);
    }

    /// <summary>A loopback port that nobody listens on now.</summary>
    public static int Free()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
