using System.Net;
using System.Net.Sockets;

namespace ModelHost.TestKit;

/// <summary>Ports that tests use side by side without meeting.</summary>
public static class TestPorts
{
    // below those that the kernel gives to outgoing connections, of which any could be one's own by the time that it is listened at
    private const int First = 20000, Last = 24999, Each = 20, FirstFree = 25000, LastFree = 31999;
    // test processes that run at the same time begin at different places
    private static int s_next = Environment.ProcessId * 7 % ((Last - First + 1) / Each), s_free = Environment.ProcessId * 37 % (LastFree - FirstFree + 1);

    /// <summary>A range of engine ports for one node.</summary>
    public static (int First, int Last) EngineRange()
    {
        var slot = Interlocked.Increment(ref s_next) % ((Last - First + 1) / Each);
        return (First + (slot * Each), First + (slot * Each) + Each - 1);
    }

    /// <summary>A port that nobody listens on now, and that nobody else is given soon.</summary>
    public static int Free()
    {
        while (true)
        {
            var port = FirstFree + (int)((uint)Interlocked.Increment(ref s_free) % (LastFree - FirstFree + 1));
            try
            {
                using var listener = new TcpListener(IPAddress.Any, port);
                listener.Start();
                return port;
            }
            catch (SocketException)
            {
                // it is somebody's: the next one
            }
        }
    }
}
