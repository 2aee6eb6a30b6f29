namespace ModelHost.Docker.Streams;

/// <summary>
/// Finds where the objects of a stream end, so that each can be read while the next is still to come. It looks at brackets and strings only:
/// whether what is between them is JSON is for its reader to say.
/// </summary>
internal sealed class JsonObjectSplitter
{
    /// <summary>
    /// What an object may hold. A build's output comes in pieces of 32 KiB, in which a character may take six (<c>\u003e</c>), and an event carries
    /// all labels of its container.
    /// </summary>
    public const int MaxBytes = 1 << 20;

    private byte[] _object = new byte[1024];
    private int _length;
    private int _depth;
    private bool _inString;
    private bool _escaped;

    /// <summary>Why nothing more can be read; null while all is well.</summary>
    public string? Failure { get; private set; }

    public bool IsWithinObject => _depth > 0;

    /// <summary>Takes bytes up to the end of an object, or all of them.</summary>
    /// <returns>How many were taken.</returns>
    public int Feed(ReadOnlySpan<byte> bytes, out bool whole)
    {
        whole = false;
        var start = 0;
        if (_depth == 0)
        {
            start = bytes.IndexOfAnyExcept(" \t\r\n"u8);
            if (start < 0)
                return bytes.Length;
            if (bytes[start] != '{')
            {
                Failure = "the answer is not a stream of objects";
                return bytes.Length;
            }
        }
        var end = start;
        while (end < bytes.Length && !whole)
            whole = IsEnd(bytes[end++]);
        Append(bytes[start..end]);
        return end;
    }

    /// <summary>The object that was just found whole; good until the next bytes are fed.</summary>
    public ReadOnlySpan<byte> Take()
    {
        var length = _length;
        _length = 0;
        return _object.AsSpan(0, length);
    }

    private bool IsEnd(byte b)
    {
        if (_inString)
        {
            _inString = _escaped || b != '"';
            _escaped = !_escaped && b == '\\';
            return false;
        }
        switch (b)
        {
            case (byte)'"':
                _inString = true;
                return false;
            case (byte)'{' or (byte)'[':
                _depth++;
                return false;
            case (byte)'}' or (byte)']':
                return --_depth == 0;
            default:
                return false;
        }
    }

    private void Append(ReadOnlySpan<byte> part)
    {
        if (_length + part.Length > MaxBytes)
        {
            Failure = $"an object of the answer is larger than {MaxBytes} bytes";
            return;
        }
        if (_length + part.Length > _object.Length)
            Array.Resize(ref _object, Math.Min(MaxBytes, Math.Max(_object.Length * 2, _length + part.Length)));
        part.CopyTo(_object.AsSpan(_length));
        _length += part.Length;
    }
}
