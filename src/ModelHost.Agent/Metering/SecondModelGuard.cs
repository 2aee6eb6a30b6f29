using System.Text.Json;

namespace ModelHost.Agent.Metering;

/// <summary>
/// Watches the rest of a large JSON object pass by for a second field <c>model</c>, which an engine may obey instead of the first, and for
/// what it says about streams. It keeps a few bytes and judges nothing else: whether the rest is JSON is the engine's to say.
/// </summary>
/// <param name="depth">Open objects and arrays before the first byte.</param>
/// <param name="expectsKey">Whether a key of the outermost object may come next.</param>
/// <param name="options">What the field <c>stream_options</c> said before.</param>
/// <param name="streams">What the field <c>stream</c> said before.</param>
/// <param name="valueIsStream">Whether the value of <c>stream</c> comes next.</param>
/// <param name="looksForModel">Whether a second <c>model</c> matters.</param>
internal sealed class SecondModelGuard(int depth, bool expectsKey, StreamOptions options = default, bool streams = false, bool valueIsStream = false, bool looksForModel = true)
{
    // the longest of the keys with every letter written as \\uXXXX, and its quotes
    private const int LongestKey = (14 * 6) + 2;

    private const int LongestOptions = 512;

    private readonly byte[] _key = new byte[LongestKey];
    private readonly List<byte> _optionsText = [];
    private StreamOptions _options = options;
    private int _depth = depth;
    private bool _expectsKey = expectsKey;
    private bool _streams = streams;
    private bool _valueIsStream = valueIsStream;
    private bool _valueIsOptions;
    private bool _inString;
    private bool _inKey;
    private bool _escaped;
    private int _keyLength;

    /// <summary>Where in the bytes taken last the outermost object ended; -1: not there.</summary>
    public int EndsAt { get; private set; } = -1;

    /// <summary>Whether the body asks for a stream and not for its count.</summary>
    public bool AsksForNoUsage => _streams && !_options.IsAsked;

    /// <summary>Whether <c>stream</c> was something else than true, false and null.</summary>
    public bool IsUnclearStream { get; private set; }

    /// <summary>Whether the body asks for a stream and says in several ways what that tells.</summary>
    public bool IsUnclearOptions => _streams && _options.IsUnclear;

    /// <summary>Takes the next bytes.</summary>
    /// <returns>Whether a second <c>model</c> was among them.</returns>
    public bool Finds(ReadOnlySpan<byte> bytes)
    {
        EndsAt = -1;
        for (var i = 0; i < bytes.Length; i++)
        {
            if (_inString && !_inKey && !_escaped && !_valueIsOptions)
            {
                // most of a large body is in a few long strings
                var skip = bytes[i..].IndexOfAny((byte)'"', (byte)'\\');
                if (skip < 0)
                    return false;
                i += skip;
            }
            if (_valueIsOptions)
                KeepOptions(bytes[i]);
            if (Step(bytes[i]))
                return true;
            if (_depth == 0 && EndsAt < 0 && bytes[i] == '}')
                EndsAt = i;
        }
        return false;
    }

    private bool Step(byte b)
    {
        if (_inString)
        {
            if (_inKey)
                Keep(b);
            if (_escaped)
                _escaped = false;
            else if (b == '\\')
                _escaped = true;
            else if (b == '"')
            {
                _inString = false;
                return _inKey && SeeKey();
            }
            return false;
        }
        if (_valueIsStream && b is not ((byte)' ' or (byte)'\n' or (byte)'\r' or (byte)'\t' or (byte)':'))
        {
            (_valueIsStream, _streams) = (false, b == 't');
            IsUnclearStream |= b is not ((byte)'t' or (byte)'f' or (byte)'n');
        }
        switch (b)
        {
            case (byte)'"':
                (_inString, _inKey, _keyLength) = (true, _depth == 1 && _expectsKey, 0);
                if (_inKey)
                    Keep(b);
                break;
            case (byte)'{' or (byte)'[':
                _depth++;
                break;
            case (byte)'}' or (byte)']':
                _depth--;
                break;
            case (byte)',':
                _expectsKey = _depth == 1;
                break;
            case (byte)':':
                _expectsKey = false;
                break;
        }
        return false;
    }

    /// <summary>Keeps what <c>stream_options</c> is, up to the comma or the end of the object behind it, and reads it then.</summary>
    private void KeepOptions(byte b)
    {
        if (_inString || _depth > 1 || b is not ((byte)',' or (byte)'}'))
        {
            if (_optionsText.Count <= LongestOptions)
                _optionsText.Add(b);
            return;
        }
        _valueIsOptions = false;
        if (_optionsText.Count > LongestOptions || !_options.Read([.. "{\"stream_options\""u8, .. _optionsText, (byte)'}']))
            _options = StreamOptions.Unclear;
        _optionsText.Clear();
    }

    private void Keep(byte b)
    {
        if (_keyLength < LongestKey)
            _key[_keyLength] = b;
        _keyLength++;
    }

    /// <returns>Whether the key is <c>model</c>.</returns>
    private bool SeeKey()
    {
        if (_keyLength > LongestKey)
            return false;
        try
        {
            var reader = new Utf8JsonReader(_key.AsSpan(0, _keyLength));
            if (!reader.Read())
                return false;
            _valueIsStream = reader.ValueTextEquals("stream"u8);
            _valueIsOptions = reader.ValueTextEquals("stream_options"u8);
            return looksForModel && reader.ValueTextEquals("model"u8);
        }
        catch (JsonException)
        {
            return false; // the engine will refuse it
        }
    }
}
