using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

/// <summary>The form of the answers, as far as it can go wrong. What real cards say is in <see cref="GpuReadingTests"/>.</summary>
public sealed class NvidiaSmiTests
{
    private const long Mib = 1024 * 1024;
    private const string L4 = "0, GPU-1, NVIDIA L4, 23034, 1, 22490, 0, 40, 20.50, Disabled, 550.1";

    private static readonly GpuFacts ReadL4 =
        new(0, "GPU-1", "NVIDIA L4", 23034 * Mib, 1 * Mib, 0, 40, 20.5) { MigEnabled = false, Driver = "550.1" };

    [Theory]
    [InlineData("[N/A]")]
    [InlineData("N/A")]
    [InlineData("[Not Supported]")]
    [InlineData("[Insufficient Permissions]")]
    [InlineData("[Unknown Error]")]
    [InlineData("[GPU requires reset]")]
    [InlineData("ERR!")]
    [InlineData("")]
    [InlineData("-1")]
    [InlineData("NaN")]
    [InlineData("Infinity")]
    [InlineData("1e400")]
    [InlineData("0x10")]
    [InlineData("120,5")]
    [InlineData("24 GiB")]
    [InlineData("٣")]
    [InlineData("99999999999999999999999999")]
    public void A_word_in_a_numeric_column_is_unknown(string word) =>
        Gpus($"0, GPU-1, NVIDIA L4, {word}, {word}, {word}, {word}, {word}, {word}, [N/A], 550.1")
            .ShouldBe([new GpuFacts(0, "GPU-1", "NVIDIA L4", null, null, null, null, null) { Driver = "550.1" }]);

    [Fact]
    public void A_word_in_any_column_but_the_index_leaves_the_gpu_known() =>
        Gpus("7, [N/A], [Unknown Error], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]")
            .ShouldBe([new GpuFacts(7, "", "[Unknown Error]", null, null, null, null, null)]);

    [Fact]
    public void A_name_may_hold_commas()
    {
        var gpu = Gpus("3, GPU-1, NVIDIA X, Y, Z Edition, 1000, 10, 990, 5, 40, 20.0, [N/A], 550.1").ShouldHaveSingleItem();

        (gpu.Index, gpu.Name, gpu.TotalBytes, gpu.PowerWatts).ShouldBe((3, "NVIDIA X, Y, Z Edition", 1000 * Mib, 20.0));
    }

    [Fact]
    public void A_decimal_comma_makes_its_own_figure_unknown_and_no_other() =>
        Gpus(L4.Replace("20.50", "20,50", StringComparison.Ordinal)).ShouldBe([ReadL4 with { PowerWatts = null }]);

    [Theory]
    [InlineData(L4 + "\r\n")]
    [InlineData("\r\n\r\n" + L4 + "\r\n\r\n")]
    [InlineData("  " + L4 + " \t \n")]
    [InlineData("WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n" + L4 + "\nwarning: something else\n")]
    [InlineData("0, GPU-1, NVIDIA L4, 23034 MiB, 1 MiB, 22490 MiB, 0 %, 40, 20.50 W, Disabled, 550.1")]
    [InlineData("\uFEFF\n" + L4)]
    public void Line_ends_blanks_units_and_warnings_do_not_matter(string answer) => Gpus(answer.Trim('\uFEFF')).ShouldBe([ReadL4]);

    [Fact]
    public void An_empty_last_column_is_a_column() =>
        Gpus("0, GPU-1, NVIDIA L4, 23034, 1, 22490, 0, 40, 20.50, Disabled, ").ShouldBe([ReadL4 with { Driver = null }]);

    [Fact]
    public void More_used_than_there_is_means_that_it_is_unknown() =>
        Gpus("0, GPU-1, NVIDIA L4, 23034, 23035, 0, 101, 40, 20.50, Disabled, 550.1").ShouldBe([ReadL4 with { UsedBytes = null, UtilizationPercent = null }]);

