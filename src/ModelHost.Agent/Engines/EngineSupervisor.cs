using Microsoft.Extensions.Logging;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Engines;

/// <summary>What every supervisor needs of its node.</summary>
internal sealed record SupervisorContext(
    NodeOptions Options, Func<string, string, string> LogPath, EngineProtocols Protocols, RunRecords Records, TimeProvider Time, ILogger Logger, Action Changed);

/// <summary>
/// One run of a deployment, from the start of its engine to its removal. One task does everything; others ask it to stop and read
/// snapshots.
/// <code>
/// preparing -> loading -> ready -> failed (until told to stop)
///      \__________\_________\________\-> stopping -> gone, or expired (until told to stop)
/// </code>
/// When the host shuts down, the task ends and the engine goes on.
/// </summary>
internal sealed partial class EngineSupervisor : IAsyncDisposable
{
    private const int LinesPerMark = 1024;
    private static readonly TimeSpan RetryDelay = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan DrainDeadline = TimeSpan.FromSeconds(10);

    private readonly SupervisorContext _context;
    private readonly ILogger _logger;
    private readonly IEngineRuntime _runtime;
    private readonly BackendRecipe _recipe;
    private readonly CancellationTokenSource _stop = new();
    // the lease ran out: the engine ends, and what is known of it stays
    private readonly CancellationTokenSource _expire = new();
    private readonly CancellationTokenSource _shutdown = new();
    private readonly Lock _lock = new();
    private readonly Engine _engine;
    private readonly RunLog _log;
    private readonly Redactor _redactor;
    private readonly EngineWatch _watch;
    // set when the engine's last counters have been reported
    private readonly TaskCompletionSource _endSeen = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private EngineInstance? _instance;
    private int _disposed;
    private Task _task = Task.CompletedTask;

    private EngineSupervisor(
        SupervisorContext context, IEngineRuntime runtime, BackendRecipe recipe, RunRecord record, int port, string key, IEnumerable<string> secrets)
    {
        var engine = new Engine { DeploymentUid = record.DeploymentUid, RunId = record.RunId, Runtime = runtime.Name };
        (_context, _logger, _runtime, _recipe, _engine, _record, EnginePort) = (context, context.Logger, runtime, recipe, engine, record, port);
        Show(record);
        engine.EngineUrl = UrlOf(port);
        engine.EngineKey = key;
        _redactor = new Redactor([.. secrets, key]);
        _watch = new EngineWatch(context.Time, e => LogBroken(e, RunId));
        _log = new RunLog(context.LogPath(engine.DeploymentUid, engine.RunId), context.Options.LogBytes, _redactor, context.Time);
    }

    /// <summary>The run.</summary>
    public string RunId => _engine.RunId;

    /// <summary>Name of its runtime.</summary>
    public string Runtime => _runtime.Name;

    /// <summary>How its engine is spoken to, as in its recipe.</summary>
    public string Protocol => _recipe.Protocol;

    /// <summary>Loopback port that the engine has or will have.</summary>
    public int EnginePort { get; }

    /// <summary>Completes when nothing of the run is left, or the host shuts down.</summary>
    public Task Completion => _task;

    /// <summary>Whether nothing of the run is left.</summary>
    public bool IsGone { get; private set; }

    /// <summary>Begins a new run.</summary>
    public static EngineSupervisor Start(SupervisorContext context, IEngineRuntime runtime, EngineLaunch launch)
    {
        var record = RecordOf(context, runtime, launch);
        var secrets = launch.Env.SelectMany(variable => Redactor.SecretsOf(variable.Key, variable.Value));
        var supervisor = new EngineSupervisor(context, runtime, launch.Recipe, record, launch.EnginePort, launch.EngineKey, secrets);
        (supervisor._engine.Phase, supervisor._engine.Detail) = (EnginePhase.Preparing, "preparing image");
        supervisor.Write(record);
        supervisor._task = Task.Run(() => supervisor.RunAsync(launch));
        return supervisor;
    }

