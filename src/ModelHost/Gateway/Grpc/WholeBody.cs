using System.Buffers;
using System.Text.Json;
using ModelHost.Agent.Http;

namespace ModelHost.Gateway.Grpc;

/// <summary>The body of a request that is translated: it has to be there as a whole, and is bounded more tightly than one that passes through.</summary>
internal sealed class WholeBody : IDisposable
{
    private const int MaxDepth = 64;
    private readonly JsonDocument _document;
    private readonly byte[] _buffer;

    private WholeBody(JsonDocument document, byte[] buffer) => (_document, _buffer) = (document, buffer);

    /// <summary>Its fields, as long as this object lives.</summary>
    public RequestFields Fields => new(_document.RootElement);

    /// <summary>Reads it.</summary>
    /// <param name="body">Its bytes.</param>
    /// <param name="length">Their number, if it is known.</param>
    /// <param name="most">The most that is taken.</param>
    /// <param name="cancellationToken">Ends the reading.</param>
    public static async Task<WholeBody> ReadAsync(Stream body, long? length, int most, CancellationToken cancellationToken)
    {
        if (length > most)
            throw TooLarge();
        var buffer = ArrayPool<byte>.Shared.Rent((int)(length ?? (64 * 1024)) + 1);
        try
        {
            var filled = 0;
            while (await body.ReadAsync(buffer.AsMemory(filled), cancellationToken) is var read and > 0)
            {
                filled += read;
                if (filled > most)
                    throw TooLarge();
                if (filled == buffer.Length)
                    buffer = Grow(buffer);
            }
            if (HasHalfPair(buffer.AsSpan(0, filled)))
                throw new RefusedRequestException(StatusCodes.Status400BadRequest, OpenAiErrors.InvalidJson("a text has half of a surrogate pair"));
            return new WholeBody(JsonDocument.Parse(buffer.AsMemory(0, filled), new JsonDocumentOptions { MaxDepth = MaxDepth }), buffer);
        }
        catch (Exception e)
        {
            ArrayPool<byte>.Shared.Return(buffer);
            if (e is JsonException json)
                throw new RefusedRequestException(StatusCodes.Status400BadRequest, OpenAiErrors.InvalidJson($"line {json.LineNumber + 1}, byte {json.BytePositionInLine + 1}"));
            throw;
        }
    }

    public void Dispose()
    {
        _document.Dispose();
        ArrayPool<byte>.Shared.Return(_buffer);
    }

    /// <summary>Whether an escape stands for half of a character: JSON allows it, and no text can have it.</summary>
    internal static bool HasHalfPair(ReadOnlySpan<byte> json)
    {
        var isOpen = false; // the first half has come, and the second has to be next
        for (var at = 0; at < json.Length;)
        {
            var skip = json[at..].IndexOf((byte)'\\');
            if (isOpen && skip != 0)
                return true;
            if (skip < 0 || at + skip + 1 >= json.Length)
                return isOpen;
            at += skip;
            if (json[at + 1] != 'u')
            {
                if (isOpen)
                    return true;
                at += 2;
                continue;
            }
            if (at + 6 > json.Length || !int.TryParse(json.Slice(at + 2, 4), System.Globalization.NumberStyles.AllowHexSpecifier, null, out var unit))
                return isOpen; // no JSON: its reader says where
            var (isFirst, isSecond) = (char.IsHighSurrogate((char)unit), char.IsLowSurrogate((char)unit));
            if (isSecond != isOpen)
                return true;
            isOpen = isFirst;
            at += 6;
        }
        return isOpen;
    }

    private static byte[] Grow(byte[] buffer)
    {
        var larger = ArrayPool<byte>.Shared.Rent(buffer.Length * 2);
        buffer.CopyTo(larger, 0);
        ArrayPool<byte>.Shared.Return(buffer);
        return larger;
    }

    private static RefusedRequestException TooLarge() => new(StatusCodes.Status413PayloadTooLarge, OpenAiErrors.TooLarge());
}
