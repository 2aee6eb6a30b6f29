using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace ModelHost.TestKit;

/// <summary>A request that a proxy got.</summary>
/// <param name="Line">Its first line: <c>CONNECT host:port HTTP/1.1</c>, or <c>GET http://host/path HTTP/1.1</c>.</param>
/// <param name="Authorization">Its <c>Proxy-Authorization</c>; empty: none.</param>
/// <param name="Head">All of its head.</param>
public sealed record ProxiedRequest(string Line, string Authorization, string Head);

/// <summary>An HTTP proxy on loopback: it tunnels, and passes on what comes in absolute form, to where it is told that names lead.</summary>
public sealed class ConnectProxy : IAsyncDisposable
{
    private const int MaxHead = 32 * 1024;

    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly ConcurrentQueue<ProxiedRequest> _requests = new();
    private readonly ConcurrentDictionary<Task, bool> _connections = new();
    private readonly CancellationTokenSource _ended = new();
    private readonly Task _accepting;

    /// <summary>Begins to listen.</summary>
    public ConnectProxy()
    {
        _listener.Start();
        _accepting = AcceptAsync();
    }

    /// <summary>Host and port where it listens.</summary>
    public string Host => _listener.LocalEndpoint.ToString()!;

    /// <summary>Where hosts lead, by <c>host:port</c>; others are answered 502.</summary>
    public ConcurrentDictionary<string, IPEndPoint> Hosts { get; } = new(StringComparer.OrdinalIgnoreCase);

    /// <summary><c>user:password</c> without which it lets nobody through; null: it lets everybody.</summary>
    public string? Login { get; set; }

    /// <summary>What it answers everything with; null: it does its work.</summary>
    public int? Refuses { get; set; }

    /// <summary>What it was asked, in order.</summary>
    public IReadOnlyList<ProxiedRequest> Requests => [.. _requests];

    /// <summary>Lets a name lead to a server of this machine.</summary>
    public void Lead(string host, Uri server) => Hosts[host] = IPEndPoint.Parse(server.Authority);

    public async ValueTask DisposeAsync()
    {
        await _ended.CancelAsync();
        _listener.Dispose();
        await _accepting;
        await Task.WhenAll(_connections.Keys);
        _ended.Dispose();
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                var client = await _listener.AcceptTcpClientAsync(_ended.Token);
                _connections[ServeAsync(client)] = true;
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // ended
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        using (client)
        {
            try
            {
                await using var stream = client.GetStream();
                while (await HeadAsync(stream) is { Length: > 0 } head && await AnswerAsync(stream, head))
                {
                    // refused politely: the client may ask again
                }
            }
            catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or OperationCanceledException)
            {
                // one of the two has left
            }
        }
    }

    /// <summary>Answers; true: the connection can be asked more.</summary>
    private async Task<bool> AnswerAsync(NetworkStream client, string head)
    {
        var lines = head.Split("\r\n");
        var authorization = lines.FirstOrDefault(line => line.StartsWith("Proxy-Authorization: ", StringComparison.OrdinalIgnoreCase))?.Split(": ", 2)[1] ?? "";
        _requests.Enqueue(new ProxiedRequest(lines[0], authorization, head));
        if (Refuses is { } status)
            return await SayAsync(client, $"{status} Refused");
        if (Login is not null && authorization != "Basic " + Convert.ToBase64String(Encoding.UTF8.GetBytes(Login)))
            return await SayAsync(client, "407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"tests\"\r\n");
        var (method, target) = (lines[0].Split(' ')[0], lines[0].Split(' ')[1]);
        var isTunnel = method == "CONNECT";
        var url = isTunnel ? null : new Uri(target);
        if (!Hosts.TryGetValue(isTunnel ? target : $"{url!.Host}:{url.Port}", out var server))
            return await SayAsync(client, "502 No Such Host");
        using var other = new TcpClient();
        await other.ConnectAsync(server, _ended.Token);
        await using var beyond = other.GetStream();
        if (isTunnel)
            await client.WriteAsync("HTTP/1.1 200 Connection Established\r\n\r\n"u8.ToArray(), _ended.Token);
        else
            await beyond.WriteAsync(Encoding.Latin1.GetBytes(string.Join("\r\n", [$"{method} {url!.PathAndQuery} HTTP/1.1", "Connection: close",
                .. lines.Skip(1).Where(line => !line.StartsWith("Proxy-", StringComparison.OrdinalIgnoreCase) && !line.StartsWith("Connection:", StringComparison.OrdinalIgnoreCase))])), _ended.Token);
        await Task.WhenAny(client.CopyToAsync(beyond, _ended.Token), beyond.CopyToAsync(client, _ended.Token));
        return false;
    }

    private async Task<bool> SayAsync(NetworkStream client, string status, string headers = "")
    {
        await client.WriteAsync(Encoding.ASCII.GetBytes($"HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n"), _ended.Token);
        return true;
    }

    private async Task<string> HeadAsync(NetworkStream stream)
    {
        var head = new List<byte>();
        var one = new byte[1];
        while (head.Count < MaxHead && await stream.ReadAsync(one, _ended.Token) > 0)
        {
            head.Add(one[0]);
            if (head.Count >= 4 && head[^1] == '\n' && head[^2] == '\r' && head[^3] == '\n')
                return Encoding.Latin1.GetString([.. head]);
        }
        return "";
    }
}
