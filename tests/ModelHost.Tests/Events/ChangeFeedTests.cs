using ModelHost.Features.Events;

namespace ModelHost.Tests.Events;

public sealed class ChangeFeedTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Every_subscriber_hears_of_every_change_in_order()
    {
        var feed = new ChangeFeed();
        feed.Publish(Change.Settings);
        using var first = feed.Subscribe(8);
        using var second = feed.Subscribe(8);

        feed.Publish(Change.Deployments(3, 4));
        feed.Publish(Change.Nodes);
        feed.Publish(Change.ApiKeys);

        foreach (var subscriber in (ChangeSubscription[])[first, second])
        {
            var heard = await TakeAsync(subscriber, 3);
            heard.Select(change => change.Kind).ShouldBe([ChangeKind.Deployments, ChangeKind.Nodes, ChangeKind.ApiKeys]);
            heard[0].Ids.ShouldBe([3, 4]);
        }
    }

    [Fact]
    public async Task A_slow_subscriber_is_told_that_it_missed_something_and_then_hears_on()
    {
        var feed = new ChangeFeed();
        using var slow = feed.Subscribe(4);
        using var quick = feed.Subscribe(100);

        for (var id = 1; id <= 5; id++)
            feed.Publish(Change.Deployments(id));
        feed.Publish(Change.Nodes);

        (await TakeAsync(slow, 2)).Select(change => change.Kind).ShouldBe([ChangeKind.Missed, ChangeKind.Nodes]);
        (await TakeAsync(quick, 6)).Count(change => change.Kind == ChangeKind.Deployments).ShouldBe(5);
    }

    [Fact]
    public async Task What_is_published_while_it_is_read_is_heard_or_told_as_missed()
    {
        var feed = new ChangeFeed();
        using var subscriber = feed.Subscribe(3);
        var publishing = Task.Run(() =>
        {
            for (var id = 1; id <= 20_000; id++)
                feed.Publish(Change.Deployments(id));
            feed.Publish(Change.Settings);
            subscriber.Dispose(); // what it has is still read
        }, Ct);

        var (last, heard) = (0, ChangeKind.Nodes);
        await foreach (var change in subscriber.ReadAllAsync(Ct))
        {
            if (change.Kind == ChangeKind.Missed)
                last = int.MaxValue; // all of them may have changed
            else if (change.Kind == ChangeKind.Deployments)
            {
                (last == int.MaxValue || change.Ids![0] == last + 1).ShouldBeTrue($"{change.Ids![0]} after {last}");
                last = change.Ids![0];
            }
            heard = change.Kind;
        }
        await publishing;
        heard.ShouldBeOneOf(ChangeKind.Settings, ChangeKind.Missed);
    }

    [Fact]
    public async Task A_subscription_that_ended_takes_nothing_more()
    {
        var feed = new ChangeFeed();
        var ended = feed.Subscribe(8);
        ended.Dispose();

        feed.Publish(Change.Nodes);

        (await ended.ReadAllAsync(Ct).CountAsync(Ct)).ShouldBe(0);
    }

    [Fact]
    public async Task A_subscription_that_ends_while_it_is_told_keeps_what_it_has()
    {
        var subscriber = new ChangeFeed().Subscribe(8);
        subscriber.Offer(Change.Settings);
        subscriber.Dispose();

        subscriber.Offer(Change.Nodes); // whoever publishes may have found it before

        (await subscriber.ReadAllAsync(Ct).ToListAsync(Ct)).ShouldBe([Change.Settings]);
    }

    [Fact]
    public void What_was_missed_is_told_to_clients_as_all_four_events() =>
        EventMessage.Of(Change.Missed).Select(message => System.Text.Encoding.UTF8.GetString(message.ToJson())).ShouldBe(
        [
            """{"type":"deployments_changed"}""", """{"type":"nodes_changed"}""", """{"type":"settings_changed"}""", """{"type":"api_keys_changed"}""",
        ]);

    private static async Task<List<Change>> TakeAsync(ChangeSubscription subscriber, int count)
    {
        var heard = new List<Change>();
        await foreach (var change in subscriber.ReadAllAsync(Ct))
        {
            heard.Add(change);
            if (heard.Count == count)
                break;
        }
        return heard;
    }
}
