using System.Text.Json;

namespace ModelHost.Gateway;

/// <summary>
/// Watches the rest of a large JSON object pass by for a second field <c>model</c>, which an engine may obey instead of the first. It
/// keeps a few bytes and judges nothing else: whether the rest is JSON is the engine's to say.
/// </summary>
/// <param name="depth">Open objects and arrays before the first byte.</param>
/// <param name="expectsKey">Whether a key of the outermost object may come next.</param>
internal struct SecondModelGuard(int depth, bool expectsKey)
{
    // "model" with every letter written as \\uXXXX, and its quotes
    private const int LongestModelKey = (5 * 6) + 2;

    private readonly byte[] _key = new byte[LongestModelKey];
    private int _depth = depth;
    private bool _expectsKey = expectsKey;
    private bool _inString;
    private bool _inKey;
    private bool _escaped;
    private int _keyLength;

    /// <summary>Takes the next bytes.</summary>
    /// <returns>Whether a second <c>model</c> was among them.</returns>
    public bool Finds(ReadOnlySpan<byte> bytes)
    {
        for (var i = 0; i < bytes.Length; i++)
        {
            if (_inString && !_inKey && !_escaped)
            {
                // most of a large body is in a few long strings
                var skip = bytes[i..].IndexOfAny((byte)'"', (byte)'\\');
                if (skip < 0)
                    return false;
                i += skip;
            }
            if (Step(bytes[i]))
                return true;
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
                return _inKey && IsModel();
            }
            return false;
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

    private void Keep(byte b)
    {
        if (_keyLength < LongestModelKey)
            _key[_keyLength] = b;
        _keyLength++;
    }

    private readonly bool IsModel()
    {
        if (_keyLength > LongestModelKey)
            return false;
        try
        {
            var reader = new Utf8JsonReader(_key.AsSpan(0, _keyLength));
            return reader.Read() && reader.ValueTextEquals("model"u8);
        }
        catch (JsonException)
        {
            return false; // the engine will refuse it
        }
    }
}
