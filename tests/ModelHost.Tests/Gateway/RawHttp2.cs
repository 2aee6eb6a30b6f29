using System.Buffers.Binary;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;

namespace ModelHost.Tests.Gateway;

/// <summary>HTTP/2 as frames on a socket with TLS, so that headers can be sent that no client would send (RFC 9113, RFC 7541).</summary>
internal static class RawHttp2
{
    private const byte Data = 0, Headers = 1, Reset = 3, GoAway = 7;
    private const byte EndStream = 1, EndHeaders = 4;

    /// <summary>Posts a body on one stream.</summary>
    /// <returns>The status; 0: the stream or the connection was ended instead.</returns>
    public static async Task<int> PostAsync(Uri server, string path, (string Name, string Value)[] headers, string body, CancellationToken cancellationToken)
    {
        using var socket = new TcpClient();
        await socket.ConnectAsync("127.0.0.1", server.Port, cancellationToken);
        await using var stream = await RawHttp.SecureAsync(server, socket, SslApplicationProtocol.Http2, cancellationToken);
        var block = new List<byte>();
        foreach (var (name, value) in ((string, string)[])[(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", path), .. headers])
            Add(block, name, value);
        byte[] request =
            [
                .. "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8, .. Frame(type: 4, 0, 0, []),
                .. Frame(Headers, EndHeaders, 1, [.. block]), .. Frame(Data, EndStream, 1, Encoding.UTF8.GetBytes(body)),
            ];
        await stream.WriteAsync(request, cancellationToken);
        var head = new byte[9];
        try
        {
            while (true)
            {
                await stream.ReadExactlyAsync(head, cancellationToken);
                var content = new byte[(head[0] << 16) | (head[1] << 8) | head[2]];
                await stream.ReadExactlyAsync(content, cancellationToken);
                if (head[3] == Headers)
                    return ReadStatus(content);
                if (head[3] is Reset or GoAway)
                    return 0;
            }
        }
        catch (IOException)
        {
            return 0;
        }
    }

    private static byte[] Frame(byte type, byte flags, int streamId, byte[] content)
    {
        var frame = new byte[9 + content.Length];
        (frame[0], frame[1], frame[2], frame[3], frame[4]) = ((byte)(content.Length >> 16), (byte)(content.Length >> 8), (byte)content.Length, type, flags);
        BinaryPrimitives.WriteInt32BigEndian(frame.AsSpan(5), streamId);
        content.CopyTo(frame, 9);
        return frame;
    }

    // a literal that is not indexed, with a literal name
    private static void Add(List<byte> block, string name, string value)
    {
        block.Add(0);
        foreach (var text in (string[])[name, value])
        {
            block.Add(checked((byte)(text.Length < 127 ? text.Length : throw new ArgumentException("too long for one byte"))));
            block.AddRange(Encoding.Latin1.GetBytes(text));
        }
    }

    // the status comes first: an entry of the static table, or a literal with its name from there
    private static int ReadStatus(byte[] block)
    {
        var at = 0;
        while ((block[at] & 0xE0) == 0x20) // changes of the table's size
            at++;
        return block[at] switch
        {
            0x88 => 200,
            0x89 => 204,
            0x8A => 206,
            0x8B => 304,
            0x8C => 400,
            0x8D => 404,
            0x8E => 500,
            _ => int.Parse(Encoding.ASCII.GetString(block, at + 2, 3), System.Globalization.CultureInfo.InvariantCulture),
        };
    }
}
