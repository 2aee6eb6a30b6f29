using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

public sealed class CordonTests
{
    private static readonly int[] s_four = [0, 1, 2, 3];

    [Theory]
    [InlineData("", "1,2", true, "1,2")]
    [InlineData("1", "2,1", true, "1,2")]
    [InlineData("", "", true, "all")]
    [InlineData("1", "", true, "all")]
    [InlineData("all", "1", true, "all")]
    [InlineData("all", "1", false, "0,2,3")]
    [InlineData("1,2", "2,3", false, "1")]
    [InlineData("1", "1", false, "")]
    [InlineData("all", "", false, "")]
    [InlineData("", "3", false, "")]
    public void What_is_asked_for_is_added_or_taken_away(string before, string gpus, bool enabled, string after)
    {
        var asked = gpus.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse).ToArray();

        var cordon = Cordon.Parse(before).With(asked, enabled, s_four);

        cordon.ToString().ShouldBe(after);
        cordon.With(asked, enabled, s_four).ToString().ShouldBe(after, "asking again changes nothing");
        Cordon.Parse(after).Gpus(s_four).ShouldBe(cordon.Gpus(s_four));
    }

    [Theory]
    [InlineData("", "0,1", false)]
    [InlineData("all", "0,1", true)]
    [InlineData("all", "", true)]
    [InlineData("0", "0,1", false)]
    [InlineData("0,1", "0,1", true)]
    [InlineData("0,1,7", "0,1", true)]
    [InlineData("0", "", true)]
    [InlineData("", "", false)]
    public void A_node_is_under_maintenance_when_nothing_is_left_of_it(string stored, string gpus, bool isAll)
    {
        var known = gpus.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse).ToArray();

        Cordon.Parse(stored).CoversAll(known).ShouldBe(isAll);
    }

    [Fact]
    public void A_whole_node_has_its_later_gpus_in_the_cordon_too()
    {
        Cordon.Whole.Covers(17).ShouldBeTrue();
        Cordon.None.With([0, 1], enabled: true, [0, 1]).Covers(2).ShouldBeFalse();
        Cordon.Whole.Gpus([3, 1]).ShouldBe([1, 3]);
    }
}
