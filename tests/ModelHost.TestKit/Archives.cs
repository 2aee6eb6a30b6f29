using System.Formats.Tar;
using System.IO.Compression;
using System.Text;

namespace ModelHost.TestKit;

/// <summary>Makes archives, good and bad.</summary>
public static class Archives
{
    /// <summary>A tar file of entries.</summary>
    public static byte[] Tar(params TarEntry[] entries)
    {
        var tar = new MemoryStream();
        using (var writer = new TarWriter(tar, TarEntryFormat.Pax, leaveOpen: true))
        {
            foreach (var entry in entries)
                writer.WriteEntry(entry);
        }
        return tar.ToArray();
    }

    /// <summary>A file in a tar.</summary>
    public static TarEntry File(string name, string content, UnixFileMode mode = UnixFileMode.UserRead | UnixFileMode.UserWrite) =>
        File(name, Encoding.UTF8.GetBytes(content), mode);

    /// <summary>A file in a tar.</summary>
    public static TarEntry File(string name, byte[] content, UnixFileMode mode = UnixFileMode.UserRead | UnixFileMode.UserWrite) =>
        new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = new MemoryStream(content), Mode = mode };

    /// <summary>A folder, link or whatever else has no content.</summary>
    public static TarEntry Entry(TarEntryType type, string name, string link = "")
    {
        var entry = new PaxTarEntry(type, name);
        if (link.Length > 0)
            entry.LinkName = link;
        return entry;
    }

    /// <summary>Compressed with gzip.</summary>
    public static byte[] Gzip(byte[] content)
    {
        var target = new MemoryStream();
        using (var gzip = new GZipStream(target, CompressionLevel.Optimal))
            gzip.Write(content);
        return target.ToArray();
    }

    /// <summary>A zip file of entries.</summary>
    public static byte[] Zip(params (string Name, byte[] Content, int Attributes)[] entries)
    {
        var target = new MemoryStream();
        using (var zip = new ZipArchive(target, ZipArchiveMode.Create, leaveOpen: true))
        {
            foreach (var (name, content, attributes) in entries)
            {
                var entry = zip.CreateEntry(name);
                entry.ExternalAttributes = attributes;
                using var stream = entry.Open();
                stream.Write(content);
            }
        }
        return target.ToArray();
    }

    /// <summary>A tar header as it lies on the disk, with whatever is wished in it and a right checksum.</summary>
    public static byte[] Header(string name, long size, char type, string? rawSize = null)
    {
        var header = new byte[512];
        Encoding.ASCII.GetBytes(name).CopyTo(header, 0);
        Encoding.ASCII.GetBytes("0000644\0").CopyTo(header, 100);
        Encoding.ASCII.GetBytes("0000000\0").CopyTo(header, 108);
        Encoding.ASCII.GetBytes("0000000\0").CopyTo(header, 116);
        Encoding.ASCII.GetBytes(rawSize ?? Convert.ToString(size, 8).PadLeft(11, '0') + "\0").CopyTo(header, 124);
        Encoding.ASCII.GetBytes("00000000000\0").CopyTo(header, 136);
        header.AsSpan(148, 8).Fill((byte)' ');
        header[156] = (byte)type;
        Encoding.ASCII.GetBytes("ustar\0" + "00").CopyTo(header, 257);
        Encoding.ASCII.GetBytes(Convert.ToString(header.Sum(b => b), 8).PadLeft(6, '0') + "\0 ").CopyTo(header, 148);
        return header;
    }

    /// <summary>Content up to the next block of a tar file.</summary>
    public static byte[] Padded(byte[] content)
    {
        var padded = new byte[(content.Length + 511) / 512 * 512];
        content.CopyTo(padded, 0);
        return padded;
    }

    /// <summary>A record of an extended header.</summary>
    public static string PaxRecord(string key, string value)
    {
        for (var length = key.Length + value.Length + 4; ; length++)
        {
            var record = $"{length} {key}={value}\n";
            if (Encoding.UTF8.GetByteCount(record) == length)
                return record;
        }
    }
}
