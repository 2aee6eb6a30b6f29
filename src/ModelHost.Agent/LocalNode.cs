using System.Collections.Concurrent;
using System.Net;
using System.Security.Cryptography;
using Microsoft.Extensions.Logging;
using ModelHost.Agent.Artifacts;
using ModelHost.Agent.Backends;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Engines;
using ModelHost.Agent.Gpus;
using ModelHost.Agent.Proxy;
using ModelHost.Agent.Reports;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;

namespace ModelHost.Agent;

/// <summary>
/// This machine as a node: starts and ends engines, watches them, and reports. Engines outlive it; a new one finds them again by
/// their labels or sidecars.
/// </summary>
public sealed partial class LocalNode : INode, IAsyncDisposable
{
    // runs of a deployment whose logs are kept, as many as the control plane keeps records of
    private const int KeptRuns = 5;
    private static readonly TimeSpan LeasePeriod = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan ScanPeriod = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan ScanDeadline = TimeSpan.FromSeconds(10);
    // a hung runtime must not keep the engines of the others from being served
    private static readonly TimeSpan OpenDeadline = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan GpuPatience = TimeSpan.FromSeconds(1);

    private readonly NodeIdentity _identity;
    private readonly NodeOptions _options;
    private readonly TimeProvider _time;
    private readonly ILogger _logger;
    private readonly IEngineRuntime[] _runtimes;
    private readonly ContainerEngine[] _containers;
    private readonly GpuSampler _gpus;
    private readonly DiskSampler _disk;
    private readonly ProcessSampler _processes;
    private readonly SystemSampler _system;
    private readonly EngineProtocols _protocols;
    private readonly InstalledBackends _backends;
    private readonly RunRecords _records;
    private readonly SupervisorContext _context;
    // of the time before this process: those whose engines are found, or not, are taken out
    private readonly Dictionary<string, RunRecord> _kept;
    private readonly ConcurrentDictionary<string, bool> _answering = new();
    private readonly Dictionary<string, EngineSupervisor> _engines = [];
    // runs whose end was asked for: a start that is still on its way must not bring them back
    private readonly HashSet<string> _ended = [];
    private readonly CancellationTokenSource _shutdown = new();
    private readonly Lock _lock = new();
    private Task _loops = Task.CompletedTask;
    private TaskCompletionSource _changed = NewSignal();

    /// <summary>Makes the node; nothing runs before <see cref="OpenAsync"/>.</summary>
    public LocalNode(NodeIdentity identity, NodeOptions options, DownloadOptions downloads, TimeProvider time, ILoggerFactory loggers, NodeProxy? proxy = null)
    {
        ArgumentNullException.ThrowIfNull(identity);
        ArgumentNullException.ThrowIfNull(options);
        (_identity, _options, _time, _proxy) = (identity, options, time, proxy);
        _logger = loggers.CreateLogger<LocalNode>();
        var cache = options.HuggingFaceCache.Length > 0 ? options.HuggingFaceCache : Path.Combine(identity.DataFolder, "models", "huggingface");
        _containers = [.. from engine in ((string Name, string Endpoint)[])[(ContainerRuntimes.Docker, options.DockerHost), (ContainerRuntimes.Podman, options.PodmanHost)]
            where engine.Endpoint.Length > 0
            select new ContainerEngine(engine.Name, engine.Endpoint, options, identity, time)];
        _backends = new InstalledBackends(identity.DataFolder, options, time);
        _runtimes =
        [
            .. _containers.Select(engine => new DockerRuntime(engine, options, identity, Path.GetFullPath(cache), time)), new ProcessRuntime(identity, options, Path.GetFullPath(cache), time),
            new ExternalRuntime(identity, _backends, time),
        ];
        _protocols = new EngineProtocols(options, identity.ModelsFolder, time);
        Files = new RunFiles(identity.DataFolder);
        _gpus = new GpuSampler(new SmiCommand(options.NvidiaSmi, options.NvidiaSmiTimeout, time), SystemSampler.ReadMemory, RunOf, time, _logger);
        _disk = new DiskSampler(identity.DataFolder, Path.GetFullPath(cache), time, _logger);
        _system = new SystemSampler(time);
        _processes = new ProcessSampler(RunOf, AnyEngines, options.MetricsInterval, time);
        _records = new RunRecords(identity.DataFolder);
        _kept = _records.ReadAll().ToDictionary(record => record.RunId);
        _http = new GuardedHttp(downloads, time);
        _folders = new ArtifactFolders(identity.DataFolder);
        _images = new ImagePull(_containers, options, name => _answering.GetValueOrDefault(name));
        _pulls = Pulls(downloads);
        _imageRemoval = new ImageRemoval(_containers, name => _answering.GetValueOrDefault(name), UseOf, time, _logger, _shutdown.Token);
        _context = new SupervisorContext(options, LogPath, _protocols, _records, time, _logger, SignalChange);
    }

