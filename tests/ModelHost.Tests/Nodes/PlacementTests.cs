using ModelHost.Core;
using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

public sealed class PlacementTests
{
    private const long Gib = 1024L * 1024 * 1024;

    [Fact]
    public void The_gpu_with_the_most_room_is_chosen() =>
        Chosen([Gpu(0, used: 30), Gpu(1, used: 10), Gpu(2, used: 20)], Request(0.5)).ShouldBe([1]);

    [Fact]
    public void Promised_memory_counts_as_used() =>
        Chosen([Gpu(0, used: 0, declared: 0.5), Gpu(1, used: 30)], Request(0.3)).ShouldBe([1]);

    [Fact]
    public void Of_equal_gpus_the_first_is_chosen() =>
        Chosen([Gpu(2), Gpu(1), Gpu(3)], Request(0.5)).ShouldBe([1]);

    [Fact]
    public void Tensor_parallel_takes_as_many_gpus_in_ascending_order() =>
        Chosen([Gpu(0, used: 20), Gpu(1, used: 5), Gpu(2, used: 10), Gpu(3)], Request(0.5) with { TensorParallelSize = 2 }).ShouldBe([1, 3]);

    [Fact]
    public void Gpus_asked_for_are_taken_in_ascending_order() =>
        Chosen([Gpu(0), Gpu(1), Gpu(2)], Request(0.5, 2, 0)).ShouldBe([0, 2]);

    [Fact]
    public void A_node_without_gpus_runs_engines_without() => Chosen([], Request(0.5)).ShouldBeEmpty();

    [Fact]
    public void Every_gpu_that_is_refused_has_its_reason()
    {
        var refusal = Refused([Gpu(0, used: 60), Gpu(1, declared: 0.7), new(2, null, null, 0), Gpu(3) with { Cordoned = true }], Request(0.5));

        refusal.Kind.ShouldBe(FailureKind.Conflict);
        refusal.Code.ShouldBe("deployment.no_capacity");
        refusal.Detail.ShouldBe(
            "1 GPU needed with 0.5 of the memory free, 0 found (GPU 0: 40960 MiB needed, 20480 MiB of 81920 MiB free; "
            + "GPU 1: 0.7 of its memory is promised to other deployments; GPU 2: its memory is unknown; GPU 3: under maintenance)");
    }

    [Fact]
    public void Gpus_asked_for_that_are_refused_have_their_reasons() =>
        Refused([Gpu(0), Gpu(1, used: 79), Gpu(2, declared: 1)], Request(0.5, 0, 1, 2)).Detail.ShouldBe(
            "GPU 1: 40960 MiB needed, 1024 MiB of 81920 MiB free; GPU 2: 1 of its memory is promised to other deployments");

    [Fact]
    public void What_fits_exactly_is_taken() => Chosen([Gpu(0, used: 40, declared: 0.5)], Request(0.5)).ShouldBe([0]);

    [Fact]
    public void Fractions_that_sum_to_one_fit_in_spite_of_rounding() =>
        Chosen([Gpu(0, declared: 0.1 + 0.2 + 0.1)], Request(0.6)).ShouldBe([0]);

    [Fact]
    public void A_skipped_check_leaves_out_memory_and_nothing_else()
    {
        var full = (GpuCapacity[])[Gpu(0, used: 80, declared: 1), new(1, null, null, 0), Gpu(2) with { Cordoned = true }];
        var skip = Request(0.9) with { SkipMemoryCheck = true };

        Chosen(full, skip with { TensorParallelSize = 2 }).ShouldBe([0, 1]);
        Refused(full, skip with { GpuIds = [2] }).Detail.ShouldBe("GPU 2: under maintenance");
    }

    [Fact]
    public void A_gpu_of_unknown_memory_comes_last_when_the_check_is_skipped() =>
        Chosen([new(0, null, null, 0), Gpu(1, used: 80)], Request(0.9) with { SkipMemoryCheck = true }).ShouldBe([1]);

    [Fact]
    public void Nothing_is_placed_by_old_figures_not_even_without_the_memory_check()
    {
        GpuCapacity[] gpus = [Gpu(0) with { Stale = "nvidia-smi did not answer within 15 s" }, Gpu(1, used: 70)];

        Chosen(gpus, Request(0.1)).ShouldBe([1]);
        Refused(gpus, Request(0.1, 0) with { SkipMemoryCheck = true }).Detail
            .ShouldBe("GPU 0: its figures are not current: nvidia-smi did not answer within 15 s");
    }

    [Fact]
    public void A_split_card_is_taken_only_without_the_memory_check_and_last()
    {
        GpuCapacity[] gpus = [Gpu(0) with { Split = true }, Gpu(1, used: 79)];

        Refused(gpus, Request(0.1)).Detail.ShouldContain("GPU 0: it is split into MIG instances, and what is free in each is unknown");
        Chosen(gpus, Request(0.1) with { SkipMemoryCheck = true }).ShouldBe([1]);
        Chosen(gpus, Request(0.1, 0) with { SkipMemoryCheck = true }).ShouldBe([0]);
    }

