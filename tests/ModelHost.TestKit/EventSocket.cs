using System.Net;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;

namespace ModelHost.TestKit;

/// <summary>A client of <c>/ws</c>.</summary>
public sealed class EventSocket : IAsyncDisposable
{
    private readonly ClientWebSocket _socket = new();

    private EventSocket()
    {
    }

    /// <summary>The socket itself.</summary>
    public ClientWebSocket Socket => _socket;

    /// <summary>Connects.</summary>
    /// <param name="server">Where the control plane listens.</param>
    /// <param name="path">The route.</param>
    /// <param name="headers">Headers of the handshake.</param>
    public static async Task<EventSocket> OpenAsync(Uri server, string path = "/ws", params (string Name, string Value)[] headers)
    {
        var client = new EventSocket();
        foreach (var (name, value) in headers)
            client._socket.Options.SetRequestHeader(name, value);
        await client._socket.ConnectAsync(Address(server, path), CancellationToken.None);
        return client;
    }

    /// <summary>The status with which a handshake is answered; 101: it is taken.</summary>
    public static async Task<HttpStatusCode> StatusAsync(Uri server, string path = "/ws", params (string Name, string Value)[] headers)
    {
        using var socket = new ClientWebSocket { Options = { CollectHttpResponseDetails = true } };
        foreach (var (name, value) in headers)
            socket.Options.SetRequestHeader(name, value);
        try
        {
            await socket.ConnectAsync(Address(server, path), CancellationToken.None);
        }
        catch (WebSocketException) when (socket.HttpStatusCode != 0)
        {
            // the answer says it
        }
        return socket.HttpStatusCode;
    }

    /// <summary>The next message as it came; null: the server has closed.</summary>
    public async Task<string?> NextAsync()
    {
        using var message = new MemoryStream();
        var buffer = new byte[4096];
        using var deadline = new CancellationTokenSource(Deadline.Allowed(120));
        while (true)
        {
            var piece = await _socket.ReceiveAsync(buffer, deadline.Token);
            if (piece.MessageType == WebSocketMessageType.Close)
                return null;
            message.Write(buffer, 0, piece.Count);
            if (piece.EndOfMessage)
                return Encoding.UTF8.GetString(message.ToArray());
        }
    }

    /// <summary>Reads on until a message of a type comes.</summary>
    public async Task<JsonElement> NextAsync(string type)
    {
        while (await NextAsync() is { } text)
        {
            var message = JsonDocument.Parse(text).RootElement;
            if (message.GetProperty("type").GetString() == type)
                return message;
        }
        throw new InvalidOperationException($"the server closed before {type}");
    }

    /// <summary>Sends a text.</summary>
    public Task SendAsync(string text) => _socket.SendAsync(Encoding.UTF8.GetBytes(text), WebSocketMessageType.Text, endOfMessage: true, CancellationToken.None);

    public ValueTask DisposeAsync()
    {
        _socket.Dispose();
        return ValueTask.CompletedTask;
    }

    private static Uri Address(Uri server, string path)
    {
        var host = server.Host == "0.0.0.0" ? "127.0.0.1" : server.Host;
        return new Uri($"{(server.Scheme == Uri.UriSchemeHttps ? "wss" : "ws")}://{host}:{server.Port}{path}");
    }
}
