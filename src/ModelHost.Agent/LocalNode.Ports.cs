using ModelHost.Agent.Engines;
using ModelHost.Agent.Proxy;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;

namespace ModelHost.Agent;

// what the public ports are told of the engines, and the control plane of the ports
public sealed partial class LocalNode
{
    private static readonly TimeSpan PortRetry = TimeSpan.FromSeconds(1);

    private readonly NodeProxy? _proxy;
    // runs whose ports take no new requests
    private readonly HashSet<string> _draining = [];

    /// <summary>Listens again on the public ports of the engines that served when the process before ended; they need not be found for that.</summary>
    public Task OpenPortsAsync() => _proxy?.ApplyAsync(Targets()) ?? Task.CompletedTask;

    /// <inheritdoc/>
    public Task<AccessReply> AccessAsync(AccessRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        _proxy?.Access.Take(request);
        SignalChange();
        return Task.FromResult(new AccessReply());
    }

    /// <inheritdoc/>
    public Task<UsageReply> UsageAsync(UsageRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        return Task.FromResult(_proxy?.Usage.Next(request) ?? new UsageReply());
    }

    private async Task KeepPortsAsync()
    {
        if (_proxy is not { IsOn: true })
            return;
        while (!_shutdown.IsCancellationRequested)
        {
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(_shutdown.Token);
            // asked for before the engines are read: a change in between is not missed
            var changed = ChangedAsync(waiting.Token);
            var (isWhole, hasChanged) = await _proxy.ApplyAsync(Targets());
            if (hasChanged)
                SignalChange(); // the report tells of it
            await Task.WhenAny(changed, Task.Delay(isWhole ? Timeout.InfiniteTimeSpan : PortRetry, _time, waiting.Token));
            await waiting.CancelAsync();
        }
    }

    private void Drain(string runId)
    {
        lock (_lock)
        {
            if (_engines.ContainsKey(runId))
                _draining.Add(runId);
        }
        SignalChange();
    }

    private void ReportPorts(NodeReport report)
    {
        if (_proxy is not null)
            report.UsageWaiting = _proxy.Usage.IsWaiting; // also where there are no ports any more
        if (_proxy is not { IsOn: true })
            return;
        report.AccessVersion = _proxy.Access.Version;
        foreach (var engine in report.Engines)
            _proxy.Report(engine);
    }

    private DirectTarget[] Targets()
    {
        lock (_lock)
        {
            var watched = _engines.Values.Where(engine => !engine.IsGone && engine.Protocol != BackendCatalogue.Grpc).Select(engine => engine.Peek()).Where(engine => engine.Phase != EnginePhase.Expired)
                .Select(engine => DirectTarget.Of(engine.DeploymentUid, engine.RunId, engine.LaunchSpec, engine.EngineUrl, engine.EngineKey, StateOf(engine)));
            // of these the runtime has not been heard yet: what served then serves still, or does not answer
            var remembered = _kept.Values
                .Where(record => record is { Ending: RunEnding.None, ReadyAt: not null, EnginePort: not null } && record.BootId == _records.BootId && !IsGrpc(record))
                .Select(record => DirectTarget.Of(record.DeploymentUid, record.RunId, record.Spec,
                    EngineSupervisor.UrlOf(record.EnginePort!.Value), _records.OpenOne(record.EngineKey) ?? "", DirectState.Ready));
            return [.. watched.Concat(remembered).OfType<DirectTarget>()];
        }
    }

    // these routes are not in their language
    private static bool IsGrpc(RunRecord record) => BackendCatalogue.Of(LaunchSpec.FromJson(record.Spec))?.Protocol == BackendCatalogue.Grpc;

    private DirectState StateOf(Engine engine) => engine.Phase switch
    {
        EnginePhase.Ready or EnginePhase.Stopping when _draining.Contains(engine.RunId) => DirectState.Ending,
        EnginePhase.Stopping => DirectState.Ending,
        // one that was found again and served before serves still, or does not answer
        EnginePhase.Ready or EnginePhase.Loading when engine.HasReadyAt => DirectState.Ready,
        EnginePhase.Preparing or EnginePhase.Loading => DirectState.Coming,
        _ => DirectState.Down,
    };
}
