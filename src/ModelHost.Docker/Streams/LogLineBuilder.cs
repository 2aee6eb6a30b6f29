using System.Text;

namespace ModelHost.Docker.Streams;

/// <summary>Puts the lines of one output together from bytes that come in any pieces.</summary>
internal sealed class LogLineBuilder(LogStream stream, bool timestamps)
{
    /// <summary>What a line may hold before it is split; engines split there themselves.</summary>
    public const int MaxBytes = 16 << 10;

    // longer than any RFC 3339 time with nanoseconds and an offset (35)
    private readonly byte[] _prefix = new byte[40];
    private readonly bool _timestamps = timestamps;
    private int _prefixLength;
    private bool _inPrefix = timestamps;

    private byte[] _text = new byte[512];
    private int _length;
    private string? _timestamp;
    private bool _begun;

    /// <summary>
    /// A frame begins: one record of the engine. A line of more than 16 KiB is several records, each with its own time and only the last with
    /// a line feed, so a time may stand in the middle of a line here, and nowhere else.
    /// </summary>
    public void BeginFrame() => _inPrefix |= _timestamps && _begun;

    public void EndFrame(List<LogLine> lines)
    {
        if (_inPrefix && _begun)
            TakePrefixAsText(lines);
    }

    public void Append(ReadOnlySpan<byte> bytes, List<LogLine> lines)
    {
        while (!bytes.IsEmpty)
        {
            if (_inPrefix)
            {
                bytes = AppendToPrefix(bytes, lines);
                continue;
            }
            var newline = bytes.IndexOf((byte)'\n');
            AddText(newline < 0 ? bytes : bytes[..newline], lines);
            if (newline < 0)
                return;
            Emit(_length, lines);
            (_timestamp, _begun, _inPrefix) = (null, false, _timestamps);
            bytes = bytes[(newline + 1)..];
        }
    }

    /// <summary>No more will come: what is there is the last line.</summary>
    public void Complete(List<LogLine> lines)
    {
        if (_prefixLength > 0)
            TakePrefixAsText(lines);
        if (_begun)
            Emit(_length, lines);
        _begun = false;
    }

    /// <returns>What is left after the prefix is known.</returns>
    private ReadOnlySpan<byte> AppendToPrefix(ReadOnlySpan<byte> bytes, List<LogLine> lines)
    {
        for (var i = 0; i < bytes.Length; i++)
        {
            if (bytes[i] is (byte)' ' or (byte)'\n' && IsTime(_prefix.AsSpan(0, _prefixLength)))
            {
                if (_begun)
                    EmitPiece(lines);
                _timestamp = Encoding.ASCII.GetString(_prefix, 0, _prefixLength);
                (_prefixLength, _inPrefix, _begun) = (0, false, true);
                return bytes[i] == (byte)' ' ? bytes[(i + 1)..] : bytes[i..];
            }
            if (bytes[i] is (byte)' ' or (byte)'\n' || _prefixLength == _prefix.Length)
            {
                TakePrefixAsText(lines);
                return bytes[i..];
            }
            _prefix[_prefixLength++] = bytes[i];
        }
        return [];
    }

    private void TakePrefixAsText(List<LogLine> lines)
    {
        _inPrefix = false;
        AddText(_prefix.AsSpan(0, _prefixLength), lines);
        _prefixLength = 0;
    }

    private void AddText(ReadOnlySpan<byte> bytes, List<LogLine> lines)
    {
        _begun = true;
        while (!bytes.IsEmpty)
        {
            // only when there is more: a line of just that length is one line
            if (_length == MaxBytes)
                EmitPiece(lines);
            var part = bytes[..Math.Min(bytes.Length, MaxBytes - _length)];
            if (_length + part.Length > _text.Length)
                Array.Resize(ref _text, Math.Min(MaxBytes, Math.Max(_text.Length * 2, _length + part.Length)));
            part.CopyTo(_text.AsSpan(_length));
            _length += part.Length;
            bytes = bytes[part.Length..];
        }
    }

    /// <summary>The line goes on after this piece: a character that is cut goes to the next one whole.</summary>
    private void EmitPiece(List<LogLine> lines) => Emit(_length - CutCharacterBytes(_text.AsSpan(0, _length)), lines);

    private void Emit(int count, List<LogLine> lines)
    {
        lines.Add(new LogLine(stream, Encoding.UTF8.GetString(_text, 0, count), _timestamp));
        _text.AsSpan(count, _length - count).CopyTo(_text);
        _length -= count;
    }

    private static int CutCharacterBytes(ReadOnlySpan<byte> text)
    {
        for (var back = 1; back <= Math.Min(3, text.Length); back++)
        {
            var b = text[^back];
            if ((b & 0xC0) == 0x80)
                continue;
            var needs = b switch { >= 0xF0 => 4, >= 0xE0 => 3, >= 0xC0 => 2, _ => 1 };
            return needs > back ? back : 0;
        }
        return 0;
    }

    private static bool IsTime(ReadOnlySpan<byte> text) =>
        text.Length >= 20 && text[..4].IndexOfAnyExceptInRange((byte)'0', (byte)'9') < 0
        && text[4] == '-' && text[7] == '-' && text[10] == 'T' && text[13] == ':' && text[16] == ':';
}
