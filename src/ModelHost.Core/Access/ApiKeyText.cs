using System.Buffers;
using System.Globalization;
using System.Numerics;
using System.Security.Cryptography;
using System.Text;

namespace ModelHost.Core.Access;

/// <summary>
/// How API keys are written: <c>mh_sk_</c> or <c>mh_tmp_</c>, 160 random bits and a checksum of all that, both in lower-case hexadecimal.
/// The checksum (CRC-32C) is no secret: it tells a key that was cut or mistyped from one that is not known, and lets scanners of
/// source code find keys without asking anybody.
/// </summary>
public static class ApiKeyText
{
    private const string Permanent = "mh_sk_", Temporary = "mh_tmp_";
    private const int RandomBytes = 20, RandomDigits = 2 * RandomBytes, ChecksumDigits = 8, ShownDigits = 6;
    private static readonly SearchValues<char> Digits = SearchValues.Create("0123456789abcdef");

    /// <summary>Longest key, in characters.</summary>
    public const int MaxLength = 7 + RandomDigits + ChecksumDigits;

    /// <summary>A new key.</summary>
    public static string Make(bool isTemporary)
    {
        var text = (isTemporary ? Temporary : Permanent) + Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(RandomBytes));
        return text + Checksum(text).ToString("x8", CultureInfo.InvariantCulture);
    }

    /// <summary>Whether a text can be a key: its form and checksum are right.</summary>
    public static bool IsWellFormed(ReadOnlySpan<char> text)
    {
        var start = text.StartsWith(Permanent) ? Permanent.Length : text.StartsWith(Temporary) ? Temporary.Length : MaxLength;
        if (text.Length != start + RandomDigits + ChecksumDigits || text[start..].ContainsAnyExcept(Digits))
            return false;
        return uint.Parse(text[^ChecksumDigits..], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture) == Checksum(text[..^ChecksumDigits]);
    }

    /// <summary>What may be shown of a key, so that people know which it is.</summary>
    public static string Shown(string key) => key[..(key.LastIndexOf('_') + 1 + ShownDigits)];

    private static uint Checksum(ReadOnlySpan<char> text)
    {
        Span<byte> bytes = stackalloc byte[MaxLength];
        var crc = uint.MaxValue;
        foreach (var value in bytes[..Encoding.ASCII.GetBytes(text, bytes)])
            crc = BitOperations.Crc32C(crc, value);
        return ~crc;
    }
}
