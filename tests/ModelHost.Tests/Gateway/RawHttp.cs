using System.Net.Security;
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
    /// <param name="asItIs">Whether the ends of its lines are left alone.</param>
    public static async Task<string> SendAsync(Uri server, string text, bool halfClose, CancellationToken cancellationToken, bool asItIs = false)
    {
        using var socket = new TcpClient();
        await socket.ConnectAsync(server.Host, server.Port, cancellationToken);
        await using var stream = await SecureAsync(server, socket, SslApplicationProtocol.Http11, cancellationToken);
        var answer = new MemoryStream();
        try
        {
            await stream.WriteAsync(Encoding.Latin1.GetBytes(asItIs ? text : text.ReplaceLineEndings("\r\n")), cancellationToken);
            if (halfClose && stream is SslStream secured)
                await secured.ShutdownAsync();
            else if (halfClose)
                socket.Client.Shutdown(SocketShutdown.Send);
        }
        catch (Exception e) when (halfClose && e is IOException or SocketException)
        {
            // refused before all of it was sent: what the server said may be there all the same
        }
        try
        {
            await stream.CopyToAsync(answer, cancellationToken);
        }
        catch (IOException) when (halfClose)
        {
            // reset: the server did not like that the body was not whole
        }
        return Encoding.UTF8.GetString(answer.ToArray());
    }

    /// <summary>The stream to talk on: with TLS where the address has it.</summary>
    public static async Task<Stream> SecureAsync(Uri server, TcpClient socket, SslApplicationProtocol protocol, CancellationToken cancellationToken)
    {
        if (server.Scheme != Uri.UriSchemeHttps)
            return socket.GetStream();
        var stream = new SslStream(socket.GetStream(), leaveInnerStreamOpen: false, (_, shown, _, _) => shown?.Subject == "CN=localhost");
        await stream.AuthenticateAsClientAsync(new SslClientAuthenticationOptions { TargetHost = "localhost", ApplicationProtocols = [protocol] }, cancellationToken);
        return stream;
    }
}
