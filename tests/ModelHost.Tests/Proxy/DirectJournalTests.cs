using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Agent.Metering;
using ModelHost.Agent.Proxy;
using ModelHost.Agent.Service;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Proxy;

/// <summary>What a node keeps of the use of its public ports, and hands out until it has been booked.</summary>
public sealed class DirectJournalTests : IDisposable
{
    private static readonly DirectCaller s_key = new(7, 0xfeed_beef_0000_0001);
    private readonly string _data = Directory.CreateTempSubdirectory("mh-").FullName;
    private readonly ManualTimeProvider _time = new();

    [Fact]
    public void Use_is_added_up_by_deployment_key_and_day()
    {
        var journal = Open();
        var day = (int)(_time.GetUtcNow() - DateTimeOffset.UnixEpoch).TotalDays;
        journal.Add("a", s_key, new UsageCount(1, 0, 0, 10, 5));
        journal.Add("a", s_key, new UsageCount(1, 1, 0, 0, 3));
        journal.Add("a", default, new UsageCount(1, 0, 1, 0, 0));
        journal.Add("b", s_key, new UsageCount(1, 0, 0, 2, 2));
        _time.Advance(TimeSpan.FromDays(1));
        journal.Add("a", s_key, new UsageCount(1, 0, 0, 1, 1));

        var batch = journal.Next(new UsageRequest()).Batch;

        batch.Sequence.ShouldBe(1);
        (string, int, ulong, int, long, long, long, long, long)[] wanted =
        [
            ("a", 7, s_key.KeyMark, day, 2, 1, 0, 10, 8), ("a", 0, 0, day, 1, 0, 1, 0, 0), ("b", 7, s_key.KeyMark, day, 1, 0, 0, 2, 2), ("a", 7, s_key.KeyMark, day + 1, 1, 0, 0, 1, 1),
        ];
        batch.Entries.Select(e => (e.DeploymentUid, e.KeyId, e.KeyMark, e.Day, e.Requests, e.Aborted, e.Failed, e.PromptTokens, e.CompletionTokens)).ShouldBe(wanted, ignoreOrder: true);
    }

    [Fact]
    public void A_batch_stays_as_it_is_until_it_has_been_booked()
    {
        var journal = Open();
        journal.IsWaiting.ShouldBeFalse();
        journal.Next(new UsageRequest()).Batch.ShouldBeNull();
        journal.Add("a", s_key, new UsageCount(1, 0, 0, 1, 1));
        var first = journal.Next(new UsageRequest()).Clone();
        journal.Add("a", s_key, new UsageCount(1, 0, 0, 2, 2));

        var again = journal.Next(new UsageRequest { Journal = "another", Booked = 9 }).Clone();
        var second = journal.Next(new UsageRequest { Journal = first.Journal, Booked = 1 }).Clone();
        var late = journal.Next(new UsageRequest { Journal = first.Journal, Booked = 1 }).Clone();
        var end = journal.Next(new UsageRequest { Journal = first.Journal, Booked = 2 });

        (first.More, again.More, second.More).ShouldBe((false, true, false));
        again.Batch.ShouldBe(first.Batch);
        (second.Batch.Sequence, second.Batch.Entries.Single().PromptTokens).ShouldBe((2, 2));
        late.ShouldBe(second);
        end.Batch.ShouldBeNull();
        journal.IsWaiting.ShouldBeFalse();
        Should.Throw<ArgumentException>(() => journal.Next(new UsageRequest { Booked = -1 }));
    }

