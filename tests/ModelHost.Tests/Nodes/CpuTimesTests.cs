using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

public sealed class CpuTimesTests
{
    // from a machine with two processors, shortened
    private const string Stat = """
        cpu  1000 20 300 8000 180 5 15 30 400 10
        cpu0 500 10 150 4000 90 3 7 15 200 5
        cpu1 500 10 150 4000 90 2 8 15 200 5
        intr 39292 0 0
        ctxt 79402
        """;

    [Fact]
    public void Ticks_are_read_without_counting_guests_twice() => CpuTimes.Parse(Stat).ShouldBe(new CpuTimes(1370, 9550, 2));

    [Theory]
    [InlineData("")]
    [InlineData("intr 5 0")]
    [InlineData("cpu  1 2 3")]
    [InlineData("cpu  1 2 3 4 5 6 7 8 9 10")]
    [InlineData("cpu0 1 2 3 4 5 6 7 8 9 10")]
    public void What_does_not_say_is_unknown(string stat) => CpuTimes.Parse(stat).ShouldBeNull();

    [Theory]
    [InlineData(1370, 9550, null)] // no time has passed
    [InlineData(1470, 9750, 50.0)]
    [InlineData(1360, 9560, 0.0)] // iowait fell
    [InlineData(1400, 9560, 100.0)]
    [InlineData(10, 20, null)] // started again
    public void Share_of_busy_ticks(ulong busy, ulong total, double? percent) =>
        new CpuTimes(busy, total, 2).PercentSince(CpuTimes.Parse(Stat)!).ShouldBe(percent);
}
