using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Threading.Channels;

namespace ModelHost.Features.Events;

/// <summary>What has changed.</summary>
internal enum ChangeKind
{
    /// <summary>Status, detail, lease or presence of deployments.</summary>
    Deployments,
    /// <summary>Status or presence of nodes; not their figures.</summary>
    Nodes,
    /// <summary>Runtime settings.</summary>
    Settings,
    /// <summary>API keys.</summary>
    ApiKeys,
    /// <summary>Saved configurations. Clients are not told: the published events have no word for it.</summary>
    Configs,
    /// <summary>Tokens by which nodes join. Clients are not told, as of configurations.</summary>
    JoinTokens,
    /// <summary>Galleries. Clients are not told, as of configurations.</summary>
    Galleries,
    /// <summary>States of jobs, and with them what is installed. Clients are not told, as of configurations.</summary>
    Jobs,
    /// <summary>Anything: the subscriber was too slow, what it missed is not known any more, and it has to read everything anew.</summary>
    Missed,
}

/// <summary>A change that is already stored; who hears of it and then reads sees it.</summary>
/// <param name="Kind">What has changed.</param>
/// <param name="Ids">Which deployments; null: any of them.</param>
internal sealed record Change(ChangeKind Kind, IReadOnlyList<int>? Ids = null)
{
    /// <summary>Any deployment.</summary>
    public static Change AllDeployments { get; } = new(ChangeKind.Deployments);

    /// <summary>Nodes.</summary>
    public static Change Nodes { get; } = new(ChangeKind.Nodes);

    /// <summary>Runtime settings.</summary>
    public static Change Settings { get; } = new(ChangeKind.Settings);

    /// <summary>API keys.</summary>
    public static Change ApiKeys { get; } = new(ChangeKind.ApiKeys);

    /// <summary>Saved configurations.</summary>
    public static Change Configs { get; } = new(ChangeKind.Configs);

    /// <summary>Tokens by which nodes join.</summary>
    public static Change JoinTokens { get; } = new(ChangeKind.JoinTokens);

    /// <summary>Galleries.</summary>
    public static Change Galleries { get; } = new(ChangeKind.Galleries);

    /// <summary>States of jobs.</summary>
    public static Change Jobs { get; } = new(ChangeKind.Jobs);

    /// <summary>Anything.</summary>
    public static Change Missed { get; } = new(ChangeKind.Missed);

    /// <summary>These deployments.</summary>
    public static Change Deployments(params IReadOnlyList<int> ids) => new(ChangeKind.Deployments, ids);
}

/// <summary>
/// Tells everybody in this process what has changed. Whoever stores a change publishes it, after the commit; publishing waits for nobody
/// and cannot fail.
/// </summary>
internal sealed class ChangeFeed
{
    private readonly ConcurrentDictionary<ChangeSubscription, byte> _subscriptions = new();

    /// <summary>Tells all subscribers.</summary>
    public void Publish(Change change)
    {
        foreach (var (subscription, _) in _subscriptions)
            subscription.Offer(change);
    }

    /// <summary>Hears of every change from now on, until disposed.</summary>
    /// <param name="backlog">Changes that are kept for a subscriber that is busy. One more, and it is told <see cref="Change.Missed"/> instead of them.</param>
    public ChangeSubscription Subscribe(int backlog)
    {
        var subscription = new ChangeSubscription(backlog, ended => _subscriptions.TryRemove(ended, out _));
        _subscriptions[subscription] = 0;
        return subscription;
    }
}

/// <summary>One subscriber's place in the feed: bounded, and nothing is lost without its being told.</summary>
internal sealed class ChangeSubscription(int backlog, Action<ChangeSubscription> ended) : IDisposable
{
    private readonly Channel<Change> _changes = Channel.CreateBounded<Change>(backlog);
    // also around reading: a change must not be read in the middle of its replacement, before the word that something is missing
    private readonly Lock _lock = new();
    private bool _hasEnded;

    /// <summary>The changes in the order of their publishing, until cancelled or disposed.</summary>
    public async IAsyncEnumerable<Change> ReadAllAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        while (await _changes.Reader.WaitToReadAsync(cancellationToken))
        {
            while (Take() is { } change)
                yield return change;
        }
    }

    /// <summary>Takes a change in.</summary>
    internal void Offer(Change change)
    {
        lock (_lock)
        {
            // one that ends while it is told takes nothing more, and keeps what it has
            if (_hasEnded || _changes.Writer.TryWrite(change))
                return;
            while (_changes.Reader.TryRead(out _))
            {
                // what it stands for is in the one word that replaces it
            }
            _changes.Writer.TryWrite(Change.Missed);
        }
    }

    private Change? Take()
    {
        lock (_lock)
            return _changes.Reader.TryRead(out var change) ? change : null;
    }

    public void Dispose()
    {
        ended(this);
        lock (_lock)
            _hasEnded = true;
        _changes.Writer.TryComplete();
    }
}
