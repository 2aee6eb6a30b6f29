using System.Formats.Tar;
using System.Text;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Extraction;
using ModelHost.TestKit;
using static ModelHost.TestKit.Archives;

namespace ModelHost.Tests.Artifacts;

public sealed class ArchiveTests : IDisposable
{
    private const UnixFileMode SetUidExecutable = UnixFileMode.SetUser | UnixFileMode.SetGroup | UnixFileMode.StickyBit | UnixFileMode.UserRead
        | UnixFileMode.UserExecute | UnixFileMode.OtherWrite;

    private readonly string _folder = Directory.CreateTempSubdirectory("mh-unpack-").FullName;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private string Root => Path.Combine(_folder, "inside", "root");

    public static TheoryData<string, string> Corpus => new(
        // name of the archive, and what is said of it
        ("path up", "'..'"), ("path up in the middle", "'..'"), ("absolute", "absolute"), ("link out", "not a place"), ("absolute link", "not a place"),
        ("link through a name", "not a place"), ("file through a link", "no folder"), ("folder through a link", "no folder"), ("link in the place of a folder", "comes twice"),
        ("hard link out", "no file"), ("hard link to nothing", "no file"), ("hard link to a link", "no file"), ("device", "kind"), ("block device", "kind"),
        ("fifo", "kind"), ("twice", "twice"), ("file as folder", "no folder"), ("long part", "too long"), ("deep", "too deep"), ("control characters", "control"),
        ("backslash", "backslash"), ("the node's own record", "taken"), ("huge extended header", "1 MiB"), ("huge long name", "16 KiB"), ("size beyond bounds", "bounds"),
        ("negative size", "no number"), ("size no number", "no number"), ("link with a size", "has a size"), ("sparse", "holes"), ("old sparse", "kind"), ("global size", "size that is none"),
        ("broken extended header", "cannot be read"), ("checksum", "sum of a header"), ("cut", "cannot be read"), ("bomb", "times its size"), ("too many", "more than 1000 files"),
        ("too large", "more than 100000000 bytes"), ("no archive", "no tar"), ("empty", "no tar"), ("zip path up", "'..'"), ("zip absolute", "absolute"), ("zip link", "a link"),
        ("zip device", "no file and no folder"), ("zip twice", "twice"), ("zip bomb", "times its size"), ("zip backslash", "backslash"), ("zip cut", "end"));

    [Theory]
    [MemberData(nameof(Corpus))]
    public void Bad_archive_is_refused_and_leaves_nothing_outside(string name, string says)
    {
        var failure = Should.Throw<DownloadException>(() => Unpack(Make(name)));

        failure.Message.ShouldContain(says);
        failure.Code.ShouldBe(name is "bomb" or "zip bomb" or "too many" or "too large" ? "too_large" : "archive_invalid");
        Outside().ShouldBeEmpty();
    }

    [Theory]
    [InlineData("tar")]
    [InlineData("gzip")]
    [InlineData("zstd")]
    public void Good_tar_is_unpacked_without_its_special_bits(string format)
    {
        var tar = Tar(
            Entry(TarEntryType.Directory, "./"), Entry(TarEntryType.Directory, "bin/"), File("bin/run", "#!/bin/sh", SetUidExecutable), File("./lib/deep/data", "data"),
            Entry(TarEntryType.SymbolicLink, "lib/deep/up", "../../bin/run"), Entry(TarEntryType.SymbolicLink, "lib/current", "deep"), Entry(TarEntryType.HardLink, "copy", "lib/deep/data"),
            File(new string('n', 150) + "/" + new string('m', 200), "long"));

        Unpack(format switch { "gzip" => Gzip(tar), "zstd" => new ZstdSharp.Compressor().Wrap(tar).ToArray(), _ => tar });

        Read("bin/run").ShouldBe("#!/bin/sh");
        System.IO.File.GetUnixFileMode(Path.Combine(Root, "bin/run")).ShouldBe((UnixFileMode)0b111_101_101);
        System.IO.File.GetUnixFileMode(Path.Combine(Root, "lib/deep/data")).ShouldBe((UnixFileMode)0b110_100_100);
        (Read("lib/deep/up"), Read("lib/current/data"), Read("copy")).ShouldBe(("#!/bin/sh", "data", "data"));
        Read(new string('n', 150) + "/" + new string('m', 200)).ShouldBe("long");
    }

    [Fact]
    public void Good_zip_is_unpacked()
    {
        Unpack(Zip(("a/", [], 0), ("a/b.txt", "text"u8.ToArray(), 0), ("run.sh", "#!"u8.ToArray(), (0x8000 | 0b111_101_101) << 16)));

        (Read("a/b.txt"), Read("run.sh")).ShouldBe(("text", "#!"));
        System.IO.File.GetUnixFileMode(Path.Combine(Root, "run.sh")).HasFlag(UnixFileMode.UserExecute).ShouldBeTrue();
    }

