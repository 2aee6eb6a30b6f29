using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using System.Text.Json;
using ModelHost.Access;
using ModelHost.Core.Access;
using ModelHost.Core.Routing;

namespace ModelHost.Features.ApiKeys;

/// <summary>
/// The API keys that there are, for every request to be checked against: an immutable snapshot, swapped whole when a key changes. Until the
/// first one is there, keys are needed and none is right.
/// </summary>
internal sealed class ApiKeyRing(KeyHasher hasher)
{
    private volatile Snapshot _snapshot = new(ImmutableSortedDictionary<int, KnownKey>.Empty, new([], []), IsClosed: true);

    /// <summary>Whether inference needs an API key: a permanent one exists. One that has ended counts, so that time opens nothing.</summary>
    public bool IsClosed => _snapshot.IsClosed;

    /// <summary>All keys by id, those that have ended among them.</summary>
    public ImmutableSortedDictionary<int, KnownKey> Keys => _snapshot.Keys;

    /// <summary>The keys and whether one is needed, at one moment.</summary>
    public (ImmutableSortedDictionary<int, KnownKey> Keys, bool IsClosed) Current
    {
        get
        {
            var snapshot = _snapshot;
            return (snapshot.Keys, snapshot.IsClosed);
        }
    }

    /// <summary>Completes when the keys change after this call: ask first, then read <see cref="Keys"/>.</summary>
    public Task ChangedAsync(CancellationToken cancellationToken) => _snapshot.Replaced.Task.WaitAsync(cancellationToken);

    /// <summary>The key that a text is; null: none, or it has ended.</summary>
    /// <param name="text">The text.</param>
    /// <param name="now">The moment.</param>
    /// <param name="header">
    /// The header that it is all of; null: none. The requests of a connection share its string, so that for all but the first of them there is
    /// nothing to hash; nothing is kept for longer than the connection keeps the string.
    /// </param>
    public KnownKey? Find(ReadOnlySpan<char> text, DateTimeOffset now, string? header = null)
    {
        var snapshot = _snapshot;
        if (header is null || !snapshot.ByHeader.TryGetValue(header, out var key))
        {
            key = snapshot.ByHash.Find(text);
            if (key is not null && header is not null)
                snapshot.ByHeader.AddOrUpdate(header, key);
        }
        return key is null || key.Grant.HasEnded(now) ? null : key;
    }

    /// <summary>Takes other keys in place of all there are. A key whose maker is not among them is none.</summary>
    public void Swap(IEnumerable<ApiKey> rows)
    {
        var (before, keys) = (_snapshot.Keys, ImmutableSortedDictionary.CreateBuilder<int, KnownKey>());
        // a maker comes before what it made
        foreach (var row in rows.OrderBy(row => row.Id))
        {
            var grant = new KeyGrant(row.Roles, RouteScope.Of(Names(row.Deployments), Names(row.Models)), row.ExpiresAt);
            if (row.MakerId is { } maker)
            {
                if (!keys.TryGetValue(maker, out var made))
                    continue;
                grant = grant.LimitedTo(made.Grant);
            }
            keys[row.Id] = new KnownKey(row, grant, before.GetValueOrDefault(row.Id)?.LastUse ?? new LastUse(row.LastUsedAt));
        }
        var replaced = _snapshot;
        _snapshot = new Snapshot(
            keys.ToImmutable(),
            new HashedKeys<KnownKey>(hasher.Pepper, keys.Values.Select(key => (key.Hash, key))),
            IsClosed: keys.Values.Any(key => !key.Row.IsTemporary));
        replaced.Replaced.TrySetResult();
    }

    private static string[]? Names(string? json) => json is null ? null : JsonSerializer.Deserialize<string[]>(json);

    private sealed record Snapshot(ImmutableSortedDictionary<int, KnownKey> Keys, HashedKeys<KnownKey> ByHash, bool IsClosed)
    {
        public ConditionalWeakTable<string, KnownKey> ByHeader { get; } = [];

        public TaskCompletionSource Replaced { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}

/// <summary>An API key as requests see it.</summary>
/// <param name="row">As it is stored; not changed any more.</param>
/// <param name="grant">What it gives, within what its maker has now.</param>
/// <param name="lastUse">When it was used; goes on over snapshots.</param>
internal sealed class KnownKey(ApiKey row, KeyGrant grant, LastUse lastUse)
{
    public ApiKey Row { get; } = row;

    public KeyGrant Grant { get; } = grant;

    public LastUse LastUse { get; } = lastUse;

    public byte[] Hash { get; } = Convert.FromHexString(row.Hash);

    /// <summary>What its requests carry.</summary>
    public ApiKeyFeature Feature { get; } = new(row.Id, row.Label, grant.Scope);
}

/// <summary>When a key was used last: kept here, and written from here now and then.</summary>
internal sealed class LastUse(DateTimeOffset? stored)
{
    private long _ticks = stored?.UtcTicks ?? 0;
    private long _stored = stored?.UtcTicks ?? 0;

    /// <summary>The moment, to a second; null: never.</summary>
    public DateTimeOffset? At => Volatile.Read(ref _ticks) is > 0 and var ticks ? new DateTimeOffset(ticks, TimeSpan.Zero) : null;

    /// <summary>Whether it is not written yet.</summary>
    public bool IsNew => Volatile.Read(ref _ticks) != _stored;

    /// <summary>Notes a use.</summary>
    public void Note(DateTimeOffset now)
    {
        // all requests with a key come by here: they share the line of memory unless one writes
        if (now.UtcTicks - Volatile.Read(ref _ticks) >= TimeSpan.TicksPerSecond)
            Volatile.Write(ref _ticks, now.UtcTicks);
    }

    /// <summary>Notes what has been written.</summary>
    public void Written(DateTimeOffset at) => _stored = at.UtcTicks;
}
