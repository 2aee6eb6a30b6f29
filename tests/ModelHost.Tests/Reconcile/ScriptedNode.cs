using System.Collections.Concurrent;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Logging;
using ModelHost.Access;
using ModelHost.Agent;
using ModelHost.Agent.Reports;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Features.Usage;
using ModelHost.Gateway;
using ModelHost.Protocol;
using ModelHost.Reconcile;
using ModelHost.TestKit;

namespace ModelHost.Tests.Reconcile;

/// <summary>A node in place of the local one that does as a test says, linked as the local one is.</summary>
internal sealed class ScriptedNode : NodeStandIn, IAsyncDisposable
{
    private readonly ConcurrentDictionary<string, Engine> _engines = new();
    private readonly ConcurrentQueue<string> _asked = new();
    private readonly CancellationTokenSource _ended = new();
    private NodeHandle? _handle;
    private Task _actor = Task.CompletedTask;
    private int _reports;

    /// <summary>Its id in the API.</summary>
    public int Id { get; private set; }

    /// <summary>Passes over it that have ended.</summary>
    public int Passes => _handle!.Passes;

    /// <summary>What it was asked to do, in order.</summary>
    public IReadOnlyList<string> Asked => [.. _asked];

    /// <summary>Whether it answers no more, in reports or otherwise.</summary>
    public bool IsSilent { get; set; }

    /// <summary>Whether runs that are asked for begin, and are ready at once.</summary>
    public bool Starts { get; set; } = true;

    /// <summary>Requests that an engine tells in one report as it stops, and in no other: nothing of it is left before the stop is answered. 0: it tells nothing.</summary>
    public int LastRequests { get; set; }

    /// <summary>Why it cannot tell what direct requests used, of which it has some; null: it keeps no journal.</summary>
    public string? UsageFault { get; set; }

    /// <summary>Leaves the local node out; for <see cref="ControlPlane.StartAsync"/>.</summary>
    public static void WithoutLocalNode(IServiceCollection services) => services.RemoveAll<LocalNode>();

    /// <summary>Links one.</summary>
    public static async Task<ScriptedNode> LinkAsync(ControlPlane host, CancellationToken cancellationToken)
    {
        var services = host.Services;
        var node = new ScriptedNode();
        await using (var db = await services.GetRequiredService<Database>().OpenAsync(cancellationToken))
        {
            var row = new Node { Uid = Guid.NewGuid().ToString("N"), Hostname = "scripted", IpAddress = "127.0.0.1", CreatedAt = TimeProvider.System.GetUtcNow() };
            db.Nodes.Add(row);
            await db.SaveChangesAsync(cancellationToken);
            node.Id = row.Id;
        }
        var handle = new NodeHandle(node.Id, node, services.GetRequiredService<LiveSettings>(), "scripted");
        services.GetRequiredService<NodeRegistry>().Add(handle);
        node._handle = handle;
        node._actor = new NodeActor(
            handle, services.GetRequiredService<Database>(), services.GetRequiredService<EnvironmentVault>(), services.GetRequiredService<LifecyclePolicySource>(),
            services.GetRequiredService<RouteSource>(), services.GetRequiredService<ChangeFeed>(), services.GetRequiredService<LiveSettings>(),
            services.GetRequiredService<NodeAccess>(), services.GetRequiredService<NodeUsage>(), TimeProvider.System, Random.Shared, services.GetRequiredService<ILogger<NodeActor>>()).RunAsync(node._ended.Token);
        return node;
    }

    /// <summary>Lets it be looked at, and waits until that has been done.</summary>
    public async Task PassAsync()
    {
        // what has been read already may be what was there before, and so may that of a pass that has begun
        var read = Volatile.Read(ref _reports);
        await Deadline.UntilAsync(() => IsSilent || Volatile.Read(ref _reports) >= read + 2);
        for (var before = Passes; Passes < before + 2;)
        {
            _handle!.Wake();
            await Deadline.UntilAsync(() => Passes > before);
        }
    }

