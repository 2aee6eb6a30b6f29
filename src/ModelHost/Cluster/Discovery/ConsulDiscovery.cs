using System.Collections.Immutable;
using Microsoft.Extensions.Options;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Hosting;

namespace ModelHost.Cluster.Discovery;

/// <summary>An instance in Consul's catalogue, and what is known of whoever listens there.</summary>
/// <param name="Service">The instance.</param>
internal sealed record ConsulNode(ConsulService Service)
{
    /// <summary>The node that its certificate named; null: not known.</summary>
    public string? Uid { get; init; }

    /// <summary>Why it was not registered when it was last asked; null: it was, or was not asked yet.</summary>
    public string? Fault { get; init; }

    /// <summary>When it is asked next.</summary>
    public DateTimeOffset AskAt { get; init; }

    /// <summary>Questions that failed in a row.</summary>
    public int Failures { get; init; }
}

/// <summary>
/// Watches Consul's catalogue and registers the nodes in it whose certificates are of this cluster. What Consul says, or fails to say, takes no node away: a registered one is known by
/// itself from then on.
/// </summary>
internal sealed partial class ConsulDiscovery(
    ConsulCatalogue catalogue, NodeProbe probe, NodeLinks links, NodeRegistry registry, DataFolder folder, IOptions<ConsulOptions> options, LiveSettings settings, ChangeFeed feed,
    TimeProvider time, ILogger<ConsulDiscovery> logger) : BackgroundService
{
    private const int AtATime = 8;
    // Consul answers as often as its catalogue changes; this is how often it is read at most
    private static readonly TimeSpan Least = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Most = TimeSpan.FromMinutes(1), MostOfANode = TimeSpan.FromMinutes(5);
    private readonly SemaphoreSlim _changed = new(0, 1);
    private ImmutableDictionary<(string Node, string ServiceId), ConsulNode> _nodes = ImmutableDictionary<(string, string), ConsulNode>.Empty;
    private volatile string? _fault;

    /// <summary>Whether Consul is asked at all.</summary>
    public bool IsOn => options.Value.Address.Length > 0;

    /// <summary>Why Consul could not be read, or not all of it, when it was last asked; null: it could.</summary>
    public string? Fault => _fault;

    /// <summary>What stood in the catalogue when it could last be read, without the nodes that are registered.</summary>
    public IEnumerable<ConsulNode> Unregistered => _nodes.Values.Where(node => !IsRegistered(node));

    public override void Dispose()
    {
        _changed.Dispose();
        base.Dispose();
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        IsOn ? Task.WhenAll(WatchAsync(stoppingToken), RegisterAsync(stoppingToken)) : Task.CompletedTask;

    private async Task WatchAsync(CancellationToken stoppingToken)
    {
        var (index, failures) = (0UL, 0);
        while (!stoppingToken.IsCancellationRequested)
        {
            var pause = Least;
            try
            {
                var answer = await catalogue.ReadAsync(index, stoppingToken);
                Take(answer.Services);
                if (failures > 0)
                    LogRead(options.Value.Address);
                _fault = answer.IsFiltered ? $"Consul ({options.Value.Address}) leaves out what the token (Discovery:Consul:Token) does not allow: it needs service:read and node:read" : null;
                failures = 0;
                // by Consul's rules: one that went back is of another catalogue, and 0 would not wait
                index = answer.Index is { } next && next >= index ? Math.Max(1, next) : 0;
                if (answer.Index is null)
                    pause = TimeSpan.FromSeconds(settings.Current.NodesSyncIntervalSeconds);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e)
            {
                if (failures++ == 0)
                    LogNotRead(options.Value.Address, e.Message);
                (_fault, index, pause) = ($"Consul ({options.Value.Address}) cannot be read: {e.Message}", 0, Later(Least, failures, Most));
            }
            // those that started together do not ask together
            await Task.Delay(pause * (1 + (0.5 * Random.Shared.NextDouble())), time, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private async Task RegisterAsync(CancellationToken stoppingToken)
    {
        while (!stoppingToken.IsCancellationRequested)
        {
            var now = time.GetUtcNow();
            // without an authority there are no nodes, and to look for some must not make one
            var due = ClusterAuthority.IsMade(folder) ? Unregistered.Where(node => node.AskAt <= now).ToArray() : [];
            try
            {
                await Parallel.ForEachAsync(due, new ParallelOptions { MaxDegreeOfParallelism = AtATime, CancellationToken = stoppingToken },
                    async (node, cancellationToken) => await AskAsync(node, cancellationToken));
                await _changed.WaitAsync(Least, stoppingToken);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e)
            {
                LogPassFailed(e);
                await Task.Delay(Most, time, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }

    private async Task AskAsync(ConsulNode node, CancellationToken cancellationToken)
    {
        var (uid, seen, fault) = await probe.AskAsync(node.Service.Address, node.Service.Port, cancellationToken);
        if (seen is not null && registry.FindByUid(seen.Uid) is null && await links.HeardAsync(seen, cancellationToken) is var (id, _))
            LogRegistered(id, seen.Hostname, node.Service.Node, node.Service.ServiceId);
        var asked = node with
        {
            Uid = uid,
            Fault = fault,
            Failures = fault is null ? 0 : node.Failures + 1,
            AskAt = time.GetUtcNow() + (fault is null ? TimeSpan.Zero : Later(TimeSpan.FromSeconds(settings.Current.NodesSyncIntervalSeconds), node.Failures + 1, MostOfANode)),
        };
        // unless the catalogue says something else by now
        ImmutableInterlocked.TryUpdate(ref _nodes, Key(node.Service), asked, node);
        if (asked.Fault != node.Fault)
            feed.Publish(Change.Nodes);
    }

    private void Take(IReadOnlyList<ConsulService> services)
    {
        var before = _nodes;
        ImmutableInterlocked.Update(ref _nodes, static (nodes, services) =>
            services.ToImmutableDictionary(Key, service => nodes.GetValueOrDefault(Key(service)) is { } known && known.Service == service ? known : new ConsulNode(service)), services);
        if (before.Count == services.Count && services.All(service => before.GetValueOrDefault(Key(service))?.Service == service))
            return;
        feed.Publish(Change.Nodes);
        if (_changed.CurrentCount == 0)
            _changed.Release();
    }

    private bool IsRegistered(ConsulNode node) =>
        node.Uid is { } uid ? registry.FindByUid(uid) is not null : links.IsAt(node.Service.Address, node.Service.Port);

    private static TimeSpan Later(TimeSpan first, int failures, TimeSpan most) => TimeSpan.FromSeconds(Math.Min(most.TotalSeconds, first.TotalSeconds * (1 << Math.Min(failures - 1, 16))));

    private static (string Node, string ServiceId) Key(ConsulService service) => (service.Node, service.ServiceId);

    [LoggerMessage(1431, LogLevel.Warning, "Consul at {Address} cannot be read: {Reason}. Nodes stay as they are; it is tried again.")]
    private partial void LogNotRead(string address, string reason);

    [LoggerMessage(1432, LogLevel.Information, "Consul at {Address} can be read again.")]
    private partial void LogRead(string address);

    [LoggerMessage(1433, LogLevel.Information, "Node {NodeId} ({Hostname}) was found in Consul as {ConsulNode}/{ServiceId} and is registered.")]
    private partial void LogRegistered(int nodeId, string hostname, string consulNode, string serviceId);

    [LoggerMessage(1434, LogLevel.Error, "Nodes found in Consul could not be registered.")]
    private partial void LogPassFailed(Exception exception);
}