    [Theory]
    [InlineData("0, GPU-1, NVIDIA L4, 23034, 1, 22490, 0, 40, 20.50, Disab", 1)]
    [InlineData("0, GPU-1, NVIDIA L4, 23034", 1)]
    [InlineData("0, GPU-1, NVIDIA L4, 23034, 1, 22490, 0, 40, 20.50, 3, Disabled", 1)]
    [InlineData("-1, GPU-1, NVIDIA L4, 23034, 1, 22490, 0, 40, 20.50, Disabled, 550.1", 1)]
    [InlineData("1024, GPU-1, NVIDIA L4, 23034, 1, 22490, 0, 40, 20.50, Disabled, 550.1", 1)]
    [InlineData("0;GPU-1;NVIDIA L4;23034;1;22490;0;40;20,50;Disabled;550.1", 1)]
    [InlineData("Keine Geräte gefunden\nBitte den Treiber prüfen, a, b, c, d, e, f, g, h, i, j", 2)]
    [InlineData("\0\u0001, , , , , , , , , , , , , ", 1)]
    [InlineData("", 0)]
    public void What_is_no_gpu_gives_none_and_is_counted(string text, int lines)
    {
        var read = NvidiaSmi.ParseGpus(text);

        read.Items.ShouldBeEmpty();
        read.Unread.ShouldBe(lines);
    }

    [Fact]
    public void An_index_that_comes_twice_counts_once()
    {
        var read = NvidiaSmi.ParseGpus($"{L4}\n{L4.Replace("GPU-1", "GPU-2", StringComparison.Ordinal)}");

        read.Items.ShouldBe([ReadL4]);
        (read.Unread, read.FirstUnread).ShouldBe((1, L4.Replace("GPU-1", "GPU-2", StringComparison.Ordinal)));
    }

    [Fact]
    public void Text_is_shown_short_and_without_control_characters()
    {
        var gpu = Gpus($"0, GPU-1, NVIDIA \u001b[31m{new string('x', 5000)}, 23034, 1, 22490, 0, 40, 20.50, Disabled, 550.1").ShouldHaveSingleItem();

        gpu.Name.Length.ShouldBeLessThan(200);
        gpu.Name.ShouldStartWith("NVIDIA ?[31mxxx");
        NvidiaSmi.ParseGpus(new string('y', 5000)).FirstUnread!.Length.ShouldBeLessThan(200);
    }

    [Fact]
    public void Random_damage_to_an_answer_never_throws_and_never_makes_more_of_it()
    {
        var random = new Random(20261120);
        var whole = string.Join('\n', Enumerable.Range(0, 8).Select(i => L4.Replace("0, GPU-1", $"{i}, GPU-{i}", StringComparison.Ordinal)));
        for (var round = 0; round < 2000; round++)
        {
            var text = whole.ToCharArray();
            for (var hits = random.Next(1, 40); hits > 0; hits--)
                text[random.Next(text.Length)] = (char)random.Next(0, 0x300);
            var answer = new string(text)[..random.Next(text.Length)];

            var read = NvidiaSmi.ParseGpus(answer);
            var processes = NvidiaSmi.ParseProcesses(answer);

            read.Items.Select(gpu => gpu.Index).ShouldBeUnique();
            read.Items.ShouldAllBe(gpu => gpu.UsedBytes == null || gpu.TotalBytes == null || gpu.UsedBytes <= gpu.TotalBytes);
            processes.Items.ShouldAllBe(process => process.Pid > 0);
            NvidiaSmi.ParseInstances(answer).ShouldBeEmpty();
        }
    }

    [Fact]
    public void A_flood_of_processes_is_cut_off()
    {
        var read = NvidiaSmi.ParseProcesses(string.Concat(Enumerable.Range(1, 50_000).Select(pid => $"GPU-1, {pid}, x, 1\n")));

        read.Items.Count.ShouldBe(4096);
        read.Unread.ShouldBe(50_000 - 4096);
    }

    private static IReadOnlyList<GpuFacts> Gpus(string csv) => NvidiaSmi.ParseGpus(csv).Items;
}
