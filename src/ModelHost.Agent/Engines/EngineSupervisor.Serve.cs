using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Engines;

// what is said to the engine, from its first answer to its end
internal sealed partial class EngineSupervisor
{
    private static readonly TimeSpan LoadingPoll = TimeSpan.FromMilliseconds(250);

    private IEngineProtocol? _protocol;

    /// <summary>Waits until the engine answers, has it load its model, and asks for its figures from then on.</summary>
    /// <returns>Why it could not load it; null: it is over.</returns>
    private async Task<EngineFailure?> ServeAsync(SemaphoreSlim ready, CancellationToken cancellationToken)
    {
        try
        {
            return await _watch.KeepOnAsync(token => ServeAsync(_protocol!, ready, token), cancellationToken);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            return null;
        }
    }

    private async Task<EngineFailure?> ServeAsync(IEngineProtocol protocol, SemaphoreSlim ready, CancellationToken cancellationToken)
    {
        while (!await protocol.IsReadyAsync(cancellationToken))
            await ready.WaitAsync(LoadingPoll, cancellationToken);
        // one that served before the host began anew has its model
        if (_record.ReadyAt is null && await protocol.LoadAsync(Spec, cancellationToken) is { } refusal)
            return refusal;
        var now = _context.Time.GetUtcNow();
        Keep(record => record.ReadyAt is null ? record with { ReadyAt = now, Lease = record.Lease.CountedFrom(now) } : record);
        if (_engine.Phase != EnginePhase.Ready)
        {
            Change(engine => (engine.Phase, engine.Detail) = (EnginePhase.Ready, ""));
            LogReady(RunId);
        }
        while (true)
        {
            if (await protocol.ReadAsync(cancellationToken) is { } show)
                Show(show);
            _log.Mark();
            await Task.Delay(_context.Options.MetricsInterval, _context.Time, cancellationToken);
        }
    }

    private void Show(Action<Engine> show)
    {
        bool wasBusy, isBusy;
        lock (_lock)
        {
            wasBusy = IsBusy(_engine.Metrics);
            show(_engine);
            isBusy = IsBusy(_engine.Metrics);
        }
        // whoever waits for its last request need not wait for the next report too
        if (isBusy != wasBusy)
            _context.Changed();
    }

    private static bool IsBusy(EngineMetrics? metrics) => metrics is not null && metrics.RequestsRunning + metrics.RequestsWaiting > 0;

    /// <summary>Reads the figures of a serving engine once more, which end with it, and has it let its model go.</summary>
    private async Task TakeLeaveAsync()
    {
        if (_engine.Phase != EnginePhase.Ready || _protocol is not { } protocol)
            return;
        using var deadline = new CancellationTokenSource(_context.Options.LastCountDeadlines.Told, _context.Time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, _shutdown.Token);
        try
        {
            if (await protocol.ReadAsync(linked.Token) is { } show)
                Change(show);
        }
        catch (OperationCanceledException) when (!_shutdown.IsCancellationRequested)
        {
            // an engine too busy to tell is ended all the same
        }
        await protocol.FreeAsync(_shutdown.Token);
    }
}
