using System.Net.WebSockets;

namespace ModelHost.Features.Events;

/// <summary>
/// One client of <c>/ws</c> from its handshake to its end: changes go out, what it sends is read and thrown away. Every wait on it has an end.
/// </summary>
internal sealed class EventClient(WebSocket socket, ChangeSubscription changes, EventOptions options, TimeProvider time)
{
    private const int ReadBuffer = 1024;

    /// <summary>Serves the client until it leaves, breaks a limit, or <paramref name="stopping"/>; then closes.</summary>
    /// <returns>Whether it had to be dropped because it took too long.</returns>
    public async Task<bool> RunAsync(CancellationToken stopping)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(stopping);
        var reading = ReadAsync(options.MaxMessageBytes);
        var forwarding = ForwardAsync(ending.Token);
        await Task.WhenAny(reading, forwarding);
        await ending.CancelAsync();
        var slow = await forwarding;
        if (!slow)
            await CloseAsync(reading);
        socket.Abort(); // no more than a formality where the closing went well
        await reading;
        return slow;
    }

    /// <summary>Sends changes until cancelled.</summary>
    /// <returns>Whether it ended because the client did not take one in time.</returns>
    private async Task<bool> ForwardAsync(CancellationToken ending)
    {
        try
        {
            await foreach (var change in changes.ReadAllAsync(ending))
            {
                foreach (var message in EventMessage.Of(change))
                {
                    if (!await SendAsync(message))
                        return true;
                }
            }
        }
        catch (Exception e) when (e is OperationCanceledException or WebSocketException)
        {
            // the end, or the client is gone, which the reading side sees as well
        }
        return false;
    }

    private async Task<bool> SendAsync(EventMessage message)
    {
        using var deadline = new CancellationTokenSource(options.SendTimeout, time);
        try
        {
            // not by the token of the end: after a frame that was cut short a closing frame could not be read
            await socket.SendAsync(message.ToJson(), WebSocketMessageType.Text, endOfMessage: true, deadline.Token);
            return true;
        }
        catch (OperationCanceledException) when (deadline.IsCancellationRequested)
        {
            return false;
        }
    }

    /// <summary>Reads until the client closes or is gone, or sends a message larger than allowed.</summary>
    /// <returns>What to close with.</returns>
    private async Task<WebSocketCloseStatus> ReadAsync(long limit)
    {
        var buffer = new byte[ReadBuffer];
        var size = 0L;
        try
        {
            // no token: a cancelled receive aborts the socket, and then nothing can be closed properly
            while (await socket.ReceiveAsync(buffer.AsMemory(), CancellationToken.None) is { MessageType: not WebSocketMessageType.Close } piece)
            {
                size += piece.Count;
                if (size > limit)
                    return WebSocketCloseStatus.MessageTooBig;
                size = piece.EndOfMessage ? 0 : size;
            }
        }
        catch (Exception e) when (e is WebSocketException or OperationCanceledException or ObjectDisposedException)
        {
            // gone without a word
        }
        return WebSocketCloseStatus.NormalClosure;
    }

    private async Task CloseAsync(Task<WebSocketCloseStatus> reading)
    {
        var status = reading.IsCompleted ? await reading : WebSocketCloseStatus.EndpointUnavailable;
        using var deadline = new CancellationTokenSource(options.SendTimeout, time);
        try
        {
            if (socket.State is WebSocketState.Open or WebSocketState.CloseReceived)
                await socket.CloseOutputAsync(status, null, deadline.Token);
            // with bytes of the client unread, the end of the connection would overtake the closing frame
            var answered = socket.State == WebSocketState.CloseSent && reading.IsCompleted ? ReadAsync(long.MaxValue) : reading;
            await answered.WaitAsync(deadline.Token);
        }
        catch (Exception e) when (e is WebSocketException or OperationCanceledException)
        {
            // it had its time
        }
    }
}
