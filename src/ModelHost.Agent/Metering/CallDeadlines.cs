using Microsoft.Extensions.ObjectPool;

namespace ModelHost.Agent.Metering;

/// <summary>Keeps deadlines that did not come for the next calls: each costs an object, a timer and its registrations.</summary>
public sealed class CallDeadlines
{
    private readonly ObjectPool<CancellationTokenSource> _pool = new DefaultObjectPoolProvider { MaximumRetained = 1024 }.Create(new Policy());

    /// <summary>One that nothing is set for.</summary>
    public CancellationTokenSource Get() => _pool.Get();

    /// <summary>Takes one back that nobody waits for any more; null: there was none.</summary>
    public void Return(CancellationTokenSource? deadline)
    {
        if (deadline is not null)
            _pool.Return(deadline);
    }

    private sealed class Policy : PooledObjectPolicy<CancellationTokenSource>
    {
        public override CancellationTokenSource Create() => new();

        public override bool Return(CancellationTokenSource obj) => obj.TryReset();
    }
}
