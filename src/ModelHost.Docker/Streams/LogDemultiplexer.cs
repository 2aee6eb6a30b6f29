using System.Buffers.Binary;

namespace ModelHost.Docker.Streams;

/// <summary>
/// Turns the bytes of a log into lines. A container without a terminal has two outputs, which the engine sends in frames: one byte for the
/// output (0 and 1 standard output, 2 standard error, 3 a failure of the engine itself), three zeros, the length as 32 bits big-endian.
/// </summary>
internal sealed class LogDemultiplexer(bool framed, bool timestamps)
{
    private const int EngineFailure = 3;

    private readonly byte[] _header = new byte[8];
    private readonly LogLineBuilder _stdout = new(LogStream.Stdout, timestamps);
    private readonly LogLineBuilder _stderr = new(LogStream.Stderr, timestamps);
    private readonly LogLineBuilder _failure = new(LogStream.Stderr, timestamps: false);
    private int _headerLength;
    private uint _left;

    /// <summary>Why nothing more comes; null while all is well. Lines handed out before still count.</summary>
    public string? Failure { get; private set; }

    private LogLineBuilder Output => _header[0] switch { EngineFailure => _failure, 2 => _stderr, _ => _stdout };

    public void Feed(ReadOnlySpan<byte> bytes, List<LogLine> lines)
    {
        if (!framed)
        {
            _stdout.Append(bytes, lines);
            return;
        }
        while (!bytes.IsEmpty && Failure is null)
        {
            if (_headerLength < _header.Length)
            {
                var taken = Math.Min(_header.Length - _headerLength, bytes.Length);
                bytes[..taken].CopyTo(_header.AsSpan(_headerLength));
                _headerLength += taken;
                bytes = bytes[taken..];
                if (_headerLength == _header.Length)
                    BeginFrame();
                continue;
            }
            var part = bytes[..(int)Math.Min(_left, (uint)bytes.Length)];
            Append(part, lines);
            _left -= (uint)part.Length;
            bytes = bytes[part.Length..];
            if (_left == 0)
                EndFrame(lines);
        }
    }

    /// <summary>The stream is over: hands out the last lines even if they have no line feed.</summary>
    public void Complete(List<LogLine> lines)
    {
        _stdout.Complete(lines);
        _stderr.Complete(lines);
        if (_headerLength > 0)
            Failure ??= "the log ended in the middle of a frame";
    }

    private void BeginFrame()
    {
        _left = BinaryPrimitives.ReadUInt32BigEndian(_header.AsSpan(4));
        if (_header[0] > EngineFailure || _header.AsSpan(1, 3).IndexOfAnyExcept((byte)0) >= 0)
            Failure = "the log is not in frames";
        Output.BeginFrame();
        if (_left == 0)
            _headerLength = 0;
    }

    private void Append(ReadOnlySpan<byte> part, List<LogLine> lines)
    {
        if (Output != _failure)
        {
            Output.Append(part, lines);
            return;
        }
        var said = new List<LogLine>();
        _failure.Append(part, said);
        if (said.Count > 0)
            Failure = said[0].Text;
    }

    private void EndFrame(List<LogLine> lines)
    {
        _headerLength = 0;
        if (Output != _failure)
        {
            Output.EndFrame(lines);
            return;
        }
        var said = new List<LogLine>();
        _failure.Complete(said);
        Failure ??= said.Count > 0 ? said[0].Text : "the engine could not read the log";
    }
}