    /// <summary>Finds the engines that are there, and begins to watch the machine.</summary>
    public async Task OpenAsync(CancellationToken cancellationToken)
    {
        _pulls.Open();
        var scans = _runtimes.Select(runtime => ScanAsync(runtime, _shutdown.Token)).ToArray();
        _loops = Task.WhenAll(
            [_gpus.RunAsync(SignalChange, _shutdown.Token), _disk.RunAsync(_shutdown.Token), _system.RunAsync(_shutdown.Token), _processes.RunAsync(_shutdown.Token), EnforceLeasesAsync(), KeepPortsAsync(), _proxy?.Usage.RunAsync(_shutdown.Token) ?? Task.CompletedTask, .. _runtimes.Select((runtime, i) => ScanForeverAsync(runtime, scans[i]))]);
        // a first request to start something should find the GPUs; a card that wakes slowly must not hold up everything else
        await Task.WhenAll(
            Task.WhenAny(Task.WhenAll(scans), Task.Delay(OpenDeadline, _time, cancellationToken)),
            Task.WhenAny(_gpus.FirstRead, Task.Delay(GpuPatience, _time, cancellationToken)));
    }

    /// <inheritdoc/>
    public Task<StartReply> StartAsync(StartRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        var spec = LaunchSpec.FromJson(request.LaunchSpec) ?? throw new ArgumentException("the launch spec is of an unknown version", nameof(request));
        var recipe = BackendCatalogue.Of(spec)
            ?? throw new ArgumentException($"there is no backend '{spec.Backend}'", nameof(request));
        var runtime = _runtimes.FirstOrDefault(r => r.Name == spec.Runtime)
            ?? throw new ArgumentException($"this node has no runtime '{spec.Runtime}'", nameof(request));
        if (!IsAllowed(runtime, recipe))
            throw new ArgumentException("this node starts no processes but those of installed backends (Node:ProcessRuntime)", nameof(request));
        lock (_lock)
        {
            if (!_engines.ContainsKey(request.RunId) && !_ended.Contains(request.RunId))
            {
                var lease = Lease.FromJson(request.Lease) ?? new Lease(0, null, spec.DurationSeconds);
                Launch(runtime, recipe, spec, request.DeploymentUid, request.RunId, lease, request.LatestVersion, new Dictionary<string, string>(request.Env));
            }
        }
        SignalChange();
        return Task.FromResult(new StartReply());
    }

