using System.Collections.Concurrent;
using System.Net.Sockets;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>A unix socket that leads to another one, and can be cut: the engine behind it is then gone for whoever came this way.</summary>
internal sealed class SocketRelay : IAsyncDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("mh-relay-").FullName;
    private readonly string _target;
    private readonly ConcurrentDictionary<Socket, bool> _open = new();
    private Socket? _listener;
    private Task _accepting = Task.CompletedTask;

    /// <summary>Begins to relay.</summary>
    public SocketRelay(Uri target)
    {
        _target = target.AbsolutePath;
        Heal();
    }

    /// <summary>Where it listens.</summary>
    public string Endpoint => $"unix://{Path}";

    private string Path => System.IO.Path.Combine(_folder, "engine.sock");

    /// <summary>Lets connections through again.</summary>
    public void Heal()
    {
        _listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        _listener.Bind(new UnixDomainSocketEndPoint(Path));
        _listener.Listen();
        _accepting = AcceptAsync(_listener);
    }

    /// <summary>Breaks all connections and takes no new ones.</summary>
    public async Task CutAsync()
    {
        _listener?.Dispose();
        File.Delete(Path);
        await _accepting;
        foreach (var socket in _open.Keys)
            socket.Dispose();
    }

    public async ValueTask DisposeAsync()
    {
        await CutAsync();
        Directory.Delete(_folder, recursive: true);
    }

    private async Task AcceptAsync(Socket listener)
    {
        try
        {
            while (true)
            {
                _ = RelayAsync(await listener.AcceptAsync());
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // cut
        }
    }

    private async Task RelayAsync(Socket near)
    {
        var far = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        _open[near] = _open[far] = true; // before anything is waited for: a cut finds them
        try
        {
            await far.ConnectAsync(new UnixDomainSocketEndPoint(_target));
            await Task.WhenAll(PumpAsync(near, far), PumpAsync(far, near));
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // cut, or the engine has no room for another one just now: this connection fails, and those after it are taken
        }
        foreach (var socket in (Socket[])[near, far])
        {
            socket.Dispose();
            _open.TryRemove(socket, out _);
        }
    }

    private static async Task PumpAsync(Socket from, Socket to)
    {
        var buffer = new byte[64 * 1024];
        try
        {
            while (await from.ReceiveAsync(buffer) is var read and > 0)
            {
                for (var sent = 0; sent < read;)
                    sent += await to.SendAsync(buffer.AsMemory(sent, read - sent));
            }
            to.Shutdown(SocketShutdown.Send);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            from.Dispose();
            to.Dispose();
        }
    }
}
