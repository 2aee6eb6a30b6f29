using System.Text;
using ModelHost.Agent.Downloads;

namespace ModelHost.Agent.Extraction;

/// <summary>
/// Reads along with whoever reads a tar file and ends it before something in it is taken whole into memory that is too long for that: the reader of .NET
/// takes extended headers of up to 2 GiB.
/// </summary>
/// <remarks>It must see the same headers as the reader does; where the two could differ, the archive is refused. Formats: POSIX.1-2017 pax, GNU tar.</remarks>
internal sealed class TarFraming(Stream tar, UnpackMeter meter) : ReadOnlyStream
{
    private const int Block = 512, MaxPax = 1024 * 1024, MaxLongName = 16 * 1024;

    private readonly byte[] _header = new byte[Block];
    private readonly MemoryStream _pax = new();
    private int _filled;
    private long _skip, _paxLeft;
    private long? _size;
    private byte _type;

    public override int Read(Span<byte> buffer)
    {
        var read = tar.Read(buffer);
        meter.Add(read);
        See(buffer[..read]);
        return read;
    }

    private void See(ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0)
        {
            if (_skip > 0)
            {
                var passed = (int)Math.Min(_skip, bytes.Length);
                var kept = (int)Math.Min(_paxLeft, passed);
                _pax.Write(bytes[..kept]);
                (_paxLeft, _skip) = (_paxLeft - kept, _skip - passed);
                if (kept > 0 && _paxLeft == 0)
                    ReadPax();
                bytes = bytes[passed..];
                continue;
            }
            var taken = Math.Min(Block - _filled, bytes.Length);
            bytes[..taken].CopyTo(_header.AsSpan(_filled));
            _filled += taken;
            bytes = bytes[taken..];
            if (_filled == Block)
            {
                _filled = 0;
                ReadHeader();
            }
        }
    }

    private void ReadHeader()
    {
        if (_header.AsSpan().IndexOfAnyExcept((byte)0) < 0)
            return; // the end, or on the way to it
        if (!IsSummedUp())
            throw Invalid("the sum of a header is wrong: it is damaged"); // the reader of .NET does not look
        _type = _header[156];
        var size = Size(_header.AsSpan(124, 12));
        switch ((char)_type)
        {
            case 'x' or 'g':
                if (size > MaxPax)
                    throw Invalid("an extended header is longer than 1 MiB");
                _pax.SetLength(0);
                _paxLeft = size;
                break;
            case 'L' or 'K':
                if (size > MaxLongName)
                    throw Invalid("a name is longer than 16 KiB");
                break;
            case '0' or '\0' or '7':
                (size, _size) = (_size ?? size, null);
                break;
            case '1' or '2' or '3' or '4' or '5' or '6':
                if ((_size ?? size) != 0)
                    throw Invalid("something that is no file has a size");
                _size = null;
                break;
            default:
                throw Invalid($"something in it is of the kind '{(char.IsAsciiLetterOrDigit((char)_type) ? (char)_type : '?')}', which is no file, folder or link");
        }
        _skip = (size + Block - 1) / Block * Block;
    }

    // of all bytes, its own eight counted as blanks
    private bool IsSummedUp()
    {
        var stated = Encoding.ASCII.GetString(_header, 148, 8).Trim('\0', ' ');
        var sum = 8 * ' ';
        for (var i = 0; i < Block; i++)
            sum += i is >= 148 and < 156 ? 0 : _header[i];
        return stated.Length is > 0 and < 8 && stated.All(c => c is >= '0' and <= '7') && Convert.ToInt32(stated, 8) == sum;
    }

    private static long Size(ReadOnlySpan<byte> field)
    {
        long size = 0;
        if (field[0] == 0x80) // GNU: a binary number where eleven octal digits are not enough
        {
            if (field[1..4].IndexOfAnyExcept((byte)0) >= 0)
                throw Invalid("a size is beyond all bounds");
            foreach (var b in field[4..])
                size = (size << 8) | b;
        }
        else
        {
            foreach (var b in field)
            {
                if (b is 0 or (byte)' ')
                {
                    if (size != 0)
                        break;
                    continue;
                }
                if (b is < (byte)'0' or > (byte)'7')
                    throw Invalid("a size is no number");
                size = (size * 8) + (b - '0');
            }
        }
        return size is >= 0 and < (1L << 50) ? size : throw Invalid("a size is beyond all bounds");
    }

    // records of "LENGTH KEY=VALUE\n"
    private void ReadPax()
    {
        var rest = _pax.GetBuffer().AsSpan(0, (int)_pax.Length);
        while (rest.Length > 0)
        {
            var blank = rest.IndexOf((byte)' ');
            if (blank is < 1 or > 7 || !int.TryParse(Encoding.ASCII.GetString(rest[..blank]), out var length) || length <= blank + 1 || length > rest.Length || rest[length - 1] != '\n')
                throw Invalid("an extended header cannot be read");
            var record = Encoding.UTF8.GetString(rest[(blank + 1)..(length - 1)]);
            if (record.StartsWith("size=", StringComparison.Ordinal))
            {
                if (_type == 'g' || _size is not null || !long.TryParse(record["size=".Length..], System.Globalization.NumberStyles.None, null, out var size) || size >= 1L << 50)
                    throw Invalid("an extended header has a size that is none");
                _size = size;
            }
            else if (record.StartsWith("GNU.sparse.", StringComparison.Ordinal))
                throw Invalid("a file with holes is not supported");
            rest = rest[length..];
        }
    }

    private static DownloadException Invalid(string why) => new("archive_invalid", $"the archive is refused: {why}");
}
