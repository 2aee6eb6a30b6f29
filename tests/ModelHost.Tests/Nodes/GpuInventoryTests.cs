using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

/// <summary>What stays known of a node's GPUs from one answer to the next.</summary>
public sealed class GpuInventoryTests
{
    private static readonly DateTimeOffset First = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly DateTimeOffset Second = First.AddSeconds(2);

    [Theory]
    [InlineData("no-driver")]
    [InlineData("mismatch")]
    [InlineData("no-permission")]
    [InlineData("only-card-lost")]
    public void A_failure_leaves_the_gpus_known_and_marks_them(string failure)
    {
        var known = GpuInventory.Unread.After(SmiAnswers.Read("h100x8"), First);
        var problem = SmiAnswers.Read(failure).Problem;

        var after = known.After(SmiAnswers.Read(failure), Second);

        after.Error.ShouldBe(problem);
        after.Gpus.ShouldBe(known.Gpus.Select(gpu => gpu with { Stale = problem }));
        after.Gpus.ShouldAllBe(gpu => gpu.ReadAt == First);
    }

    [Fact]
    public void Gpus_that_were_seen_do_not_vanish_with_the_driver_or_the_program()
    {
        var known = GpuInventory.Unread.After(SmiAnswers.Read("h200"), First);

        foreach (var gone in (GpuReading[])[SmiAnswers.Read("no-devices"), GpuReading.Of(new SmiAnswer(null, NotInstalled: true), null)])
        {
            var after = known.After(gone, Second);

            after.Error.ShouldBe("nvidia-smi does not list GPU 0 any more");
            after.Gpus.ShouldHaveSingleItem().Stale.ShouldBe(after.Error);
        }
    }

    [Fact]
    public void The_next_answer_clears_the_mark()
    {
        var known = GpuInventory.Unread.After(SmiAnswers.Read("h200"), First).After(SmiAnswers.Read("mismatch"), First).After(SmiAnswers.Read("h200"), Second);

        known.Error.ShouldBeNull();
        known.Gpus.ShouldBe([new KnownGpu(SmiAnswers.Read("h200").Gpus[0], Second, null)]);
    }

    [Fact]
    public void Of_several_cards_only_the_lost_one_is_marked()
    {
        var three = SmiAnswers.Read("h100x8") with { Gpus = [.. SmiAnswers.Read("h100x8").Gpus.Take(3)] };

        var after = GpuInventory.Unread.After(three, First).After(SmiAnswers.Read("h100-one-lost"), Second);

        after.Error.ShouldNotBeNull().ShouldStartWith("a card does not answer: ");
        after.Gpus.Select(gpu => (gpu.Facts.Index, gpu.ReadAt, gpu.Stale is not null)).ShouldBe([(0, Second, false), (1, First, true), (2, Second, false)]);
    }

    [Fact]
    public void A_card_with_another_number_is_the_same_card()
    {
        var known = GpuInventory.Unread.After(SmiAnswers.Read("h100-one-lost") with { Problem = null }, First);
        var renumbered = new GpuReading([.. known.Gpus.Select((gpu, i) => gpu.Facts with { Index = i })], null);

        known.After(renumbered, Second).Gpus.Select(gpu => (gpu.Facts.Index, gpu.Stale)).ShouldBe([(0, null), (1, null)]);
    }

    [Fact]
    public void A_node_whose_first_answer_is_a_failure_is_not_one_without_gpus()
    {
        GpuInventory.Unread.Error.ShouldNotBeNull();
        GpuInventory.Unread.After(SmiAnswers.Read("mismatch"), First).Error.ShouldNotBeNull();
        GpuInventory.Unread.After(SmiAnswers.Read("no-devices"), First).Error.ShouldBeNull();
    }
}
