using System.Collections.Frozen;
using System.Diagnostics.Metrics;
using System.Net;
using Microsoft.Extensions.Logging;
using ModelHost.Protocol;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Agent.Proxy;

/// <summary>
/// The public ports of a node: listens on that of each run, and lets requests for inference through to its engine. A port that cannot be listened on
/// is tried again, and concerns nothing else.
/// </summary>
public sealed partial class NodeProxy : IAsyncDisposable
{
    private static readonly TimeSpan CloseGrace = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(50);

    private readonly NodeOptions _options;
    private readonly TimeProvider _time;
    private readonly ILoggerFactory _loggers;
    private readonly ILogger _logger;
    private readonly DirectRequests _requests;
    private readonly SemaphoreSlim _one = new(1);
    private readonly Dictionary<int, DirectListener> _listeners = [];
    private readonly List<Task> _closing = [];
    private volatile FrozenDictionary<string, Standing> _standings = FrozenDictionary<string, Standing>.Empty;
    private bool _isLoaded;

    /// <summary>Makes it; nothing is listened on yet.</summary>
    public NodeProxy(NodeIdentity identity, NodeOptions options, IHttpForwarder forwarder, IMeterFactory meters, TimeProvider time, ILoggerFactory loggers)
    {
        ArgumentNullException.ThrowIfNull(identity);
        ArgumentNullException.ThrowIfNull(options);
        (_options, _time, _loggers, _logger) = (options, time, loggers, loggers.CreateLogger<NodeProxy>());
        Access = new DirectAccess(identity.DataFolder, time, _logger);
        Usage = new DirectJournal(identity.DataFolder, time, _logger);
        _requests = new DirectRequests(Access, Usage, options, forwarder, new DirectMeters(meters), time, _logger);
    }

    /// <summary>Who may use the ports.</summary>
    internal DirectAccess Access { get; }

    /// <summary>What they were used for.</summary>
    internal DirectJournal Usage { get; }

    /// <summary>Whether there are public ports at all.</summary>
    internal bool IsOn => _options.DirectListen.Length > 0;

    /// <summary>Listens where these are, and nowhere else.</summary>
    /// <returns>Whether it does, or else it is worth another try; and whether reports have other things to tell than before.</returns>
    internal async Task<(bool IsWhole, bool HasChanged)> ApplyAsync(IReadOnlyCollection<DirectTarget> targets)
    {
        if (!IsOn)
            return (true, false);
        await _one.WaitAsync();
        try
        {
            if (_requests.IsStopping)
                return (true, false);
            if (!_isLoaded)
            {
                Access.Load();
                WarnOfOpenness();
                _isLoaded = true;
            }
            var wanted = targets.GroupBy(target => target.Port).ToDictionary(group => group.Key, group => group.MinBy(target => target.State)!);
            foreach (var (port, listener) in _listeners.Where(pair => !wanted.ContainsKey(pair.Key)).ToArray())
            {
                _listeners.Remove(port);
                _closing.RemoveAll(task => task.IsCompleted);
                _closing.Add(CloseAsync(listener));
            }
            foreach (var target in wanted.Values)
                await LeadAsync(target);
            var before = _standings;
            _standings = targets.ToFrozenDictionary(target => target.RunId, Stand);
            return (_listeners.Values.All(listener => listener.IsOpen), _standings.Any(pair => before.GetValueOrDefault(pair.Key) != pair.Value));
        }
        finally
        {
            _one.Release();
        }
    }

    /// <summary>Writes into a report how the public port of an engine is.</summary>
    internal void Report(Engine engine)
    {
        if (!IsOn)
            return;
        // this first: once no new requests are taken, the count can only fall
        if (_standings.GetValueOrDefault(engine.RunId) is { } standing)
            (engine.Draining, engine.DirectError) = (standing.IsClosed, standing.Fault ?? "");
        engine.DirectRequests = _requests.UnderWay.Count(engine.DeploymentUid);
    }

