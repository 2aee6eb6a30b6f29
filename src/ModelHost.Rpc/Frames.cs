using System.Buffers;
using System.Buffers.Binary;
using System.IO.Compression;
using System.IO.Pipelines;
using Google.Protobuf;

namespace ModelHost.Rpc;

/// <summary>Messages on the stream of a call: a flag byte, four bytes of length, the message.</summary>
internal static class Frames
{
    private const int HeadBytes = 5;
    private const int UnpackedAtOnce = 32 * 1024;

    /// <summary>Writes a message, uncompressed.</summary>
    public static void Write(IBufferWriter<byte> output, IMessage message)
    {
        var head = output.GetSpan(HeadBytes);
        head[0] = 0;
        BinaryPrimitives.WriteUInt32BigEndian(head[1..], (uint)message.CalculateSize());
        output.Advance(HeadBytes);
        message.WriteTo(output);
    }

    /// <summary>Reads the next message.</summary>
    /// <param name="input">The stream.</param>
    /// <param name="parser">Reads the message.</param>
    /// <param name="encoding">The <c>grpc-encoding</c> of the stream; null or empty: none.</param>
    /// <param name="maxBytes">The longest message taken, packed or not: no more than that is ever held in memory.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>The message; null: the stream has ended.</returns>
    /// <exception cref="RpcException">What came is no message, or too long a one.</exception>
    public static async ValueTask<T?> ReadAsync<T>(PipeReader input, MessageParser<T> parser, string? encoding, int maxBytes, CancellationToken cancellationToken)
        where T : class, IMessage<T>
    {
        while (true)
        {
            var read = await input.ReadAsync(cancellationToken);
            var buffer = read.Buffer;
            if (buffer.Length >= HeadBytes)
            {
                var (flag, length) = ReadHead(buffer);
                if (length > maxBytes)
                    throw TooLong(length, maxBytes);
                if (buffer.Length >= HeadBytes + length)
                {
                    var body = buffer.Slice(HeadBytes, length);
                    var message = Parse(parser, Unpack(flag, encoding, body, maxBytes));
                    input.AdvanceTo(body.End);
                    return message;
                }
            }
            if (read.IsCompleted)
                return buffer.IsEmpty ? null : throw new RpcException(RpcCode.Internal, "the stream ended inside a message");
            input.AdvanceTo(buffer.Start, buffer.End);
        }
    }

    private static (byte Flag, uint Length) ReadHead(ReadOnlySequence<byte> buffer)
    {
        Span<byte> head = stackalloc byte[HeadBytes];
        buffer.Slice(0, HeadBytes).CopyTo(head);
        return (head[0], BinaryPrimitives.ReadUInt32BigEndian(head[1..]));
    }

    private static ReadOnlySequence<byte> Unpack(byte flag, string? encoding, ReadOnlySequence<byte> body, int maxBytes) => (flag, encoding) switch
    {
        (0, _) => body,
        (1, "gzip") => Inflate(body, maxBytes),
        (1, null or "" or "identity") => throw new RpcException(RpcCode.Internal, "a message is marked as compressed on a stream without compression"),
        (1, _) => throw new RpcException(RpcCode.Unimplemented, $"messages in the encoding '{encoding}' cannot be read"),
        _ => throw new RpcException(RpcCode.Internal, $"a message has the unknown flag {flag}"),
    };

    // a small message may unpack to any size: it is followed to the limit and no further
    private static ReadOnlySequence<byte> Inflate(ReadOnlySequence<byte> body, int maxBytes)
    {
        using var inflater = new GZipStream(new MemoryStream(body.ToArray()), CompressionMode.Decompress);
        var unpacked = new ArrayBufferWriter<byte>();
        try
        {
            while (inflater.Read(unpacked.GetSpan(UnpackedAtOnce)) is var read and > 0)
            {
                unpacked.Advance(read);
                if (unpacked.WrittenCount > maxBytes)
                    throw TooLong(unpacked.WrittenCount, maxBytes);
            }
        }
        catch (InvalidDataException e)
        {
            throw new RpcException(RpcCode.Internal, "a compressed message cannot be unpacked", e);
        }
        return new ReadOnlySequence<byte>(unpacked.WrittenMemory);
    }

    private static T Parse<T>(MessageParser<T> parser, ReadOnlySequence<byte> bytes) where T : class, IMessage<T>
    {
        try
        {
            return parser.ParseFrom(bytes);
        }
        catch (InvalidProtocolBufferException e)
        {
            throw new RpcException(RpcCode.Internal, $"a message is no {typeof(T).Name}: {e.Message}", e);
        }
    }

    private static RpcException TooLong(long bytes, int maxBytes) =>
        new(RpcCode.ResourceExhausted, $"a message of {bytes} bytes is over the limit of {maxBytes}");
}
