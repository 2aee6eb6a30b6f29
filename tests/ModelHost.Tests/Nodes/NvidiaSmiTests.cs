using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

public sealed class NvidiaSmiTests
{
    private const long Mib = 1024 * 1024;

    [Fact]
    public void Gpus_are_read_with_their_memory_in_bytes() =>
        NvidiaSmi.ParseGpus(
            "0, GPU-3f1c, NVIDIA H200, 143771, 1024, 142747, 37, 41, 120.53, Disabled, 580.159.03\n"
            + "1, GPU-9a2b, NVIDIA H200, 143771, 0, 143771, 0, 30, 75.10, Disabled, 580.159.03\n")
        .ShouldBe(
        [
            new GpuFacts(0, "GPU-3f1c", "NVIDIA H200", 143771 * Mib, 1024 * Mib, 37, 41, 120.53),
            new GpuFacts(1, "GPU-9a2b", "NVIDIA H200", 143771 * Mib, 0, 0, 30, 75.10),
        ]);

    [Fact]
    public void Unified_memory_is_unknown_and_not_zero() =>
        NvidiaSmi.ParseGpus("0, GPU-5e, NVIDIA GB10, [N/A], [N/A], [N/A], 0, 44, 11.20, [N/A], 580.95.05")
            .ShouldBe([new GpuFacts(0, "GPU-5e", "NVIDIA GB10", null, null, 0, 44, 11.20)]);

    [Fact]
    public void A_card_with_slices_has_no_utilization() =>
        NvidiaSmi.ParseGpus("0, GPU-77, NVIDIA A100-SXM4-40GB, 40960, 19968, 20992, [N/A], 38, 55.00, Enabled, 535.104.05")
            .ShouldBe([new GpuFacts(0, "GPU-77", "NVIDIA A100-SXM4-40GB", 40960 * Mib, 19968 * Mib, null, 38, 55.00)]);

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
    [InlineData("1e400")]
    [InlineData("99999999999999999999999999")]
    public void A_word_in_a_numeric_column_is_unknown(string word) =>
        NvidiaSmi.ParseGpus($"0, GPU-1, NVIDIA L4, {word}, {word}, {word}, {word}, {word}, {word}, [N/A], 550.1")
            .ShouldBe([new GpuFacts(0, "GPU-1", "NVIDIA L4", null, null, null, null, null)]);

    [Fact]
    public void A_name_may_hold_commas()
    {
        var gpu = NvidiaSmi.ParseGpus("3, GPU-1, NVIDIA X, Y, Z Edition, 1000, 10, 990, 5, 40, 20.0, [N/A], 550.1").ShouldHaveSingleItem();

        (gpu.Index, gpu.Name, gpu.TotalBytes, gpu.PowerWatts).ShouldBe((3, "NVIDIA X, Y, Z Edition", 1000 * Mib, 20.0));
    }

    [Fact]
    public void Warnings_between_the_lines_are_left_out() =>
        NvidiaSmi.ParseGpus(
            "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\r\n\r\n"
            + "1, GPU-1, NVIDIA L4, 23034, 1, 23033, 0, 40, 20.0, [N/A], 550.1\r\n"
            + "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\r\n").Select(gpu => gpu.Index).ShouldBe([1]);

    [Theory]
    [InlineData("")]
    [InlineData("No devices were found")]
    [InlineData("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that it is installed, a, b, c, d, e, f, g, h, i, j, k")]
    [InlineData("Failed to initialize NVML: Driver/library version mismatch")]
    [InlineData("0, GPU-1, NVIDIA L4, 23034")]
    [InlineData("-1, GPU-1, NVIDIA L4, 23034, 1, 23033, 0, 40, 20.0, [N/A], 550.1")]
    [InlineData("\0\u0001,,,,,,,,,,,,,,")]
    public void What_is_no_gpu_gives_none(string text) => NvidiaSmi.ParseGpus(text).ShouldBeEmpty();
}