    [Theory]
    [InlineData(0.79, 0, true)]
    [InlineData(0.8, 0, false)]
    [InlineData(0.5, 0.6, false)]
    public void Unified_memory_is_measured_by_what_is_available_of_the_systems(double fraction, double declared, bool fits)
    {
        // a DGX Spark: 127600748 kB in all, 101330212 kB available
        var spark = new GpuCapacity(0, 127600748L * 1024, (127600748L - 101330212L) * 1024, declared) { Unified = true };

        var placed = Placement.Choose([spark], Request(fraction));

        (placed.Failure is null).ShouldBe(fits);
        if (declared == 0 && !fits)
            placed.Failure!.Detail.ShouldContain("99688 MiB needed, 98955 MiB of 124610 MiB of system memory available");
    }

    [Theory]
    [InlineData(new[] { 0, 0 }, null, "gpu_ids", "names a GPU twice")]
    [InlineData(new[] { 0, 7 }, null, "gpu_ids", "the node has no GPU 7; it has 0, 1, 2")]
    [InlineData(new[] { -1 }, null, "gpu_ids", "the node has no GPU -1; it has 0, 1, 2")]
    [InlineData(new[] { 0, 1, 2 }, 2, "tensor_parallel_size", "2 does not divide the 3 GPUs asked for")]
    [InlineData(new[] { 0 }, 2, "tensor_parallel_size", "2 does not divide the 1 GPUs asked for")]
    [InlineData(null, 4, "tensor_parallel_size", "the node has 3 GPUs, not 4")]
    public void A_request_that_cannot_be_right_names_its_field(int[]? ids, int? size, string field, string detail)
    {
        var refusal = Refused([Gpu(0), Gpu(1), Gpu(2)], new PlacementRequest(0.1, ids, size, false));

        (refusal.Kind, refusal.Field, refusal.Detail).ShouldBe((FailureKind.Invalid, field, detail));
    }

    [Fact]
    public void A_node_without_gpus_refuses_what_needs_them()
    {
        Refused([], Request(0.5, 0)).Detail.ShouldBe("the node has no GPU 0: it has no GPUs");
        Refused([], Request(0.5) with { TensorParallelSize = 2 }).Field.ShouldBe("tensor_parallel_size");
    }

    [Fact]
    public void Never_more_than_the_free_memory_and_never_more_than_the_whole()
    {
        var random = new Random(20260301);
        for (var round = 0; round < 2000; round++)
        {
            var gpus = Enumerable.Range(0, random.Next(1, 9)).Select(i => new GpuCapacity(
                i,
                random.Next(10) == 0 ? null : random.Next(8, 200) * Gib,
                random.Next(10) == 0 ? null : random.Next(0, 8) * Gib,
                Math.Round(random.NextDouble(), 2),
                random.Next(5) == 0)).ToArray();
            var size = random.Next(1, 5);
            var request = new PlacementRequest(Math.Round(random.NextDouble(), 2) + 0.01, random.Next(2) == 0 ? null : [.. Pick(random, gpus.Length, size)], size, false);

            if (!Placement.Choose(gpus, request).TryGet(out var chosen, out var refusal))
            {
                // a refusal without asking for GPUs is right: fewer than needed would fit
                if (request.GpuIds is null && refusal.Kind == FailureKind.Conflict)
                    gpus.Count(gpu => Fits(gpu, request)).ShouldBeLessThan(size);
                continue;
            }
            chosen.Count.ShouldBe(request.GpuIds?.Count ?? size);
            chosen.ShouldBe(chosen.Distinct().Order());
            chosen.ShouldAllBe(id => Fits(gpus[id], request));
        }
    }

    private static bool Fits(GpuCapacity gpu, PlacementRequest request) =>
        !gpu.Cordoned && gpu is { TotalBytes: { } total, UsedBytes: { } used }
        && request.MemoryFraction * total <= total - used && gpu.DeclaredFraction + request.MemoryFraction <= 1.00001;

    private static IEnumerable<int> Pick(Random random, int count, int size)
    {
        var all = Enumerable.Range(0, count).ToArray();
        random.Shuffle(all);
        return all.Take(size);
    }

    private static GpuCapacity Gpu(int index, long used = 0, double declared = 0) => new(index, 80 * Gib, used * Gib, declared);

    private static PlacementRequest Request(double fraction, params int[] ids) => new(fraction, ids.Length == 0 ? null : ids, null, false);

    private static IReadOnlyList<int> Chosen(GpuCapacity[] gpus, PlacementRequest request) =>
        Placement.Choose(gpus, request).Match(ids => ids, failure => throw new InvalidOperationException(failure.Detail));

    private static Failure Refused(GpuCapacity[] gpus, PlacementRequest request) => Placement.Choose(gpus, request).Failure.ShouldNotBeNull();
}
