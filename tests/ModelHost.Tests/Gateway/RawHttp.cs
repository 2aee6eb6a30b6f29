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
        await stream.WriteAsync(Encoding.Latin1.GetBytes(asItIs ? text : text.ReplaceLineEndings("\r\n")), cancellationToken);
        if (halfClose && stream is SslStream secured)
            await secured.ShutdownAsync();
        else if (halfClose)
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
