using System.Buffers;
using System.Text.Json;

namespace ModelHost.Agent.Metering;

/// <summary>
/// Reads the token counts of an answer while its bytes pass, however they are cut: the object <c>usage</c> at the top, or in <c>response</c> or
/// <c>message</c> there, in the names of OpenAI and of Anthropic. Of several the last count of each kind is the one that holds.
/// </summary>
/// <remarks>
/// Where it stands is looked at, and not its name alone: engines send parts of the request back, such as the schemas of tools, and in them a
/// client could write counts of its own. Between two calls it keeps at most <see cref="LongestObject"/> bytes.
/// </remarks>
internal struct UsageScanner
{
    /// <summary>Longest object that is read; those of engines have a few hundred bytes.</summary>
    public const int LongestObject = 8 * 1024;

    private const long MostTokens = 1L << 40; // beyond it something else than tokens is counted
    private const int All = 0b111;
    private static readonly SearchValues<byte> InString = SearchValues.Create("\"\\"u8);
    private static readonly SearchValues<byte> Structure = SearchValues.Create("\"{}[]:"u8);

    private int _depth;
    private bool _inString;
    private bool _escaped;
    // which of the names the string that is read may still be, one bit each, and how much of it was read
    private int _candidates;
    private int _length;
    // the string that was read last, and the key whose value comes next
    private Name _string;
    private Name _key;
    private bool _isWrapped;
    // the depth of the object that holds the count; 0: none is being read
    private int _holder;
    private byte[]? _carry;
    private int _carried;
    private long? _prompt;
    private long? _completion;
    private long? _total;

    private enum Name
    {
        Other,
        Usage,
        Wrapper,
    }

    /// <summary>Whether a count was found.</summary>
    public readonly bool HasUsage => _prompt is not null || _completion is not null || _total is not null;

    /// <summary>Tokens read by the model.</summary>
    public readonly long PromptTokens => _prompt ?? Math.Max(0, (_total ?? 0) - (_completion ?? 0));

    /// <summary>Tokens written by the model.</summary>
    public readonly long CompletionTokens => _completion ?? 0;

    private readonly bool TellsNames => _holder == 0 && (_depth == 1 || (_depth == 2 && _isWrapped));

    /// <summary>Another JSON text begins, whatever was left open in the one before.</summary>
    public void Restart()
    {
        (_depth, _inString, _escaped, _candidates, _holder, _carried) = (0, false, false, 0, 0, 0);
        (_string, _key) = (Name.Other, Name.Other);
    }

    /// <summary>Takes the next bytes.</summary>
    public void Feed(ReadOnlySpan<byte> bytes)
    {
        var begin = 0; // of what belongs to the count that is being read
        for (var i = 0; i < bytes.Length; i++)
        {
            if (_candidates == 0 && !_escaped)
            {
                var skip = bytes[i..].IndexOfAny(_inString ? InString : Structure);
                if (skip < 0)
                    break;
                i += skip;
            }
            var b = bytes[i];
            if (_inString)
                StepString(b);
            else if (b == '"')
                (_inString, _key, _length, _candidates) = (true, Name.Other, 0, TellsNames ? All : 0);
            else if (b == ':')
                (_key, _string) = (_string, Name.Other);
            else if (b is (byte)'{' or (byte)'[')
            {
                if (b == '{' && _key == Name.Usage && TellsNames)
                    (_holder, begin) = (_depth, i);
                else if (_depth == 1)
                    _isWrapped = b == '{' && _key == Name.Wrapper;
                _depth++;
                (_key, _string) = (Name.Other, Name.Other);
            }
            else
            {
                _depth = Math.Max(0, _depth - 1);
                (_key, _string) = (Name.Other, Name.Other);
                if (_holder > 0 && _depth == _holder)
                    ReadCount(bytes[begin..(i + 1)]);
            }
        }
        if (_holder > 0)
            Carry(bytes[begin..]);
    }

    private void StepString(byte b)
    {
        if (_escaped)
            _escaped = false;
        else if (b == '\\')
            (_escaped, _candidates) = (true, 0); // no engine escapes these names
        else if (b == '"')
        {
            _string = Named(0) ? Name.Usage : Named(1) || Named(2) ? Name.Wrapper : Name.Other;
            (_inString, _candidates) = (false, 0);
        }
        else
        {
            for (var name = 0; name < 3; name++)
            {
                if (_length >= Text(name).Length || Text(name)[_length] != b)
                    _candidates &= ~(1 << name);
            }
            _length++;
        }
    }

    private readonly bool Named(int name) => (_candidates & (1 << name)) != 0 && _length == Text(name).Length;

    private static ReadOnlySpan<byte> Text(int name) => name switch { 0 => "usage"u8, 1 => "response"u8, _ => "message"u8 };

    private void ReadCount(ReadOnlySpan<byte> bytes)
    {
        if (_carried > 0)
        {
            Carry(bytes);
            bytes = _carry.AsSpan(0, _carried);
        }
        if (_holder == 0)
            return;
        (_holder, _carried) = (0, 0);
        var reader = new Utf8JsonReader(bytes);
        try
        {
            var (prompt, completion, total) = (_prompt, _completion, _total);
            while (reader.Read())
            {
                if (reader is not { TokenType: JsonTokenType.PropertyName, CurrentDepth: 1 })
                    continue;
                if (reader.ValueTextEquals("prompt_tokens"u8) || reader.ValueTextEquals("input_tokens"u8))
                    Count(ref reader, ref prompt);
                else if (reader.ValueTextEquals("completion_tokens"u8) || reader.ValueTextEquals("output_tokens"u8))
                    Count(ref reader, ref completion);
                else if (reader.ValueTextEquals("total_tokens"u8))
                    Count(ref reader, ref total);
            }
            (_prompt, _completion, _total) = (prompt, completion, total);
        }
        catch (JsonException)
        {
            // no count that can be read
        }
    }

    private static void Count(ref Utf8JsonReader reader, ref long? count)
    {
        if (reader.Read() && reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out var value) && value is >= 0 and <= MostTokens)
            count = value;
    }

    private void Carry(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length > LongestObject - _carried)
        {
            (_holder, _carried) = (0, 0); // given up; what comes behind it is read again
            return;
        }
        _carry ??= new byte[LongestObject];
        bytes.CopyTo(_carry.AsSpan(_carried));
        _carried += bytes.Length;
    }
}