    /// <summary>What differs between the deployments that are stored and what it runs of them; empty: nothing. What was deleted runs on.</summary>
    public string Difference(IReadOnlyCollection<Deployment> rows) => string.Join(", ",
    [
        .. rows.Where(row => row.Wanted == WantedState.Running ? row.Status != DeploymentStatus.Running || !_engines.TryGetValue(row.RunId, out var engine) || !IsOf(engine, row) : row.Status.IsActive())
            .Select(row => $"deployment {row.Id} is {row.Status}, wanted {row.Wanted}, run {row.RunId} {_engines.GetValueOrDefault(row.RunId)?.Phase}"),
        .. _engines.Values.Where(engine => rows.Any(row => row.Uid == engine.DeploymentUid && (row.RunId != engine.RunId || row.Wanted != WantedState.Running)))
            .Select(engine => $"run {engine.RunId} is {engine.Phase}"),
    ]);

    private static bool IsOf(Engine engine, Deployment row) =>
        engine.Phase == EnginePhase.Ready && engine.LaunchSpec == row.Spec && Lease.FromJson(engine.Lease)?.Version >= row.LeaseVersion;

    /// <summary>Lets an engine end by itself.</summary>
    public void Fail(string deploymentUid)
    {
        foreach (var engine in _engines.Values.Where(engine => engine.DeploymentUid == deploymentUid))
            (engine.Phase, engine.FailureCode, engine.Failure) = (EnginePhase.Failed, "engine_exited", "The engine ended.");
    }

    public override Task<StartReply> StartAsync(StartRequest request, CancellationToken cancellationToken)
    {
        Hear($"start {request.RunId}");
        if (Starts)
        {
            _engines[request.RunId] = new Engine
            {
                DeploymentUid = request.DeploymentUid,
                RunId = request.RunId,
                Phase = EnginePhase.Ready,
                EngineUrl = "http://127.0.0.1:9",
                Runtime = "process",
                LaunchSpec = request.LaunchSpec,
                Lease = request.Lease,
            };
        }
        return Task.FromResult(new StartReply());
    }

    public override Task<UsageReply> UsageAsync(UsageRequest request, CancellationToken cancellationToken)
    {
        Hear($"usage {request.Journal} {request.Booked}");
        return UsageFault is { } fault ? throw new InvalidOperationException(fault) : Task.FromResult(new UsageReply());
    }

    public override async Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken)
    {
        Hear($"stop {request.RunId}");
        if (LastRequests > 0 && _engines.TryGetValue(request.RunId, out var engine))
        {
            engine.Metrics = new EngineMetrics { Requests = LastRequests };
            await Deadline.UntilAsync(() => _handle!.Engine(request.RunId)?.Metrics?.Requests == LastRequests);
            _engines.TryRemove(request.RunId, out _);
            await Deadline.UntilAsync(() => _handle!.Engine(request.RunId) is null);
        }
        _engines.TryRemove(request.RunId, out _);
        return new StopReply();
    }

    private void Hear(string asked)
    {
        _asked.Enqueue(asked);
        if (IsSilent)
            throw new IOException("silent");
    }

    public override Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken) => Task.FromResult(Report());

    // looked at often, so that what a test changes is told at once
    public override IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, CancellationToken cancellationToken) =>
        ReportUpdates.ReadAsync(Report, token => Task.Delay(20, token), request, TimeProvider.System, cancellationToken);

    private NodeReport Report()
    {
        Interlocked.Increment(ref _reports);
        if (IsSilent)
            throw new IOException("silent");
        var report = new NodeReport { NodeId = "scripted", Hostname = "scripted", Runtimes = { "process" } };
        if (UsageFault is not null)
            report.UsageWaiting = true;
        report.Engines.Add(_engines.Values.Select(engine => engine.Clone()));
        return report;
    }

    public override Task<LogsReply> LogsAsync(LogsRequest request, CancellationToken cancellationToken) =>
        IsSilent ? Task.FromException<LogsReply>(new IOException("silent")) : Task.FromResult(new LogsReply());

    public override Task<UpdateReply> UpdateAsync(UpdateRequest request, CancellationToken cancellationToken)
    {
        Hear($"update {request.RunId}");
        if (_engines.TryGetValue(request.RunId, out var engine))
            (engine.LaunchSpec, engine.Lease) = (request.LaunchSpec, request.Lease);
        return Task.FromResult(new UpdateReply());
    }

    public async ValueTask DisposeAsync()
    {
        await _ended.CancelAsync();
        await _actor;
        _ended.Dispose();
    }
}