    private void Launch(
        IEngineRuntime runtime, BackendRecipe recipe, LaunchSpec spec, string deploymentUid, string runId, Lease lease, string latestVersion,
        IReadOnlyDictionary<string, string> env)
    {
        var key = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(24));
        _kept.Remove(runId);
        RunLog.DeleteOlder(Path.GetDirectoryName(LogPath(deploymentUid, runId))!, KeptRuns - 1);
        // nor any public one, of which some may not be listened on yet
        var taken = _engines.Values.SelectMany(engine => (int[])[engine.EnginePort, LaunchSpec.FromJson(engine.Peek().LaunchSpec)?.Port ?? 0]).Append(spec.Port).ToHashSet();
        var port = EnginePorts.Free(_options, taken);
        var install = recipe.Protocol == BackendCatalogue.Grpc ? _backends.Find(recipe.Name) : null;
        Track(EngineSupervisor.Start(
            _context, runtime, new EngineLaunch(deploymentUid, runId, spec, recipe, env, latestVersion, port, key, lease) { Install = install }));
    }

    /// <inheritdoc/>
    public Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        lock (_lock)
        {
            _ended.Add(request.RunId);
            // under the lock, as what is in the dictionary is not disposed
            _engines.GetValueOrDefault(request.RunId)?.Stop();
        }
        return Task.FromResult(new StopReply());
    }

    /// <inheritdoc/>
    public Task<UpdateReply> UpdateAsync(UpdateRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (LaunchSpec.FromJson(request.LaunchSpec) is null || Lease.FromJson(request.Lease) is not { } lease)
            throw new ArgumentException("the launch spec or the lease is of an unknown version", nameof(request));
        Watched(request.RunId)?.Update(request.LaunchSpec, lease);
        if (request.Draining)
            Drain(request.RunId);
        return Task.FromResult(new UpdateReply());
    }

    /// <inheritdoc/>
    public Task<EnvironmentReply> EnvironmentAsync(EnvironmentRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        var reply = new EnvironmentReply();
        if (Watched(request.RunId) is { } engine)
            reply.Env.Add(engine.Environment().ToDictionary());
        return Task.FromResult(reply);
    }

    /// <summary>Where the engine of a run listens on this machine, and how it is spoken to; null: none that is ready.</summary>
    public (string Url, string Protocol)? EngineOf(string runId) =>
        Watched(runId) is { } watched && watched.Peek() is { Phase: EnginePhase.Ready } engine ? (engine.EngineUrl.TrimEnd('/'), watched.Protocol) : null;

    /// <summary>Files that gRPC backends read and write on this machine.</summary>
    public RunFiles Files { get; }

    private EngineSupervisor? Watched(string runId)
    {
        lock (_lock)
            return _engines.GetValueOrDefault(runId);
    }

    /// <inheritdoc/>
    public Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken) => Task.FromResult(Report());

    /// <inheritdoc/>
    public IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, CancellationToken cancellationToken) =>
        ReportUpdates.ReadAsync(Report, ChangedAsync, request, _time, cancellationToken);

    private NodeReport Report()
    {
        var report = new NodeReport
        {
            NodeId = _identity.NodeId,
            Hostname = Dns.GetHostName(),
            Address = "127.0.0.1",
            AgentVersion = typeof(LocalNode).Assembly.GetName().Version?.ToString(3) ?? "",
            Disk = _disk.Current,
            Cpu = _system.Cpu,
            Memory = _system.Memory,
        };
        GpuReport.Write(_gpus.Current, report);
        report.Pulls.AddRange(_pulls.Snapshot());
        report.ModelFolders.AddRange(_options.AllowedModelFolders);
        report.ModelsFolder = _identity.ModelsFolder;
        _backends.Write(report);
        lock (_lock)
        {
            // taken together: a runtime that answers has all its engines in the same report
            report.Runtimes.AddRange(_runtimes.Select(runtime => runtime.Name).Where(name => _answering.GetValueOrDefault(name) && IsOffered(name, report)));
            report.Engines.AddRange(_engines.Values.Where(engine => !engine.IsGone).Select(engine => engine.Snapshot()));
        }
        foreach (var engine in report.Engines)
            engine.Processes = _processes.Current.GetValueOrDefault(engine.RunId);
        ReportPorts(report);
        return report;
    }

    /// <inheritdoc/>
    public Task<LogsReply> LogsAsync(LogsRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        var count = Math.Clamp(request.Tail, 1, 2000);
        var engine = Watched(request.RunId);
        var reply = new LogsReply();
        reply.Lines.AddRange(engine is not null && !engine.IsGone ? engine.Tail(count)
            : Guid.TryParse(request.DeploymentUid, out _) && Guid.TryParse(request.RunId, out _) ? RunLog.ReadTail(LogPath(request.DeploymentUid, request.RunId), count)
            : []);
        return Task.FromResult(reply);
    }

    /// <inheritdoc/>
    public IAsyncEnumerable<LogPiece> LogFileAsync(LogsRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        EngineSupervisor? engine;
        lock (_lock)
            engine = _engines.Values.FirstOrDefault(e => e.RunId == request.RunId);
        var parts = engine is not null && !engine.IsGone ? engine.OpenLog()
            : Guid.TryParse(request.DeploymentUid, out _) && Guid.TryParse(request.RunId, out _) ? RunLog.OpenParts(LogPath(request.DeploymentUid, request.RunId))
            : [];
        return LogPieces.ReadAsync(parts, cancellationToken);
    }

    private Task ChangedAsync(CancellationToken cancellationToken)
    {
        lock (_lock)
            return _changed.Task.WaitAsync(cancellationToken).ContinueWith(static _ => { }, TaskScheduler.Default);
    }

    /// <inheritdoc/>
    public Task<PortReply> CheckPortAsync(PortRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (request.Port is < 1 or > IPEndPoint.MaxPort)
            throw new ArgumentException($"there is no port {request.Port}", nameof(request));
        var reason = EnginePorts.WhyTaken(request.Port);
        return Task.FromResult(new PortReply { Available = reason is null, Reason = reason ?? "" });
    }

    /// <summary>Ends the watching; the engines go on.</summary>
    public async ValueTask DisposeAsync()
    {
        await _shutdown.CancelAsync();
        await _loops.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        EngineSupervisor[] engines;
        lock (_lock)
            engines = [.. _engines.Values];
        await Task.WhenAll(engines.Select(engine => engine.DisposeAsync().AsTask()));
        await _pulls.DisposeAsync();
        await _imageRemoval.DisposeAsync();
        _http.Dispose();
        _protocols.Dispose();
        foreach (var engine in _containers)
            engine.Dispose();
        _shutdown.Dispose();
    }

    private async Task EnforceLeasesAsync()
    {
        while (!_shutdown.IsCancellationRequested)
        {
            await Task.Delay(LeasePeriod, _time, _shutdown.Token);
            lock (_lock)
            {
                foreach (var engine in _engines.Values)
                    engine.ExpireIfDue(_time.GetUtcNow());
            }
        }
    }

    private void Track(EngineSupervisor engine)
    {
        _engines[engine.RunId] = engine;
        _ = ForgetWhenGoneAsync(engine);
    }

    private async Task ForgetWhenGoneAsync(EngineSupervisor engine)
    {
        await engine.Completion;
        if (!engine.IsGone)
            return;
        lock (_lock)
        {
            _engines.Remove(engine.RunId);
            _draining.Remove(engine.RunId);
        }
        SignalChange(); // its public port is free now
        await engine.DisposeAsync();
        Files.Forget(engine.RunId);
    }

    private bool AnyEngines()
    {
        lock (_lock)
            return _engines.Count > 0;
    }

    private string? RunOf(int pid)
    {
        EngineSupervisor[] engines;
        lock (_lock)
            engines = [.. _engines.Values];
        if (engines.Length == 0)
            return null;
        var origin = ProcessOrigin.Of(pid);
        return engines.FirstOrDefault(engine => engine.Owns(origin))?.RunId;
    }

    private string LogPath(string deploymentUid, string runId) => Path.Combine(_identity.DataFolder, "logs", deploymentUid, runId + ".log");

    private void SignalChange()
    {
        TaskCompletionSource changed;
        lock (_lock)
        {
            changed = _changed;
            _changed = NewSignal();
        }
        changed.TrySetResult();
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}