    [Fact]
    public void Layers_replace_and_take_away_what_lower_ones_brought()
    {
        Unpack(isLayered: true,
            Tar(File("a", "1"), File("b", "1"), File("d/x", "1"), File("d/y", "1"), File("o/low", "1"), File("was-folder/f", "1"), File("was-file", "1")),
            Gzip(Tar(File("a", "2"), File(".wh.b", ""), File("d/.wh.x", ""), File("o/.wh..wh..opq", ""), File("o/high", "2"), File("was-folder", "2"), File("was-file/f", "2"), File(".wh..wh.plnk", ""))),
            Tar(File("n", "3"), File(".wh.nothing", ""), File("o/.wh..wh..opq", ""), File("o/top", "3")));

        Directory.GetFiles(Root, "*", SearchOption.AllDirectories).Select(file => $"{Path.GetRelativePath(Root, file)}={System.IO.File.ReadAllText(file)}").Order()
            .ShouldBe(["a=2", "d/y=1", "n=3", "o/top=3", "was-file/f=2", "was-folder=2"]);
    }

    [Fact]
    public void Whiteout_takes_nothing_away_outside()
    {
        Directory.CreateDirectory(Root);
        var precious = Path.Combine(_folder, "inside", "precious");
        System.IO.File.WriteAllText(precious, "here");

        Should.Throw<DownloadException>(() => Unpack(isLayered: true, Tar(File("../.wh.precious", "")))).Code.ShouldBe("archive_invalid");
        Unpack(isLayered: true, Tar(Entry(TarEntryType.SymbolicLink, "l", "x"), File("x/f", "1")), Tar(File("l/.wh.f", ""), File(".wh.", "")));

        System.IO.File.ReadAllText(precious).ShouldBe("here");
        Read("x/f").ShouldBe("1"); // not through the link
    }

