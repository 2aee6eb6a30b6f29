using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Features.Stores;

namespace ModelHost.Tests.Stores;

public sealed class StoreFileTests : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("mh-stores-");

    private string FilePath => Path.Combine(_folder.FullName, "s.vectors");

    [Fact]
    public void A_file_that_ends_anywhere_in_its_last_record_has_all_the_others_and_goes_on()
    {
        using (var file = StoreFile.Create(FilePath, 2))
            file.Append([Set(1), Set(2), Set(3)]);
        var whole = File.ReadAllBytes(FilePath);
        var before = whole.Length - Set(3).Length;
        for (var length = before; length < whole.Length; length++)
        {
            File.WriteAllBytes(FilePath, whole[..length]);

            using (var file = StoreFile.Read(FilePath)!)
            {
                Values(file).ShouldBe(["1", "2"]);
                (file.Length, file.CutBytes).ShouldBe((before, length - before));
                new FileInfo(FilePath).Length.ShouldBe(before);
                file.Append([Set(4)]);
            }
            using var again = StoreFile.Read(FilePath)!;
            Values(again).ShouldBe(["1", "2", "4"]);
            again.CutBytes.ShouldBe(0);
        }
        File.ReadAllBytes(FilePath + ".cut").ShouldBe(whole[before..^1]);
    }

    [Fact]
    public void A_bit_that_fell_over_ends_what_is_read_and_the_rest_is_kept_aside()
    {
        using (var file = StoreFile.Create(FilePath, 2))
            file.Append([Set(1), Set(2), Set(3)]);
        var bytes = File.ReadAllBytes(FilePath);
        var second = bytes.Length - (2 * Set(3).Length);
        for (var at = second; at < second + Set(2).Length; at++)
        {
            var wrong = (byte[])bytes.Clone();
            wrong[at] ^= 0x10;
            File.WriteAllBytes(FilePath, wrong);

            using var file = StoreFile.Read(FilePath)!;

            Values(file).ShouldBe(["1"]);
            File.ReadAllBytes(FilePath + ".cut").ShouldBe(wrong[second..]);
        }
    }

    [Fact]
    public void A_file_whose_making_was_interrupted_is_none_and_another_program_s_is_refused()
    {
        File.WriteAllBytes(FilePath, "MHSTORE\n"u8.ToArray());
        StoreFile.Read(FilePath).ShouldBeNull();
        File.WriteAllText(FilePath, "this is a text file of somebody");
        Should.Throw<InvalidDataException>(() => StoreFile.Read(FilePath));
    }

    [Fact]
    public async Task Compaction_keeps_what_is_there_and_the_dimension_and_shrinks_the_file()
    {
        var value = Encoding.UTF8.GetBytes(new string('x', 100_000));
        var store = new VectorStore("s", StoreFile.Create(FilePath, 2), new StoreBudget(long.MaxValue), NullLogger.Instance);
        var longest = 0L;
        await using (store)
        {
            for (var i = 0; i < 500; i++)
            {
                (await store.ChangeAsync(StoreChange.Set, [[i % 7, 1]], [value], TestContext.Current.CancellationToken)).ShouldBeNull();
                longest = Math.Max(longest, new FileInfo(FilePath).Length);
            }
            (await store.ChangeAsync(StoreChange.Delete, [[3, 1]], [], TestContext.Current.CancellationToken)).ShouldBeNull();
        }

        longest.ShouldBeLessThan(20 * 1024 * 1024);
        File.WriteAllText(FilePath + ".new", "an interrupted compaction");
        using var file = StoreFile.Read(FilePath)!;
        file.Table.Get(Enumerable.Range(0, 8).Select(i => (float[])[i, 1])).Select(match => match.Key[0]).ShouldBe([0, 1, 2, 4, 5, 6]);
        file.Table.Dimension.ShouldBe(2);
        File.Exists(FilePath + ".new").ShouldBeFalse();
    }

    [Fact]
    public async Task A_change_for_which_there_is_no_room_is_refused_and_the_next_one_is_made()
    {
        var small = new StoreBudget(300);
        await using (var store = new VectorStore("s", StoreFile.Create(FilePath, 2), small, NullLogger.Instance))
        {
            (await store.ChangeAsync(StoreChange.Set, [[1, 1]], [new byte[400]], TestContext.Current.CancellationToken)).ShouldNotBeNull().Code.ShouldBe("store.full");
            (await store.ChangeAsync(StoreChange.Set, [[2, 1]], ["2"u8.ToArray()], TestContext.Current.CancellationToken)).ShouldBeNull();
            small.Used.ShouldBe(1 + 8 + VectorTable.RowOverhead);
        }
        using var file = StoreFile.Read(FilePath)!;
        Values(file).ShouldBe(["2"]);
    }

    public void Dispose() => _folder.Delete(recursive: true);

    private static byte[] Set(int i) => StoreRecord.Write(StoreChange.Set, 2, 1, _ => new float[] { i, 1 }, _ => Encoding.UTF8.GetBytes($"{i}"));

    private static string[] Values(StoreFile file) => [.. file.Table.Find([0, 1], 100).Select(match => Encoding.UTF8.GetString(match.Value))];
}