    /// <summary>Refuses new requests, waits for those under way, and closes.</summary>
    /// <param name="cut">Cuts what is still under way.</param>
    internal async Task StopAsync(CancellationToken cut)
    {
        _requests.IsStopping = true;
        var began = _time.GetTimestamp();
        if (_requests.UnderWay.Total is > 0 and var count)
            LogWaiting(count, _options.DrainTimeout);
        while (_requests.UnderWay.Total > 0 && _time.GetElapsedTime(began) < _options.DrainTimeout && !cut.IsCancellationRequested)
            await Task.Delay(Poll, _time, cut).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_requests.UnderWay.Total is > 0 and var left)
            LogGivenUp(left);
        await CloseAllAsync();
        Usage.Flush();
    }

    /// <summary>Closes all ports.</summary>
    public async ValueTask DisposeAsync()
    {
        _requests.IsStopping = true;
        await CloseAllAsync();
        Usage.Flush();
        _requests.Dispose();
        _one.Dispose();
    }

    private async Task LeadAsync(DirectTarget target)
    {
        if (!_listeners.TryGetValue(target.Port, out var listener))
            _listeners[target.Port] = listener = new DirectListener(target, _requests, _loggers);
        listener.Target = target;
        if (listener.IsOpen)
            return;
        var before = listener.Fault;
        await listener.OpenAsync(IPAddress.Parse(_options.DirectListen));
        if (listener.Fault is not { } fault)
            LogOpened(_options.DirectListen, target.Port, target.Route.PublicName);
        else if (fault != before)
            LogFault(_options.DirectListen, target.Port, target.Route.PublicName, fault);
    }

    private Standing Stand(DirectTarget target)
    {
        var listener = _listeners[target.Port];
        return new Standing(
            listener.Target != target || target.State is DirectState.Ending or DirectState.Down,
            listener.Fault is { } fault ? $"nobody can listen on the public port {target.Port}: {fault}" : null);
    }

    private async Task CloseAllAsync()
    {
        await _one.WaitAsync();
        try
        {
            await Task.WhenAll([.. _listeners.Values.Select(CloseAsync), .. _closing]);
            _listeners.Clear();
            _closing.Clear();
        }
        finally
        {
            _one.Release();
        }
    }

    private async Task CloseAsync(DirectListener listener)
    {
        using (var cut = new CancellationTokenSource(CloseGrace, _time))
            await listener.CloseAsync(cut.Token);
        listener.Dispose();
    }

    private void WarnOfOpenness()
    {
        if (IPAddress.IsLoopback(IPAddress.Parse(_options.DirectListen)))
            return;
        if (_options.DirectAccess == DirectAccessMode.Open)
            LogOpenToAll(_options.DirectListen);
        LogCleartext(_options.DirectListen);
    }

    /// <summary>How the public port of a run is.</summary>
    private sealed record Standing(bool IsClosed, string? Fault);

    [LoggerMessage(2405, LogLevel.Information, "Requests for {Model} are taken on {Address}:{Port}.")]
    private partial void LogOpened(string address, int port, string model);

    [LoggerMessage(2406, LogLevel.Warning, "Nobody can listen on {Address}:{Port} for {Model}; it is tried again: {Reason}")]
    private partial void LogFault(string address, int port, string model, string reason);

    [LoggerMessage(2407, LogLevel.Warning, "Everybody who reaches the public ports on {Address} may use the models behind them (Node:DirectAccess=open).")]
    private partial void LogOpenToAll(string address);

    [LoggerMessage(2408, LogLevel.Warning, "The public ports on {Address} are cleartext and reached from other machines: keys and prompts can be read on the way.")]
    private partial void LogCleartext(string address);

    [LoggerMessage(2409, LogLevel.Information, "Waiting for {Count} direct requests under way, up to {DrainTimeout}.")]
    private partial void LogWaiting(int count, TimeSpan drainTimeout);

    [LoggerMessage(2410, LogLevel.Warning, "{Count} direct requests were still under way when the time for them was over.")]
    private partial void LogGivenUp(int count);
}
