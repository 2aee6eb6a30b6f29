using System.Globalization;
using System.Net.Http.Headers;
using System.Text;

namespace ModelHost.Rpc;

/// <summary>The headers and trailers of gRPC over HTTP/2, and how their values are written.</summary>
internal static class RpcHeaders
{
    public const string ContentType = "application/grpc";
    public const string Status = "grpc-status";
    public const string Message = "grpc-message";
    public const string Timeout = "grpc-timeout";
    public const string Encoding = "grpc-encoding";
    public const string AcceptEncoding = "grpc-accept-encoding";
    public const string Accepted = "identity,gzip";

    // peers allow 8 KiB of headers in all
    private const int MaxMessage = 4096;
    private const int MaxDigits = 8;

    /// <summary>The longest deadline that a timer takes; who gives more gets this.</summary>
    public static TimeSpan MaxTimeout { get; } = TimeSpan.FromDays(24);

    /// <summary>Whether a content type is that of protobuf messages over gRPC.</summary>
    public static bool IsRpc(string? contentType)
    {
        var type = contentType.AsSpan();
        type = (type.IndexOf(';') is >= 0 and var end ? type[..end] : type).Trim();
        return type.Equals(ContentType, StringComparison.OrdinalIgnoreCase) || type.Equals(ContentType + "+proto", StringComparison.OrdinalIgnoreCase);
    }

    /// <summary>A deadline as a header; never less than a millisecond, never more than the eight digits hold.</summary>
    public static string FormatTimeout(TimeSpan timeout)
    {
        var milliseconds = (long)Math.Ceiling(Math.Clamp(timeout.TotalMilliseconds, 1, MaxTimeout.TotalMilliseconds));
        return milliseconds < 100_000_000 ? string.Create(CultureInfo.InvariantCulture, $"{milliseconds}m") : string.Create(CultureInfo.InvariantCulture, $"{milliseconds / 1000}S");
    }

    /// <summary>Reads a deadline.</summary>
    /// <param name="text">The header; null or empty: there is none.</param>
    /// <param name="timeout">The time; null: without limit.</param>
    /// <returns>Whether it has the form of one.</returns>
    public static bool TryParseTimeout(string? text, out TimeSpan? timeout)
    {
        timeout = null;
        if (string.IsNullOrEmpty(text))
            return true;
        if (text.Length > MaxDigits + 1 || !long.TryParse(text.AsSpan(0, text.Length - 1), NumberStyles.None, CultureInfo.InvariantCulture, out var amount))
            return false;
        double? milliseconds = text[^1] switch
        {
            'H' => amount * 3_600_000.0,
            'M' => amount * 60_000.0,
            'S' => amount * 1000.0,
            'm' => amount,
            'u' => amount / 1000.0,
            'n' => amount / 1_000_000.0,
            _ => null,
        };
        if (milliseconds is not { } value)
            return false;
        timeout = TimeSpan.FromMilliseconds(Math.Min(value, MaxTimeout.TotalMilliseconds));
        return true;
    }

    /// <summary>A text as <c>grpc-message</c>: UTF-8 with everything but printable ASCII percent-encoded; what is too long for a header is cut.</summary>
    public static string EncodeMessage(string text)
    {
        var encoded = new StringBuilder();
        Span<byte> bytes = stackalloc byte[4];
        foreach (var rune in text.EnumerateRunes())
        {
            if (encoded.Length > MaxMessage)
                break;
            foreach (var b in bytes[..rune.EncodeToUtf8(bytes)])
            {
                if (b is >= 0x20 and <= 0x7e and not (byte)'%')
                    encoded.Append((char)b);
                else
                    encoded.Append(CultureInfo.InvariantCulture, $"%{b:X2}");
            }
        }
        return encoded.ToString();
    }

    /// <summary>Reads a <c>grpc-message</c>; what is encoded wrongly stays as it is.</summary>
    public static string DecodeMessage(string text) => Uri.UnescapeDataString(text);

    /// <summary>The status in headers or trailers; null: there is none.</summary>
    public static (RpcCode Code, string Detail)? ReadStatus(HttpResponseHeaders headers)
    {
        if (!headers.TryGetValues(Status, out var values))
            return null;
        var text = values.First();
        var detail = headers.TryGetValues(Message, out var messages) ? DecodeMessage(messages.First()) : "";
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var code) && Enum.IsDefined((RpcCode)code)
            ? ((RpcCode)code, detail)
            : (RpcCode.Unknown, $"the status '{text}' is none{(detail.Length > 0 ? $": {detail}" : "")}");
    }
}
