using System.Net.Sockets;
using System.Text;

namespace ModelHost.Tests.Gateway;

/// <summary>HTTP as bytes on a socket.</summary>
internal static class RawHttp
{
    /// <summary>Sends the text and reads until the server closes.</summary>
    /// <param name="server">Where to.</param>
    /// <param name="text">What; its lines end as HTTP wants it.</param>
    /// <param name="halfClose">Whether the sending side is closed, so that the server waits for nothing more.</param>
    /// <param name="cancellationToken">Ends the wait.</param>
    public static async Task<string> SendAsync(Uri server, string text, bool halfClose, CancellationToken cancellationToken)
    {
        using var socket = new TcpClient();
        await socket.ConnectAsync(server.Host, server.Port, cancellationToken);
        var stream = socket.GetStream();
        await stream.WriteAsync(Encoding.Latin1.GetBytes(text.ReplaceLineEndings("\r\n")), cancellationToken);
        if (halfClose)
            socket.Client.Shutdown(SocketShutdown.Send);
        using var reader = new StreamReader(stream, Encoding.UTF8);
        try
        {
            return await reader.ReadToEndAsync(cancellationToken);
        }
        catch (IOException) when (halfClose)
        {
            return ""; // reset: the server did not like that the body was not whole
        }
    }
}
