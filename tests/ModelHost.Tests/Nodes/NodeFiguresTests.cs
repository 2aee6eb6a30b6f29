using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

public sealed class NodeFiguresTests
{
    [Fact]
    public void Figures_come_back_as_they_were_stored_to_the_promised_digit()
    {
        var random = new Random(6);
        for (var i = 0; i < 1000; i++)
        {
            var figures = Make(random);

            var read = NodeFigures.FromBytes(figures.ToBytes())!;

            ShouldBe(read.CpuPercent, figures.CpuPercent, 0.05);
            ShouldBe(read.MemoryPercent, figures.MemoryPercent, 0.05);
            ShouldBe(read.DiskTotalBytes, figures.DiskTotalBytes, 0.5e8);
            ShouldBe(read.DiskFreeBytes, figures.DiskFreeBytes, 0.5e8);
            ShouldBe(read.HfCacheBytes, figures.HfCacheBytes, 0.5e8);
            read.Gpus.Select(gpu => gpu.Index).ShouldBe(figures.Gpus.Select(gpu => gpu.Index));
            foreach (var (was, now) in figures.Gpus.Zip(read.Gpus))
            {
                ShouldBe(now.Utilization, was.Utilization, 0.5);
                ShouldBe(now.MemoryUsedMb, was.MemoryUsedMb, 0.5);
                ShouldBe(now.MemoryTotalMb, was.MemoryTotalMb, 0.5);
                ShouldBe(now.TemperatureCelsius, was.TemperatureCelsius, 0.5);
                ShouldBe(now.PowerWatts, was.PowerWatts, 0.5);
            }
        }

        static void ShouldBe(double? now, double? was, double tolerance)
        {
            now.HasValue.ShouldBe(was.HasValue);
            if (was is { } value)
                now!.Value.ShouldBe(value, tolerance + 1e-6);
        }
    }

    [Fact]
    public void Damaged_bytes_are_no_figures_and_no_error()
    {
        var random = new Random(7);
        var whole = Make(random).ToBytes();
        for (var length = 0; length < whole.Length; length++)
            NodeFigures.FromBytes(whole[..length]).ShouldBeNull();
        for (var i = 0; i < 5000; i++)
        {
            var bytes = (byte[])whole.Clone();
            bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
            Should.NotThrow(() => NodeFigures.FromBytes(bytes));
        }
        NodeFigures.FromBytes([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x07]).ShouldBeNull("two thousand million GPUs");
        NodeFigures.FromBytes([2, .. whole[1..]]).ShouldBeNull("another version");
    }

    [Fact]
    public void What_cannot_be_is_stored_as_unknown_or_at_the_bound()
    {
        var read = NodeFigures.FromBytes(new NodeFigures { CpuPercent = double.NaN, MemoryPercent = -3, DiskTotalBytes = double.PositiveInfinity, DiskFreeBytes = 1e300 }.ToBytes())!;

        (read.CpuPercent, read.MemoryPercent, read.DiskTotalBytes, read.DiskFreeBytes).ShouldBe((null, 0, null, uint.MaxValue * 1e8));
    }

    [Fact]
    public void Means_are_over_what_is_known()
    {
        var mean = NodeFigures.Mean(
        [
            new NodeFigures { CpuPercent = 10, Gpus = [new(0) { Utilization = 100, MemoryUsedMb = 1000 }, new(2) { Utilization = 7 }] },
            new NodeFigures { CpuPercent = 30, MemoryPercent = 50, Gpus = [new(0) { Utilization = 0 }, new(1)] },
        ]);

        (mean.CpuPercent, mean.MemoryPercent, mean.DiskTotalBytes).ShouldBe((20, 50, null));
        mean.Gpus.ShouldBe([new(0) { Utilization = 50, MemoryUsedMb = 1000 }, new(1), new(2) { Utilization = 7 }]);
    }

    private static NodeFigures Make(Random random)
    {
        double? Value(double most) => random.Next(8) == 0 ? null : random.NextDouble() * most;
        return new NodeFigures
        {
            CpuPercent = Value(100),
            MemoryPercent = Value(100),
            DiskTotalBytes = Value(5e13),
            DiskFreeBytes = Value(5e13),
            HfCacheBytes = Value(5e13),
            Gpus = [.. Enumerable.Range(0, random.Next(17)).Select(index => new GpuFigures(index)
            {
                Utilization = Value(100),
                MemoryUsedMb = Value(200_000),
                MemoryTotalMb = Value(200_000),
                TemperatureCelsius = Value(120),
                PowerWatts = Value(1500),
            })],
        };
    }
}