    /// <summary>Takes over a run that outlived the host.</summary>
    /// <param name="context">What every supervisor needs.</param>
    /// <param name="runtime">Where its engine was found.</param>
    /// <param name="recipe">The recipe of its backend.</param>
    /// <param name="instance">Its engine.</param>
    /// <param name="known">What the node kept of it; null: nothing, then its labels have to do.</param>
    public static EngineSupervisor Adopt(SupervisorContext context, IEngineRuntime runtime, BackendRecipe recipe, EngineInstance instance, RunRecord? known)
    {
        var record = known ?? RecordOf(context, runtime, instance);
        var supervisor = new EngineSupervisor(context, runtime, recipe, record, instance.EnginePort, instance.EngineKey, instance.Secrets);
        supervisor.Started(instance);
        supervisor.Resume(record.Ending);
        supervisor._task = Task.Run(() => supervisor.RunAsync(null));
        return supervisor;
    }

    /// <summary>Shows a run whose lease ended while nobody could be told.</summary>
    public static EngineSupervisor Recall(SupervisorContext context, IEngineRuntime runtime, BackendRecipe recipe, RunRecord record)
    {
        var supervisor = new EngineSupervisor(context, runtime, recipe, record, 0, "", []);
        supervisor._engine.Phase = EnginePhase.Expired;
        supervisor._task = Task.Run(supervisor.EndAsync);
        supervisor._expire.Cancel();
        return supervisor;
    }

    /// <summary>What is known now.</summary>
    public Engine Snapshot()
    {
        lock (_lock)
        {
            if (_engine.Phase is EnginePhase.Stopping or EnginePhase.Expired)
                _endSeen.TrySetResult();
            return _engine.Clone();
        }
    }

    /// <summary>Whether a process of this machine is part of the engine.</summary>
    public bool Owns(ProcessOrigin process) => _instance is { } instance && _runtime.Owns(instance, process);

    /// <summary>The last lines of the log.</summary>
    public IReadOnlyList<string> Tail(int count) => _log.Tail(count);

    /// <summary>The whole log, opened.</summary>
    public IReadOnlyList<FileStream> OpenLog() => _log.OpenParts();

    /// <summary>Asks for the end of the run; cancels a pull.</summary>
    public void Stop()
    {
        Keep(record => record with { Ending = RunEnding.Told });
        _stop.Cancel();
    }

    /// <summary>Ends the supervision and leaves the engine as it is.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return; // gone at the moment of the shutdown
        await _shutdown.CancelAsync();
        await _task;
        _log.Dispose();
        _stop.Dispose();
        _expire.Dispose();
        _shutdown.Dispose();
    }

    private async Task RunAsync(EngineLaunch? launch)
    {
        using var working = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token, _expire.Token, _shutdown.Token);
        try
        {
            if (launch is not null)
                Started(await LaunchAsync(launch, working.Token));
            await _watch.KeepOnAsync(MonitorAsync, working.Token);
        }
        catch (OperationCanceledException) when (working.IsCancellationRequested)
        {
        }
        catch (RuntimeException e)
        {
            var failure = e.Failure ?? FailureClassifier.ClassifyLaunch(_recipe, e.Message);
            Failed(failure with { Message = _redactor.Clean(failure.Message) }, null);
        }
