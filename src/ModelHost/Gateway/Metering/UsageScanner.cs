using System.Text.Json;

namespace ModelHost.Gateway.Metering;

/// <summary>
/// Reads the token counts of an answer while its bytes pass, however they are cut: every JSON object that stands under a key
/// <c>usage</c>, in the names of OpenAI and of Anthropic. Of several the last count of each kind is the one that holds.
/// </summary>
/// <remarks>In a text of the model the quotes are escaped, so that what looks like the key is one. Between two calls it keeps at most
/// <see cref="LongestObject"/> bytes.</remarks>
internal struct UsageScanner
{
    /// <summary>Longest object that is read; those of engines have a few hundred bytes.</summary>
    public const int LongestObject = 8 * 1024;

    private const long MostTokens = 1L << 40; // beyond it something else than tokens is counted

    private byte[] _carry;
    private int _carried;
    private long? _prompt;
    private long? _completion;
    private long? _total;

    private static ReadOnlySpan<byte> Key => "\"usage\""u8;

    /// <summary>Whether a count was found.</summary>
    public readonly bool HasUsage => _prompt is not null || _completion is not null || _total is not null;

    /// <summary>Tokens read by the model.</summary>
    public readonly long PromptTokens => _prompt ?? Math.Max(0, (_total ?? 0) - (_completion ?? 0));

    /// <summary>Tokens written by the model.</summary>
    public readonly long CompletionTokens => _completion ?? 0;

    /// <summary>Takes the next bytes.</summary>
    public void Feed(ReadOnlySpan<byte> bytes)
    {
        if (_carried > 0)
            bytes = FeedCarried(bytes);
        while (true)
        {
            var at = bytes.IndexOf(Key);
            if (at < 0)
            {
                Carry(bytes[^LongestPrefix(bytes)..]);
                return;
            }
            bytes = bytes[at..];
            if (Read(bytes) is not { } read)
            {
                Carry(bytes);
                return;
            }
            bytes = bytes[read..];
        }
    }

    /// <summary>Goes on with what may be the beginning of a count.</summary>
    /// <returns>The bytes that do not belong to it.</returns>
    private ReadOnlySpan<byte> FeedCarried(ReadOnlySpan<byte> bytes)
    {
        var before = _carried;
        var taken = Math.Min(bytes.Length, LongestObject - before);
        bytes[..taken].CopyTo(_carry.AsSpan(before));
        _carried += taken;
        var carried = _carry.AsSpan(0, _carried);
        var common = Math.Min(_carried, Key.Length);
        if (!carried[..common].SequenceEqual(Key[..common]))
        {
            // it was none; one may begin in what was kept of it, or in what follows
            var again = carried[1..before].ToArray();
            _carried = 0;
            Feed(again);
            return _carried > 0 ? FeedCarried(bytes) : bytes;
        }
        if (_carried < Key.Length)
            return [];
        if (Read(carried) is { } read)
        {
            _carried = 0;
            return bytes[Math.Max(0, read - before)..];
        }
        if (_carried == LongestObject)
        {
            _carried = 0;
            return bytes[taken..];
        }
        return [];
    }

    /// <summary>Reads the value of the key at the beginning.</summary>
    /// <returns>How many bytes are dealt with; null: more are needed.</returns>
    private int? Read(ReadOnlySpan<byte> bytes)
    {
        var at = Key.Length;
        foreach (var expected in ":{"u8)
        {
            while (at < bytes.Length && bytes[at] is (byte)' ' or (byte)'\n' or (byte)'\r' or (byte)'\t')
                at++;
            if (at == bytes.Length)
                return null;
            if (bytes[at] != expected)
                return at;
            at++;
        }
        var reader = new Utf8JsonReader(bytes[(at - 1)..], isFinalBlock: false, state: default);
        try
        {
            var (prompt, completion, total) = (_prompt, _completion, _total);
            while (reader.Read())
            {
                if (reader is { TokenType: JsonTokenType.EndObject, CurrentDepth: 0 })
                {
                    (_prompt, _completion, _total) = (prompt, completion, total);
                    return at - 1 + (int)reader.BytesConsumed;
                }
                if (reader is not { TokenType: JsonTokenType.PropertyName, CurrentDepth: 1 })
                    continue;
                if (reader.ValueTextEquals("prompt_tokens"u8) || reader.ValueTextEquals("input_tokens"u8))
                    Count(ref reader, ref prompt);
                else if (reader.ValueTextEquals("completion_tokens"u8) || reader.ValueTextEquals("output_tokens"u8))
                    Count(ref reader, ref completion);
                else if (reader.ValueTextEquals("total_tokens"u8))
                    Count(ref reader, ref total);
            }
            return null;
        }
        catch (JsonException)
        {
            return at;
        }
    }

    private static void Count(ref Utf8JsonReader reader, ref long? count)
    {
        if (reader.Read() && reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out var value) && value is >= 0 and <= MostTokens)
            count = value;
    }

    private void Carry(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length is 0 or > LongestObject)
            return;
        _carry ??= new byte[LongestObject];
        bytes.CopyTo(_carry);
        _carried = bytes.Length;
    }

    /// <summary>How many of the last bytes may be the beginning of the key.</summary>
    private static int LongestPrefix(ReadOnlySpan<byte> bytes)
    {
        var tail = bytes[Math.Max(0, bytes.Length - Key.Length + 1)..];
        var quote = tail.IndexOf((byte)'"');
        while (quote >= 0)
        {
            tail = tail[quote..];
            if (Key.StartsWith(tail))
                return tail.Length;
            quote = tail[1..].IndexOf((byte)'"');
            tail = tail[1..];
        }
        return 0;
    }
}
