using Google.Protobuf;
using ModelHost.Agent.Reports;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Nodes;

/// <summary>Reports as updates: what is told of one is what is new.</summary>
public sealed class ReportPartsTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Updates_one_after_the_other_make_every_report_that_they_were_made_of(int seed)
    {
        var random = new Random(seed);
        var report = new NodeReport { NodeId = "n", Hostname = "gpu-1" };
        var (told, heard) = (new ReportParts(report), new ReportParts(report));
        for (var step = 0; step < 500; step++)
        {
            Change(report, random);
            var before = report.Clone();
            var now = new ReportParts(report);
            // over the wire
            heard.Apply(ReportUpdate.Parser.ParseFrom(now.Since(told).ToByteArray()));
            told = now;

            report.ShouldBe(before, "taking apart leaves it as it is");
            Sorted(heard.Whole()).ShouldBe(Sorted(report), $"step {step}");
            now.Since(heard).ShouldBe(new ReportUpdate());
        }
    }

    [Fact]
    public void What_changes_all_the_time_is_told_without_what_stays()
    {
        var report = new NodeReport { NodeId = "n", Hostname = "gpu-1", Cpu = new Cpu { Count = 64 } };
        for (var i = 0; i < 8; i++)
            report.Gpus.Add(new Gpu { Index = i, Uuid = $"GPU-{Guid.Empty}", Name = "NVIDIA H100 80GB HBM3", MemoryTotalBytes = 80L << 30 });
        report.Engines.Add(new Engine { RunId = "a", LaunchSpec = new string('x', 1000), EngineKey = "key" });
        var before = new ReportParts(report);
        foreach (var gpu in report.Gpus)
            (gpu.MemoryUsedBytes, gpu.UtilizationPercent, gpu.PowerWatts, gpu.ReadAt) = (40L << 30, 50, 300.5, 1e9);
        report.Engines[0].Metrics = new EngineMetrics { PromptTokens = 1e6, RequestsRunning = 3, KvCacheUsage = 0.5 };
        report.Cpu = new Cpu { Count = 64, Percent = 12.5 };

        var update = new ReportParts(report).Since(before);

        (update.Report, update.Head, update.Gpus.Count, update.Engines.Count).ShouldBe((null, null, 0, 0));
        (update.GpuLoads.Count, update.EngineLoads.Count, update.Machine.Cpu.Percent).ShouldBe((8, 1, 12.5));
        update.CalculateSize().ShouldBeLessThan(report.CalculateSize() / 4);
    }

    [Fact]
    public async Task Slow_reader_hears_the_newest_state_and_nothing_of_those_between()
    {
        var (report, changed, reads) = (new NodeReport { NodeId = "n" }, new SemaphoreSlim(0), 0);
        NodeReport Read()
        {
            reads++;
            return report.Clone();
        }
        await using var updates = ReportUpdates.ReadAsync(Read, changed.WaitAsync, new WatchRequest { IntervalSeconds = 300 }, TimeProvider.System, Ct).GetAsyncEnumerator(Ct);
        (await updates.MoveNextAsync()).ShouldBeTrue();

        for (var i = 1; i <= 1000; i++)
        {
            report.Hostname = $"state {i}";
            report.Engines.Add(new Engine { RunId = $"{i}" });
            if (i > 10)
                report.Engines.RemoveAt(0);
        }
        changed.Release();
        (await updates.MoveNextAsync()).ShouldBeTrue();

        (updates.Current.Sequence, updates.Current.Head.Hostname, updates.Current.Engines.Count, reads).ShouldBe((2, "state 1000", 10, 2));
    }

    [Fact]
    public async Task Nothing_new_is_told_when_the_interval_is_over_and_not_before()
    {
        var clock = new ManualTimeProvider();
        await using var updates = ReportUpdates.ReadAsync(
            () => new NodeReport { NodeId = "n" }, token => Task.Delay(Timeout.Infinite, token), new WatchRequest { IntervalSeconds = 10 }, clock, Ct).GetAsyncEnumerator(Ct);
        (await updates.MoveNextAsync()).ShouldBeTrue();

        var next = updates.MoveNextAsync().AsTask();
        clock.Advance(TimeSpan.FromMilliseconds(50));
        await Deadline.UntilAsync(() => clock.Waiting == 1);
        clock.Advance(TimeSpan.FromSeconds(9.9));
        next.IsCompleted.ShouldBeFalse();
        clock.Advance(TimeSpan.FromSeconds(0.1));

        (await next).ShouldBeTrue();
        updates.Current.ShouldBe(new ReportUpdate { Sequence = 2 });
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(300, 300)]
    [InlineData(0, 5)]
    [InlineData(0.01, 5)]
    [InlineData(1e9, 5)]
    [InlineData(-1, 5)]
    [InlineData(double.NaN, 5)]
    public void Interval_that_makes_no_sense_is_five_seconds(double asked, double seconds) =>
        ReportUpdates.Interval(new WatchRequest { IntervalSeconds = asked }).TotalSeconds.ShouldBe(seconds);

    private static void Change(NodeReport report, Random random)
    {
        for (var i = random.Next(4); i > 0; i--)
        {
            var (gpu, engine) = (Any(report.Gpus, random), Any(report.Engines, random));
            switch (random.Next(13))
            {
                case 0:
                    report.Gpus.Add(new Gpu { Index = report.Gpus.Select(known => known.Index).DefaultIfEmpty(-1).Max() + 1, Name = "H100", ReadAt = random.Next() });
                    break;
                case 1 when gpu is not null:
                    report.Gpus.Remove(gpu);
                    break;
                case 2 when gpu is not null:
                    (gpu.MemoryUsedBytes, gpu.UtilizationPercent) = (random.Next(), random.Next(100));
                    break;
                case 3 when gpu is not null:
                    gpu.ClearMemoryUsedBytes();
                    gpu.ClearUtilizationPercent();
                    break;
                case 4 when gpu is not null:
                    gpu.Stale = gpu.Stale.Length > 0 ? "" : "gone";
                    gpu.Processes.Add(new GpuProcess { Pid = random.Next() });
                    break;
                case 5:
                    report.Engines.Add(new Engine { RunId = $"{random.Next()}", Phase = EnginePhase.Preparing });
                    break;
                case 6 when engine is not null:
                    report.Engines.Remove(engine);
                    break;
                case 7 when engine is not null:
                    (engine.Phase, engine.Detail) = (EnginePhase.Ready, $"{random.Next(3)}");
                    break;
                case 8 when engine is not null:
                    engine.Metrics = random.Next(3) == 0 ? null : new EngineMetrics { PromptTokens = random.Next() };
                    break;
                case 9:
                    (report.Cpu, report.Memory) = (random.Next(3) == 0 ? null : new Cpu { Percent = random.NextDouble() }, new Memory { AvailableBytes = random.Next() });
                    break;
                case 10:
                    (report.GpuError, report.Disk) = ($"{random.Next(2)}", random.Next(3) == 0 ? null : new Disk { FreeBytes = random.Next(2) });
                    break;
                case 11:
                    report.UsageWaiting = random.Next(2) == 0;
                    break;
                default:
                    report.Runtimes.Add("docker");
                    break;
            }
        }
    }

    private static T? Any<T>(IReadOnlyList<T> of, Random random) where T : class => of.Count == 0 ? null : of[random.Next(of.Count)];

    // what stands in a report has no order but that of the GPUs
    private static NodeReport Sorted(NodeReport report)
    {
        var sorted = report.Clone();
        sorted.Engines.Clear();
        sorted.Engines.AddRange(report.Engines.OrderBy(engine => engine.RunId, StringComparer.Ordinal));
        sorted.Gpus.Clear();
        sorted.Gpus.AddRange(report.Gpus.OrderBy(gpu => gpu.Index));
        return sorted;
    }
}