    [Fact]
    public void What_was_written_outlives_a_process_that_is_killed()
    {
        var killed = Open();
        killed.Add("a", s_key, new UsageCount(1, 0, 0, 1, 1));
        var handed = killed.Next(new UsageRequest()).Clone();
        killed.Add("a", s_key, new UsageCount(1, 0, 0, 2, 2));
        killed.Flush();
        killed.Add("a", s_key, new UsageCount(1, 0, 0, 4, 4));

        var next = Open();
        next.IsWaiting.ShouldBeTrue();
        next.Add("a", s_key, new UsageCount(1, 0, 0, 8, 8));

        next.Next(new UsageRequest()).Batch.ShouldBe(handed.Batch);
        var kept = next.Next(new UsageRequest { Journal = handed.Journal, Booked = 1 });
        (kept.Journal, kept.Batch.Sequence, kept.Batch.Entries.Single().PromptTokens, kept.More).ShouldBe((handed.Journal, 2, 2, true));
        var last = next.Next(new UsageRequest { Journal = handed.Journal, Booked = 2 });
        (last.Batch.Sequence, last.Batch.Entries.Single().PromptTokens).ShouldBe((3, 8));
        File.GetUnixFileMode(Path.Combine(_data, "usage", "direct")).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    [Fact]
    public void An_older_copy_of_the_file_brings_nothing_back_that_was_booked()
    {
        var file = Path.Combine(_data, "usage", "direct");
        var before = Open();
        before.Add("a", s_key, new UsageCount(1, 0, 0, 1, 1));
        before.Flush();
        var copy = File.ReadAllBytes(file);
        var name = before.Next(new UsageRequest()).Journal;
        before.Add("a", s_key, new UsageCount(1, 0, 0, 2, 2));
        before.Next(new UsageRequest { Journal = name, Booked = 1 }).Batch.Sequence.ShouldBe(2);
        File.WriteAllBytes(file, copy);

        var after = Open();
        after.Add("a", s_key, new UsageCount(1, 0, 0, 4, 4));
        var batch = after.Next(new UsageRequest { Journal = name, Booked = 2 }).Batch;

        (batch.Sequence, batch.Entries.Single().PromptTokens).ShouldBe((3, 4));
    }

    [Fact]
    public void What_cannot_be_written_down_is_not_handed_out()
    {
        var log = new LogLines();
        var journal = new DirectJournal(_data, _time, log.CreateLogger("x"));
        journal.Add("a", s_key, new UsageCount(1, 0, 0, 1, 1));
        File.WriteAllText(Path.Combine(_data, "usage"), "in the way");

        Should.Throw<InvalidOperationException>(() => journal.Next(new UsageRequest()));
        journal.Flush();
        File.Delete(Path.Combine(_data, "usage"));

        journal.Next(new UsageRequest()).Batch.Entries.Single().PromptTokens.ShouldBe(1);
    }

    [Theory]
    [InlineData("")]
    [InlineData("none of ours")]
    public void A_file_that_is_none_is_another_journal(string content)
    {
        Directory.CreateDirectory(Path.Combine(_data, "usage"));
        File.WriteAllText(Path.Combine(_data, "usage", "direct"), content);
        var journal = Open();
        journal.Add("a", s_key, new UsageCount(1, 0, 0, 1, 1));

        var reply = journal.Next(new UsageRequest { Journal = "before", Booked = 5 });

        (reply.Batch.Sequence, reply.Journal.Length).ShouldBe((1, 32));
        var aside = Path.Combine(_data, "usage", "direct" + DirectJournal.Unreadable);
        (File.Exists(aside) ? File.ReadAllText(aside) : "").ShouldBe(content);
    }

    [Fact]
    public void It_is_bounded_and_handed_out_in_pieces()
    {
        var journal = Open();
        for (var key = 1; key <= DirectJournal.MostEntries + 50; key++)
            journal.Add("a", new DirectCaller(key, 0), new UsageCount(1, 0, 0, 1, 1));
        journal.Flush();
        journal = Open();
        journal.Add("b", s_key, new UsageCount(1, 0, 0, 1, 1));

        var (told, name) = (0, journal.Next(new UsageRequest()).Journal);
        for (var booked = 0L; journal.Next(new UsageRequest { Journal = name, Booked = booked }) is { Batch: { } batch } reply; booked = batch.Sequence)
        {
            batch.Entries.Count.ShouldBeLessThanOrEqualTo(NodeMethods.MaxUsageEntries);
            told += batch.Entries.Count;
            reply.More.ShouldBe(told < DirectJournal.MostEntries);
        }

        told.ShouldBe(DirectJournal.MostEntries);
    }

    [Fact]
    public void No_figure_grows_beyond_what_is_believed()
    {
        var journal = Open();
        for (var i = 0; i < 3; i++)
            journal.Add("a", s_key, new UsageCount(1, 0, 0, UsageCount.Most, long.MaxValue / 4));

        var entry = journal.Next(new UsageRequest()).Batch.Entries.Single();

        (entry.Requests, entry.PromptTokens, entry.CompletionTokens).ShouldBe((3, UsageCount.Most, UsageCount.Most));
    }

    public void Dispose() => Directory.Delete(_data, recursive: true);

    private DirectJournal Open() => new(_data, _time, NullLogger.Instance);
}
