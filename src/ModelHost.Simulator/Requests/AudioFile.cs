using System.Buffers.Binary;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Requests;

/// <summary>A file of sound as far as its head tells.</summary>
/// <param name="Seconds">How long it plays.</param>
/// <param name="Hash">Stands for what is heard.</param>
internal readonly record struct AudioFile(double Seconds, ulong Hash)
{
    /// <summary>Bytes a second of formats whose head does not say how long they play: 128 kbit/s.</summary>
    private const double CompressedBytesPerSecond = 16_000;

    /// <summary>More chunks than any real file has before its sound.</summary>
    private const int MaxChunks = 64;

    /// <summary>Reads the head: WAV and FLAC tell their length, that of MP3, Ogg, MP4 and WebM is guessed from their size.</summary>
    /// <exception cref="ApiException">It is no sound that is known.</exception>
    public static async Task<AudioFile> ReadAsync(Stream file, CancellationToken cancellationToken)
    {
        var head = new byte[4096];
        var read = await file.ReadAtLeastAsync(head, head.Length, throwOnEndOfStream: false, cancellationToken);
        var known = head.AsMemory(0, read);
        var seconds = IsWave(known.Span) ? await WaveSecondsAsync(file, cancellationToken)
            : FlacSeconds(known.Span) ?? (IsCompressed(known.Span) ? file.Length / CompressedBytesPerSecond : null);
        if (seconds is not > 0)
            throw ApiException.Bad("Invalid or unsupported audio file.");
        return new(seconds.Value, TextSource.Hash(Convert.ToBase64String(known.Span), (ulong)file.Length));
    }

    private static bool IsWave(ReadOnlySpan<byte> head) => head.Length >= 12 && head[..4].SequenceEqual("RIFF"u8) && head[8..12].SequenceEqual("WAVE"u8);

    /// <summary>Walks over the chunks to the one with the sound; its size counts only as far as the file goes.</summary>
    private static async Task<double?> WaveSecondsAsync(Stream file, CancellationToken cancellationToken)
    {
        var chunk = new byte[24];
        var bytesPerSecond = 0L;
        var at = 12L;
        for (var i = 0; i < MaxChunks && at + 8 <= file.Length; i++)
        {
            file.Position = at;
            var read = await file.ReadAtLeastAsync(chunk, chunk.Length, throwOnEndOfStream: false, cancellationToken);
            long size = BinaryPrimitives.ReadUInt32LittleEndian(chunk.AsSpan(4));
            if (chunk.AsSpan(0, 4).SequenceEqual("data"u8))
                return bytesPerSecond == 0 ? null : Math.Min(size, file.Length - at - 8) / (double)bytesPerSecond;
            if (chunk.AsSpan(0, 4).SequenceEqual("fmt "u8) && read == chunk.Length)
                bytesPerSecond = BytesPerSecond(chunk.AsSpan(8));
            // chunks begin at even offsets
            at += 8 + size + (size & 1);
        }
        return null;
    }

    /// <summary>From rate, channels and sample size; 0 when these cannot be.</summary>
    private static long BytesPerSecond(ReadOnlySpan<byte> format)
    {
        var channels = BinaryPrimitives.ReadUInt16LittleEndian(format[2..]);
        var rate = BinaryPrimitives.ReadUInt32LittleEndian(format[4..]);
        var bits = BinaryPrimitives.ReadUInt16LittleEndian(format[14..]);
        return channels is < 1 or > 32 || rate is < 1000 or > 768_000 || bits is < 4 or > 64 ? 0 : rate * channels * bits / 8;
    }

    /// <summary>The first block of a FLAC file has 20 bits of rate and 36 bits of samples.</summary>
    private static double? FlacSeconds(ReadOnlySpan<byte> head)
    {
        if (head.Length < 26 || !head[..4].SequenceEqual("fLaC"u8))
            return null;
        var bits = BinaryPrimitives.ReadUInt64BigEndian(head[18..]);
        var rate = bits >> 44;
        return rate == 0 ? null : (bits & 0xF_FFFF_FFFF) / (double)rate;
    }

    private static bool IsCompressed(ReadOnlySpan<byte> head) => head.Length >= 12
        && (head[..3].SequenceEqual("ID3"u8) || head[..4].SequenceEqual("OggS"u8) || head[4..8].SequenceEqual("ftyp"u8)
            || BinaryPrimitives.ReadUInt32BigEndian(head) == 0x1A45_DFA3
            // the beginning of a frame of MPEG layer III
            || (head[0] == 0xFF && (head[1] & 0xE6) == 0xE2));
}