    [Fact]
    public void Damaged_archives_never_write_outside_and_always_end_in_a_refusal()
    {
        var tar = Tar(
            Entry(TarEntryType.Directory, "bin/"), File("bin/run", "#!/bin/sh", SetUidExecutable), File(new string('n', 150), FileServer.Bytes(3000)),
            Entry(TarEntryType.SymbolicLink, "lib/deep/up", "../../bin/run"), Entry(TarEntryType.HardLink, "copy", "bin/run"));
        var random = new Random(7);
        for (var i = 0; i < 300; i++)
        {
            var damaged = (byte[])tar.Clone();
            for (var j = 0; j < 3; j++)
                damaged[random.Next(damaged.Length)] = (byte)random.Next(256);
            try
            {
                Unpack(damaged);
            }
            catch (DownloadException)
            {
                // most of them
            }
            Outside().ShouldBeEmpty();
            Directory.Delete(Root, recursive: true);
        }
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static byte[] Make(string name) => name switch
    {
        "path up" => Tar(File("../evil", "x")),
        "path up in the middle" => Tar(File("a/../../evil", "x")),
        "absolute" => Tar(File("/tmp/evil", "x")),
        "link out" => Tar(Entry(TarEntryType.SymbolicLink, "a/b", "../../evil")),
        "absolute link" => Tar(Entry(TarEntryType.SymbolicLink, "a", "/etc")),
        // b/.. is where a leads, and there is no telling what is above it
        "link through a name" => Tar(Entry(TarEntryType.SymbolicLink, "a", "."), Entry(TarEntryType.SymbolicLink, "b", "a/../evil")),
        "file through a link" => Tar(Entry(TarEntryType.SymbolicLink, "a", "."), File("a/evil", "x")),
        "folder through a link" => Tar(Entry(TarEntryType.SymbolicLink, "a", "."), Entry(TarEntryType.Directory, "a/b/")),
        "link in the place of a folder" => Tar(File("d/f", "x"), Entry(TarEntryType.SymbolicLink, "d", ".")),
        "hard link out" => Tar(Entry(TarEntryType.HardLink, "a", "b")),
        "hard link to nothing" => Tar(File("x", "x"), Entry(TarEntryType.HardLink, "a", "y")),
        "hard link to a link" => Tar(Entry(TarEntryType.SymbolicLink, "l", "x"), Entry(TarEntryType.HardLink, "a", "l")),
        "device" => Tar(Entry(TarEntryType.CharacterDevice, "null")),
        "block device" => Tar(Entry(TarEntryType.BlockDevice, "disk")),
        "fifo" => Tar(Entry(TarEntryType.Fifo, "pipe")),
        "twice" => Tar(File("a", "1"), File("./a", "2")),
        "file as folder" => Tar(File("a", "1"), File("a/b", "2")),
        "long part" => Tar(File(new string('a', 256), "x")),
        "deep" => Tar(File(string.Concat(Enumerable.Repeat("a/", 70)) + "f", "x")),
        "control characters" => Tar(File("a\u001b[2Jb", "x")),
        "backslash" => Tar(File("..\\evil", "x")),
        "the node's own record" => Tar(File(".modelhost.json", "{}")),
        "huge extended header" => [.. Header("pax", 1L << 31, 'x'), .. new byte[4096]],
        "huge long name" => [.. Header("././@LongLink", 1L << 30, 'L'), .. new byte[4096]],
        "size beyond bounds" => SetBinarySize([.. Header("a", 0, '0'), .. new byte[512]], 0x80, 0x7f),
        "negative size" => SetBinarySize([.. Header("a", 0, '0'), .. new byte[512]], 0xff, 0xff),
        "size no number" => [.. Header("a", 0, '0', "0000000009x\0"), .. new byte[512]],
        "link with a size" => [.. Header("a", 600, '2'), .. new byte[1024]],
        "sparse" => [.. Extended('x', PaxRecord("GNU.sparse.major", "1")), .. Header("a", 0, '0'), .. new byte[1024]],
        "old sparse" => [.. Header("a", 0, 'S'), .. new byte[1024]],
        "global size" => [.. Extended('g', PaxRecord("size", "5")), .. Header("a", 0, '0'), .. new byte[1024]],
        "broken extended header" => [.. Extended('x', "99 path=x\n"), .. Header("a", 0, '0'), .. new byte[1024]],
        "checksum" => Spoil([.. Header("a", 0, '0'), .. new byte[1024]]),
        "cut" => [.. Header("a", 5000, '0'), .. new byte[2000]],
        "bomb" => Gzip(Tar(File("zeros", new byte[40_000_000]))),
        "too many" => Tar([.. Enumerable.Range(0, 1001).Select(i => File($"f{i}", ""))]),
        "too large" => [.. Header("a", 200_000_000, '0'), .. new byte[110_000_000]],
        "no archive" => Encoding.UTF8.GetBytes(new string('x', 1000)),
        "empty" => [],
        "zip path up" => Zip(("../evil", [1], 0)),
        "zip absolute" => Zip(("/evil", [1], 0)),
        "zip link" => Zip(("a", "/etc"u8.ToArray(), (0xA000 | 0x1ff) << 16)),
        "zip device" => Zip(("a", [], 0x2000 << 16)),
        "zip twice" => Zip(("a", [1], 0), ("a", [2], 0)),
        "zip bomb" => Zip(("zeros", new byte[40_000_000], 0)),
        "zip backslash" => Zip(("..\\evil", [1], 0)),
        "zip cut" => Zip(("a", FileServer.Bytes(1000), 0))[..^30],
        _ => throw new ArgumentOutOfRangeException(nameof(name)),
    };

    private static byte[] Extended(char type, string records) => [.. Header("pax", Encoding.UTF8.GetByteCount(records), type), .. Padded(Encoding.UTF8.GetBytes(records))];

    private static byte[] SetBinarySize(byte[] tar, byte first, byte second)
    {
        (tar[124], tar[125]) = (first, second);
        tar.AsSpan(148, 8).Fill((byte)' ');
        Encoding.ASCII.GetBytes(Convert.ToString(tar[..512].Sum(b => b), 8).PadLeft(6, '0') + "\0 ").CopyTo(tar, 148);
        return tar;
    }

    private static byte[] Spoil(byte[] tar)
    {
        tar[0]++;
        return tar;
    }

    private void Unpack(params byte[][] archives) => Unpack(isLayered: false, archives);

    private void Unpack(bool isLayered, params byte[][] archives)
    {
        Directory.CreateDirectory(Root);
        var meter = new UnpackMeter(new UnpackLimits(100_000_000, 1000) { RatioFreeBytes = 1_000_000 }, new DiskRoom(_folder, 0), Ct);
        var writer = new TreeWriter(Root, meter, isLayered);
        foreach (var archive in archives)
        {
            var path = Path.Combine(_folder, "archive");
            System.IO.File.WriteAllBytes(path, archive);
            Archive.Unpack(path, writer, meter, isLayered);
        }
    }

    private string Read(string path) => System.IO.File.ReadAllText(Path.Combine(Root, path));

    private IEnumerable<string> Outside() => Directory.EnumerateFileSystemEntries(_folder, "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint })
        .Where(path => path != Path.Combine(_folder, "archive") && path != Path.Combine(_folder, "inside") && path != Root && !path.StartsWith(Root + "/", StringComparison.Ordinal));
}
