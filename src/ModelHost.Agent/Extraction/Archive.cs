using System.Formats.Tar;
using System.IO.Compression;
using ModelHost.Agent.Downloads;
using ZstdSharp;

namespace ModelHost.Agent.Extraction;

/// <summary>Unpacks archives: tar, plain or compressed with gzip or zstd, and zip.</summary>
internal static class Archive
{
    private const string Whiteout = ".wh.", Opaque = ".wh..wh..opq", WhiteoutMeta = ".wh..wh.";

    private enum Format
    {
        None,
        Tar,
        Gzip,
        Zstandard,
        Zip,
    }

    /// <summary>Whether a file is an archive that can be unpacked, by its beginning.</summary>
    public static bool Is(string path) => FormatOf(path) != Format.None;

    /// <summary>Unpacks a file.</summary>
    /// <param name="path">The archive.</param>
    /// <param name="writer">Where to.</param>
    /// <param name="meter">Counts what comes out.</param>
    /// <param name="isLayer">Whether it is a layer of an image, in which some names take away what lower layers brought (OCI image layer, "whiteouts").</param>
    /// <exception cref="DownloadException">It is none, or does what none should.</exception>
    public static void Unpack(string path, TreeWriter writer, UnpackMeter meter, bool isLayer)
    {
        writer.Begin(new FileInfo(path).Length);
        using var file = File.OpenRead(path);
        try
        {
            switch (FormatOf(path))
            {
                case Format.Tar:
                    UnpackTar(file, writer, meter, isLayer);
                    break;
                case Format.Gzip:
                    using (var gzip = new GZipStream(file, CompressionMode.Decompress))
                        UnpackTar(gzip, writer, meter, isLayer);
                    break;
                case Format.Zstandard:
                    using (var zstd = new DecompressionStream(file))
                        UnpackTar(zstd, writer, meter, isLayer);
                    break;
                case Format.Zip when !isLayer:
                    ZipUnpacker.Unpack(file, writer, meter);
                    break;
                default:
                    throw new DownloadException("archive_invalid", "what is to be unpacked is no tar (plain, gzip or zstd) and no zip");
            }
        }
        catch (IOException e) when (DiskRoom.IsFull(e))
        {
            throw DiskRoom.Full(e.Message);
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException or FormatException or ArgumentException or OverflowException or NotSupportedException or ZstdException)
        {
            throw new DownloadException("archive_invalid", $"the archive cannot be read: {e.Message}", inner: e);
        }
    }

    private static void UnpackTar(Stream stream, TreeWriter writer, UnpackMeter meter, bool isLayer)
    {
        using var reader = new TarReader(new TarFraming(stream, meter));
        while (reader.GetNextEntry() is { } entry)
        {
            if (isLayer && TakesAway(entry.Name, writer))
                continue;
            switch (entry.EntryType)
            {
                case TarEntryType.RegularFile or TarEntryType.V7RegularFile or TarEntryType.ContiguousFile:
                    writer.File(entry.Name, entry.Mode, entry.DataStream);
                    break;
                case TarEntryType.Directory:
                    writer.Folder(entry.Name);
                    break;
                case TarEntryType.SymbolicLink:
                    writer.SymbolicLink(entry.Name, entry.LinkName);
                    break;
                case TarEntryType.HardLink:
                    writer.HardLink(entry.Name, entry.LinkName);
                    break;
                case TarEntryType.GlobalExtendedAttributes:
                    break;
                default:
                    throw new DownloadException("archive_invalid", $"the archive is refused: there is something of the kind {entry.EntryType} in it");
            }
        }
    }

    private static bool TakesAway(string name, TreeWriter writer)
    {
        var slash = name.LastIndexOf('/');
        var (folder, last) = slash < 0 ? ("", name) : (name[..(slash + 1)], name[(slash + 1)..]);
        if (!last.StartsWith(Whiteout, StringComparison.Ordinal))
            return false;
        if (last == Opaque)
            writer.Clear(folder);
        else if (!last.StartsWith(WhiteoutMeta, StringComparison.Ordinal)) // the rest are notes of AUFS
            writer.Remove(folder + last[Whiteout.Length..]);
        return true;
    }

    private static Format FormatOf(string path)
    {
        Span<byte> beginning = stackalloc byte[512];
        using var file = File.OpenHandle(path);
        var read = beginning[..RandomAccess.Read(file, beginning, 0)];
        return read.StartsWith((ReadOnlySpan<byte>)[0x1f, 0x8b]) ? Format.Gzip
            : read.StartsWith((ReadOnlySpan<byte>)[0x28, 0xb5, 0x2f, 0xfd]) ? Format.Zstandard
            : read.StartsWith("PK\u0003\u0004"u8) || read.StartsWith("PK\u0005\u0006"u8) ? Format.Zip
            : read.Length == 512 && read.Slice(257, 5).SequenceEqual("ustar"u8) ? Format.Tar
            : Format.None;
    }
}
