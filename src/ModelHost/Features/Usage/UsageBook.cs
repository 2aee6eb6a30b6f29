using System.Collections.Concurrent;
using ModelHost.Access;
using ModelHost.Agent.Metering;
using ModelHost.Core.Routing;

namespace ModelHost.Features.Usage;

/// <summary>Who asked.</summary>
/// <param name="KeyId">Id of the API key; 0: it was asked without one, or with the admin key.</param>
/// <param name="KeyLabel">Its label; empty: none.</param>
internal readonly record struct UsageCaller(int KeyId, string KeyLabel)
{
    /// <summary>Asked without an API key.</summary>
    public static UsageCaller None { get; } = new(0, "");

    /// <summary>Who sent a request.</summary>
    public static UsageCaller Of(HttpContext context) => context.Features.Get<ApiKeyFeature>() is { } key ? new(key.KeyId, key.Label) : None;
}

/// <summary>What is counted apart: a key, a deployment, a day (UTC).</summary>
internal readonly record struct UsageSlot(int KeyId, string DeploymentUid, DateOnly Day);

/// <summary>Use that is not stored yet.</summary>
/// <param name="Slot">Whose.</param>
/// <param name="Names">What it is called.</param>
/// <param name="Count">How much.</param>
internal sealed record UsageEntry(UsageSlot Slot, UsageNames Names, UsageCount Count);

/// <summary>What a slot is called when its deployment and key are gone: as they were called when they were used last.</summary>
internal sealed record UsageNames(string KeyLabel, int DeploymentId, string Model, string Owner);

/// <summary>Takes what requests use, in memory; <see cref="UsageWriter"/> stores it.</summary>
internal sealed class UsageBook(TimeProvider time)
{
    private readonly ConcurrentDictionary<UsageSlot, Counter> _counters = new();
    private readonly ConcurrentDictionary<string, Sum> _gateway = new();
    private readonly ConcurrentDictionary<string, Sum> _direct = new();

    /// <summary>Adds what a request used.</summary>
    public void Add(UsageCaller caller, ModelRoute route, UsageCount count)
    {
        var slot = new UsageSlot(caller.KeyId, route.DeploymentUid, DateOnly.FromDateTime(time.GetUtcNow().UtcDateTime));
        var counter = _counters.GetOrAdd(slot, static _ => new Counter());
        counter.Add(count, caller, route);
        _gateway.GetOrAdd(route.DeploymentUid, static _ => new Sum()).Add(count);
    }

    /// <summary>Takes note of what direct requests used, which <see cref="NodeUsage"/> has stored.</summary>
    public void AddDirect(string deploymentUid, UsageCount count) => _direct.GetOrAdd(deploymentUid, static _ => new Sum()).Add(count);

    /// <summary>What was counted of a deployment since this process began, whichever way the requests took.</summary>
    public (long PromptTokens, long CompletionTokens) Total(string deploymentUid)
    {
        var sum = (_gateway.GetValueOrDefault(deploymentUid)?.Read() ?? default) + (_direct.GetValueOrDefault(deploymentUid)?.Read() ?? default);
        return (sum.PromptTokens, sum.CompletionTokens);
    }

    /// <summary>What was counted since this process began, by deployment and by the way that the requests took.</summary>
    public IEnumerable<(string DeploymentUid, string Via, UsageCount Count)> Totals =>
        _gateway.Select(pair => (pair.Key, "gateway", pair.Value.Read())).Concat(_direct.Select(pair => (pair.Key, "direct", pair.Value.Read())));

    /// <summary>Takes out what is not stored; for the one who stores it.</summary>
    public IReadOnlyList<UsageEntry> Take()
    {
        var taken = new List<UsageEntry>();
        var today = DateOnly.FromDateTime(time.GetUtcNow().UtcDateTime);
        foreach (var (slot, counter) in _counters)
        {
            if (counter.Take() is var (names, count) && count != default)
                taken.Add(new UsageEntry(slot, names, count));
            else if (slot.Day < today.AddDays(-1))
                _counters.TryRemove(slot, out _); // nothing more is added to a day that is over
        }
        return taken;
    }

    /// <summary>Puts back what could not be stored.</summary>
    public void PutBack(IEnumerable<UsageEntry> entries)
    {
        foreach (var entry in entries)
            _counters.GetOrAdd(entry.Slot, static _ => new Counter()).PutBack(entry);
    }

    private sealed class Counter
    {
        private readonly Lock _lock = new();
        private UsageCount _count;
        private UsageNames? _names;
        private ModelRoute? _route;

        public void Add(UsageCount count, UsageCaller caller, ModelRoute route)
        {
            lock (_lock)
            {
                _count += count;
                if (ReferenceEquals(route, _route) && _names!.KeyLabel == caller.KeyLabel)
                    return;
                _route = route;
                _names = new UsageNames(caller.KeyLabel, route.DeploymentId, route.PublicName, route.Owner);
            }
        }

        public (UsageNames Names, UsageCount Count) Take()
        {
            lock (_lock)
            {
                var taken = (_names!, _count);
                _count = default;
                return taken;
            }
        }

        public void PutBack(UsageEntry entry)
        {
            lock (_lock)
            {
                _count += entry.Count;
                _names ??= entry.Names;
            }
        }
    }

    private sealed class Sum
    {
        private long _requests;
        private long _prompt;
        private long _completion;

        public void Add(UsageCount count)
        {
            Interlocked.Add(ref _requests, count.Requests);
            Interlocked.Add(ref _prompt, count.PromptTokens);
            Interlocked.Add(ref _completion, count.CompletionTokens);
        }

        public UsageCount Read() => new(Interlocked.Read(ref _requests), 0, 0, Interlocked.Read(ref _prompt), Interlocked.Read(ref _completion));
    }
}