#pragma warning disable CA1031 // a run whose start broke must show it, not vanish from the report
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogNotStarted(e, RunId);
            Failed(new EngineFailure("internal", "The start of this run broke off; the node's log says why."), null);
        }
        if (!_shutdown.IsCancellationRequested || _stop.IsCancellationRequested || _expire.IsCancellationRequested)
            await EndAsync();
    }

    private async Task<EngineInstance> LaunchAsync(EngineLaunch launch, CancellationToken cancellationToken)
    {
        if (launch is { Install: null, Recipe.Protocol: BackendCatalogue.Grpc })
            throw new RuntimeException("it is not there") { Failure = new EngineFailure("backend_missing", $"The backend '{launch.Recipe.Name}' is not installed on this node.", IsFinal: true) };
        while (true)
        {
            try
            {
                return await _runtime.LaunchAsync(launch, Progress, cancellationToken);
            }
            catch (RuntimeException e) when (e.IsSilence)
            {
                // nothing was refused
                Progress(new LaunchProgress($"waiting for {_runtime.Name}"));
                await Task.Delay(RetryDelay, _context.Time, cancellationToken);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // a full disk, most likely: room may be made
                throw new RuntimeException(e.Message, e) { Failure = new EngineFailure("launch_failed", $"What the engine needs could not be made ready: {e.Message}") };
            }
        }
    }

    /// <summary>Waits until the run is to end, ends the engine, removes what is left, and is gone once it is told to stop.</summary>
    private async Task EndAsync()
    {
        if (!await AnyAsync(_stop.Token, _expire.Token) || !await RemoveAsync())
            return;
        if (!_stop.IsCancellationRequested)
        {
            Change(engine => (engine.Phase, engine.Detail) = (EnginePhase.Expired, ""));
            if (!await AnyAsync(_stop.Token))
                return;
        }
        Say("[modelhost] stopped");
        if (_engine.Metrics is not null)
            await Task.WhenAny(_endSeen.Task, Task.Delay(_context.Options.LastCountDeadlines.Reported, _context.Time, _shutdown.Token));
        lock (_lock)
        {
            try
            {
                _context.Records.Delete(RunId); // first: who hears that it is gone finds nothing of it
            }
            finally
            {
                IsGone = true; // what is told from now on is not written down any more
            }
        }
        _context.Changed();
    }

    /// <summary>Waits until one of these is cancelled; false: the host shuts down.</summary>
    private async Task<bool> AnyAsync(params CancellationToken[] tokens)
    {
        using var told = CancellationTokenSource.CreateLinkedTokenSource([.. tokens, _shutdown.Token]);
        await Task.Delay(Timeout.InfiniteTimeSpan, _context.Time, told.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        return tokens.Any(token => token.IsCancellationRequested);
    }

    /// <summary>Ends the engine and removes what is left of it; false: the host shuts down.</summary>
    /// <param name="hasFailed">Whether that is what it goes on showing.</param>
    private async Task<bool> RemoveAsync(bool hasFailed = false)
    {
        while (_instance is not null)
        {
            try
            {
                await TakeLeaveAsync();
                if (!hasFailed)
                    Change(engine => (engine.Phase, engine.Detail) = (EnginePhase.Stopping, "stopping"));
                await _runtime.RemoveAsync(_instance, _context.Options.StopGrace, _shutdown.Token);
                _instance = null;
            }
            catch (OperationCanceledException) when (_shutdown.IsCancellationRequested)
            {
                return false;
            }
#pragma warning disable CA1031 // whatever it is, the engine may still hold its GPUs: it is tried until it is gone
            catch (Exception e)
#pragma warning restore CA1031
            {
                LogStopFailed(e, RunId);
                if (!await PauseAsync(RetryDelay))
                    return false;
            }
        }
        return true;
    }

    /// <summary>Watches over the engine to its end, and shows that.</summary>
    /// <returns>Whether there was one.</returns>
    private async Task<bool> MonitorAsync(CancellationToken cancellationToken)
    {
        if (_instance is not { } instance)
            return false;
        using var following = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        using var ready = new SemaphoreSlim(0);
        var logs = FollowAsync(instance, ready, following.Token);
        var serving = ServeAsync(ready, following.Token);
        var ended = _watch.KeepOnAsync(token => _runtime.WaitAsync(instance, token), following.Token);
        EngineFailure? refusal = null;
        try
        {
            if (await Task.WhenAny(ended, serving) == serving)
                refusal = await serving;
            // the engine's last words are the cause of its end; one that is gone has none left to read
            if (refusal is null && await ended is not null)
                await Task.WhenAny(logs, Task.Delay(DrainDeadline, _context.Time, cancellationToken));
        }
        finally
        {
            await following.CancelAsync();
            await Task.WhenAll(logs, serving);
            await ((Task)ended).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _log.Mark();
        }
        if (refusal is not null)
        {
            // it would hold what another could use
            Failed(refusal with { Message = _redactor.Clean(refusal.Message) }, null);
            await RemoveAsync(hasFailed: true);
        }
        else
            Ended(await ended);
        return true;
    }

    private void Ended(EngineExit? exit)
    {
        if (exit is null)
        {
            LogVanished(RunId);
            Say("[modelhost] the engine is gone");
            _instance = null;
            Stop(); // nothing to report but its absence
            return;
        }
        Say($"[modelhost] the engine ended with exit code {exit.ExitCode?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "unknown"}");
        var lines = _log.Tail(FailureClassifier.SearchedLines);
        Failed(exit.Failure ?? (exit.Message is { Length: > 0 } message
            ? FailureClassifier.ClassifyLaunch(_recipe, message)
            : FailureClassifier.Classify(_recipe, lines, exit.ExitCode, exit.OomKilled)), exit.ExitCode);
    }

    private async Task FollowAsync(EngineInstance instance, SemaphoreSlim ready, CancellationToken cancellationToken)
    {
        try
        {
            await _watch.KeepOnAsync(async token =>
            {
                var unmarked = 0;
                await foreach (var line in _runtime.FollowAsync(instance, _log.Position, token))
                {
                    Read(line.Text, ready);
                    _log.Append(line.Text, line.At, line.Position);
                    // a mark is a file written anew: of a busy engine's access log one for 64 lines was a twentieth of all CPU time
                    if (++unmarked % LinesPerMark == 0)
                        _log.Mark();
                }
                return true;
            }, cancellationToken);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
        }
    }

    private void Read(string line, SemaphoreSlim ready)
    {
        if (_engine.Phase != EnginePhase.Loading)
            return;
        ReadMemory(line);
        if (LoadPhases.IsReady(_recipe, line))
            ready.Release();
        else if (LoadPhases.Detect(_recipe, line) is { } phase && phase != _engine.Detail)
            Change(engine => engine.Detail = phase);
    }

    private void Started(EngineInstance instance)
    {
        (_instance, _protocol) = (instance, _context.Protocols.Of(_recipe, instance.Url, instance.EngineKey));
        var now = _context.Time.GetUtcNow();
        Keep(record => Placed(record with { StartedAt = record.StartedAt ?? now }, instance));
        Change(engine =>
        {
            (engine.Phase, engine.Detail) = (EnginePhase.Loading, "");
            (engine.ContainerId, engine.Image, engine.ImageDigest) = (instance.Id, instance.Image, instance.ImageDigest);
            (engine.EngineVersion, engine.EngineUrl, engine.EngineKey) = (instance.EngineVersion, instance.Url.GetLeftPart(UriPartial.Authority), instance.EngineKey);
            engine.ClearPullPercent();
            engine.ClearPullDoneBytes();
            engine.ClearPullTotalBytes();
            engine.ClearPullLayers();
            engine.ClearPullLayersDone();
        });
    }

    private void Progress(LaunchProgress progress)
    {
        if (progress.Line is not null)
            Say(progress.Line);
        Change(engine =>
        {
            engine.Detail = progress.Detail;
            if (progress.Pull is not { } pull)
                return;
            if (pull.Percent is { } percent)
                engine.PullPercent = Math.Floor(percent * 10) / 10; // 100 only when nothing is missing
            (engine.PullDoneBytes, engine.PullTotalBytes) = (pull.DoneBytes, pull.TotalBytes);
            (engine.PullLayersDone, engine.PullLayers) = (pull.LayersDone, pull.Layers);
        });
    }

    private void Failed(EngineFailure failure, int? exitCode)
    {
        LogFailed(RunId, failure.Code, exitCode?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "unknown");
        Say($"[modelhost] failed ({failure.Code})");
        Change(engine =>
        {
            // its counters stay: the control plane may not have seen the last ones
            (engine.Phase, engine.Detail, engine.FailureCode, engine.Failure) = (EnginePhase.Failed, "", failure.Code, failure.Message);
            engine.FailureIsFinal = failure.IsFinal;
            if (exitCode is { } code)
                engine.ExitCode = code;
        });
    }

    /// <summary>Adds a line of our own, which cannot be read from the engine again.</summary>
    private void Say(string line)
    {
        _log.Append(line, null, null);
        _log.Mark();
    }

    private void Change(Action<Engine> change)
    {
        lock (_lock)
            change(_engine);
        _context.Changed();
    }

    private async Task<bool> PauseAsync(TimeSpan delay)
    {
        await Task.Delay(delay, _context.Time, _shutdown.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        return !_shutdown.IsCancellationRequested;
    }

    [LoggerMessage(2101, LogLevel.Information, "Run {RunId} is ready.")]
    private partial void LogReady(string runId);

    [LoggerMessage(2102, LogLevel.Information, "Run {RunId} failed: {FailureCode}, exit code {ExitCode}.")]
    private partial void LogFailed(string runId, string failureCode, string exitCode);

    [LoggerMessage(2103, LogLevel.Warning, "The engine of run {RunId} is gone without a trace.")]
    private partial void LogVanished(string runId);

    [LoggerMessage(2104, LogLevel.Warning, "The engine of run {RunId} could not be ended; it is tried again.")]
    private partial void LogStopFailed(Exception exception, string runId);

    [LoggerMessage(2105, LogLevel.Error, "The supervision of run {RunId} broke off; it is taken up again.")]
    private partial void LogBroken(Exception exception, string runId);

    [LoggerMessage(2108, LogLevel.Error, "The start of run {RunId} broke off.")]
    private partial void LogNotStarted(Exception exception, string runId);
}
