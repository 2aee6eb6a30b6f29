using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace ModelHost.TestKit;

/// <summary>
/// A port of the loopback that leads to a server there: a network that can be slow, stall, break and be gone, all at run time. It counts what it
/// hands to its clients.
/// </summary>
public sealed class NetworkRelay : IAsyncDisposable
{
    private static readonly TimeSpan Tick = TimeSpan.FromMilliseconds(10);

    private readonly IPEndPoint _server;
    private readonly ConcurrentDictionary<Connection, Task> _connections = new();
    private readonly CancellationTokenSource _ended = new();
    private readonly Lock _lock = new();
    private Socket _listener;
    private Task _accepting;
    private double _allowance;
    private long _refilled = TimeProvider.System.GetTimestamp();
    private long _bytes;
    private int _accepted;

    /// <summary>Begins to relay.</summary>
    /// <param name="server">Address and port of the server.</param>
    public NetworkRelay(string server)
    {
        _server = IPEndPoint.Parse(server);
        _listener = Bind(TestPorts.Free()); // bound anew to refuse, which one of the kernel's choice could be somebody's by then
        _accepting = AcceptAsync(_listener);
        Host = _listener.LocalEndPoint!.ToString()!;
    }

    /// <summary>Address and port where it listens.</summary>
    public string Host { get; }

    /// <summary>What all clients together receive in a second; 0: nothing, with all connections left as they are. Default: no limit.</summary>
    public long BytesPerSecond { get; set; } = long.MaxValue;

    /// <summary>How long a new connection waits before its first byte goes on. Default: not at all.</summary>
    public TimeSpan Delay { get; set; }

    /// <summary>Bytes handed to clients.</summary>
    public long Bytes => Interlocked.Read(ref _bytes);

    /// <summary>Connections taken since the beginning.</summary>
    public int Accepted => Volatile.Read(ref _accepted);

    /// <summary>Connections that are open now.</summary>
    public int Open => _connections.Count;

    /// <summary>Resets every connection; new ones are taken.</summary>
    public void Cut()
    {
        foreach (var connection in _connections.Keys)
            connection.Reset();
    }

    /// <summary>Resets every connection and refuses new ones.</summary>
    public async Task RefuseAsync()
    {
        await StopListeningAsync();
        // bound and not listening: the port stays ours, and who connects is refused
        _listener = Bind(((IPEndPoint)IPEndPoint.Parse(Host)).Port);
        Cut();
    }

    /// <summary>Takes connections again after <see cref="RefuseAsync"/>.</summary>
    public void Heal() => _accepting = AcceptAsync(_listener);

    public async ValueTask DisposeAsync()
    {
        await StopListeningAsync();
        await _ended.CancelAsync();
        Cut();
        await Task.WhenAll(_connections.Values);
        _ended.Dispose();
    }

    private static Socket Bind(int port)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, port));
        return socket;
    }

    private async Task StopListeningAsync()
    {
        _listener.Dispose();
        await _accepting;
    }

    private async Task AcceptAsync(Socket listener)
    {
        listener.Listen();
        try
        {
            while (true)
            {
                var connection = new Connection(await listener.AcceptAsync(_ended.Token));
                Interlocked.Increment(ref _accepted);
                var begun = new TaskCompletionSource();
                _connections[connection] = RelayAsync(connection, begun.Task);
                begun.SetResult(); // not before it is among the others, from which it takes itself
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // refused from now on
        }
    }

    private async Task RelayAsync(Connection connection, Task begun)
    {
        await begun;
        try
        {
            await Task.Delay(Delay, _ended.Token);
            await connection.Server.ConnectAsync(_server, _ended.Token);
            Task[] pumps = [PumpAsync(connection.Client, connection.Server, static wanted => wanted), PumpAsync(connection.Server, connection.Client, Take)];
            // one that ends takes the other with it
            await Task.WhenAny(pumps);
            connection.Dispose();
            await Task.WhenAll(pumps); // one that is not open any more hands out nothing, and what is counted stands still
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // the test has ended, or the server has
        }
        _connections.TryRemove(connection, out _);
        connection.Dispose();
    }

    private async Task PumpAsync(Socket from, Socket to, Func<int, int> allow)
    {
        var buffer = new byte[16 * 1024];
        try
        {
            while (await from.ReceiveAsync(buffer, _ended.Token) is var read and > 0)
            {
                for (var sent = 0; sent < read;)
                {
                    var allowed = allow(read - sent);
                    if (allowed == 0)
                        await Task.Delay(Tick, _ended.Token);
                    else
                        sent += await to.SendAsync(buffer.AsMemory(sent, allowed), _ended.Token);
                }
            }
            // closed without that, a socket takes back what the other side has not read yet
            to.Shutdown(SocketShutdown.Send);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // cut
        }
    }

    /// <summary>How many of some bytes may go to a client now.</summary>
    private int Take(int wanted)
    {
        lock (_lock)
        {
            var (rate, now) = (BytesPerSecond, TimeProvider.System.GetTimestamp());
            // never more than a tenth of a second at once: a changed rate counts at once
            _allowance = Math.Min(_allowance + (rate * TimeProvider.System.GetElapsedTime(_refilled, now).TotalSeconds), rate / 10.0);
            _refilled = now;
            var taken = (int)Math.Min(wanted, _allowance);
            _allowance -= taken;
            _bytes += taken;
            return taken;
        }
    }

    private sealed class Connection(Socket client) : IDisposable
    {
        public Socket Client => client;

        public Socket Server { get; } = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

        public void Reset()
        {
            client.Close(0); // at once: the client sees a reset
            Server.Dispose();
        }

        public void Dispose()
        {
            client.Dispose();
            Server.Dispose();
        }
    }
}
