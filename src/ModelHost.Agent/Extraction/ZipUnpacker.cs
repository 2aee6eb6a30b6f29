using System.Buffers.Binary;
using System.IO.Compression;
using ModelHost.Agent.Downloads;

namespace ModelHost.Agent.Extraction;

/// <summary>Unpacks zip files.</summary>
internal static class ZipUnpacker
{
    // 46 bytes and a name each (APPNOTE 4.3.12): the reader of .NET takes the directory whole into memory
    private const long MaxDirectoryBytes = 64L << 20;
    private const int EndBytes = 22, MaxComment = 65535, LocatorBytes = 20;
    private const int KindMask = 0xF000, LinkKind = 0xA000, FolderKind = 0x4000, FileKind = 0x8000;

    /// <summary>Unpacks one.</summary>
    public static void Unpack(FileStream file, TreeWriter writer, UnpackMeter meter)
    {
        using var zip = Open(file);
        foreach (var entry in zip.Entries)
        {
            // made on Unix: the upper half is the mode
            var mode = (entry.ExternalAttributes >> 16) & 0xFFFF;
            if (entry.IsEncrypted)
                throw Invalid("it is encrypted");
            if ((mode & KindMask) is not (0 or FileKind or FolderKind))
                throw Invalid((mode & KindMask) == LinkKind ? "there is a link in it" : "there is something in it that is no file and no folder");
            if (entry.FullName.EndsWith('/'))
            {
                writer.Folder(entry.FullName);
                continue;
            }
            using var content = entry.Open();
            using var metered = new MeteredStream(content, meter, entry.Length);
            writer.File(entry.FullName, (UnixFileMode)(mode & 0x1FF), metered);
        }
    }

    /// <summary>Whether there is a pickle among the files of a zip, as in those of PyTorch.</summary>
    public static bool HoldsPickle(FileStream file)
    {
        try
        {
            using var zip = Open(file);
            return zip.Entries.Any(entry => Core.Artifacts.PickleFiles.ByName(entry.FullName));
        }
        catch (Exception e) when (e is InvalidDataException or DownloadException)
        {
            return false; // it is no zip, whatever it begins with
        }
    }

    private static ZipArchive Open(FileStream file)
    {
        if (file.Length - DirectoryStart(file) > MaxDirectoryBytes)
            throw Invalid("its directory is longer than 64 MiB");
        file.Position = 0;
        return new ZipArchive(file, ZipArchiveMode.Read, leaveOpen: true);
    }

    private static long DirectoryStart(FileStream file)
    {
        var tail = new byte[Math.Min(file.Length, EndBytes + MaxComment + LocatorBytes)];
        file.Position = file.Length - tail.Length;
        file.ReadExactly(tail);
        var end = tail.AsSpan().LastIndexOf("PK\u0005\u0006"u8);
        if (end < 0 || end + EndBytes > tail.Length)
            throw Invalid("it has no end");
        long start = BinaryPrimitives.ReadUInt32LittleEndian(tail.AsSpan(end + 16));
        if (end >= LocatorBytes && tail.AsSpan(end - LocatorBytes).StartsWith("PK\u0006\u0007"u8))
        {
            // zip64 (APPNOTE 4.3.14): the end that counts lies elsewhere, and the directory's place 48 bytes into it
            var at = BinaryPrimitives.ReadInt64LittleEndian(tail.AsSpan(end - LocatorBytes + 8));
            var place = new byte[8];
            if (at < 0 || at > file.Length - 56)
                throw Invalid("its end is nowhere");
            file.Position = at + 48;
            file.ReadExactly(place);
            start = Math.Min(start, BinaryPrimitives.ReadInt64LittleEndian(place));
        }
        return start >= 0 && start <= file.Length ? start : throw Invalid("its directory is nowhere");
    }

    private static DownloadException Invalid(string why) => new("archive_invalid", $"the zip file is refused: {why}");

    /// <summary>Content that is counted, and no longer than it was said to be.</summary>
    private sealed class MeteredStream(Stream content, UnpackMeter meter, long length) : ReadOnlyStream
    {
        private long _left = length;

        public override int Read(Span<byte> buffer)
        {
            var read = content.Read(buffer);
            meter.Add(read);
            _left -= read;
            if (_left < 0 || (read == 0 && buffer.Length > 0 && _left > 0))
                throw Invalid("a file in it is not as long as it is said to be");
            return read;
        }
    }
}
