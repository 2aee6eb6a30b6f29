using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;

namespace ModelHost.Tests.Simulator;

public sealed class PaceTests
{
    private static readonly Knobs Timed = new()
    {
        TimeToFirstToken = TimeSpan.FromMilliseconds(100),
        PrefillTimePerToken = TimeSpan.FromMilliseconds(2),
        InterTokenLatency = TimeSpan.FromMilliseconds(10),
    };

    [Fact]
    public void A_prefill_takes_its_overhead_and_the_time_of_every_token_that_is_not_cached() =>
        Pace(Timed).First(30).ShouldBe(TimeSpan.FromMilliseconds(160));

    [Fact]
    public void Gaps_deviate_around_their_mean_and_never_far()
    {
        var pace = Pace(Timed with { InterTokenDeviation = TimeSpan.FromMilliseconds(3) });

        var gaps = Enumerable.Range(0, 10_000).Select(_ => pace.Gap().TotalMilliseconds).ToArray();

        gaps.Average().ShouldBe(10, 0.2);
        Math.Sqrt(gaps.Average(gap => (gap - 10) * (gap - 10))).ShouldBe(3, 0.2);
        (gaps.Min() >= 3 && gaps.Max() <= 17).ShouldBeTrue();
    }

    [Fact]
    public void The_same_seed_gives_the_same_times_and_another_one_others()
    {
        var knobs = Timed with { TimeToFirstTokenDeviation = TimeSpan.FromMilliseconds(20) };

        Pace(knobs, 7).First(0).ShouldBe(Pace(knobs, 7).First(0));
        Pace(knobs, 7).First(0).ShouldNotBe(Pace(knobs, 8).First(0));
    }

    [Theory]
    [InlineData(1, 10)]
    [InlineData(2, 15)]
    [InlineData(3, 20)]
    [InlineData(5, 30)]
    public void A_full_batch_is_slower_by_its_factor(int running, double milliseconds)
    {
        var scheduler = Scheduler("--max-num-seqs", "5");
        for (var i = 0; i < running; i++)
            scheduler.TryEnter(new Place(1, [], 1, null, null)).ShouldBeTrue();

        new Pace(Timed with { FactorUnderLoad = 3 }, scheduler, 0).Gap().ShouldBe(TimeSpan.FromMilliseconds(milliseconds));
    }

    private static Pace Pace(Knobs knobs, ulong seed = 0) => new(knobs, Scheduler(), seed);

    private static Scheduler Scheduler(params string[] flags)
    {
        var options = ServerOptions.Read(["m", .. flags], new Dictionary<string, string>());
        return new(options, MemoryPlan.Make(options, 80L << 30, enforced: false), new EngineMetrics(1000), TimeProvider.System);
    }
}
