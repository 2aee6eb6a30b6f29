using ModelHost.Core.Routing;
using ModelHost.Protocol;

namespace ModelHost.Gateway;

/// <summary>Holds the current route table; nodes publish their part, and the table is swapped whole.</summary>
internal sealed class RouteSource
{
    private readonly Dictionary<int, IReadOnlyList<ModelRoute>> _byNode = [];
    private readonly List<(int NodeId, ModelRoute Route, long Mark)> _announced = [];
    private readonly Lock _lock = new();
    private long _marks;
    private long _forgotten;
    private volatile RouteTable _current = RouteTable.Empty;
    private volatile TaskCompletionSource _changed = NewChange();

    /// <summary>The table to route by now.</summary>
    public RouteTable Current => _current;

    /// <summary>Ends with the next table. Taken before <see cref="Current"/> is read, it misses none.</summary>
    public Task Changed => _changed.Task;

    /// <summary>The requests under way on the routes of this table and of those before it.</summary>
    public RequestsUnderWay Requests { get; } = new();

    /// <summary>How many requests are under way on a deployment: those of the gateway, and those that its node saw come by the public port when it last reported.</summary>
    public int UnderWay(string deploymentUid, Engine? engine) => Requests.Count(deploymentUid) + (engine?.DirectRequests ?? 0);

    /// <summary>Whether a node has published its routes since the start.</summary>
    public bool Knows(int nodeId)
    {
        lock (_lock)
            return _byNode.ContainsKey(nodeId);
    }

    /// <summary>Marks the moment before a node's deployments are read, for <see cref="Publish"/>.</summary>
    public long Mark()
    {
        lock (_lock)
            return ++_marks;
    }

    /// <summary>
    /// Takes deployments as they are stored and before their node has been heard, so that their names are known. They stand until routes are published
    /// that were read after they were stored; what was published before is older.
    /// </summary>
    public void Announce(int nodeId, params ModelRoute[] routes)
    {
        lock (_lock)
        {
            _announced.AddRange(routes.Select(route => (nodeId, route, _marks)));
            Swap();
        }
    }

    /// <summary>Takes the routes of one node; unchanged ones cost nothing.</summary>
    /// <param name="nodeId">The node.</param>
    /// <param name="routes">All its routes.</param>
    /// <param name="mark">From <see cref="Mark"/>, before they were read.</param>
    public void Publish(int nodeId, IEnumerable<ModelRoute> routes, long mark)
    {
        var published = routes.ToArray();
        lock (_lock)
        {
            if (mark < _forgotten)
                return;
            var replaced = _announced.RemoveAll(announced => announced.NodeId == nodeId && announced.Mark < mark);
            if (replaced == 0 && _byNode.TryGetValue(nodeId, out var before)
                && before.Count == published.Length && before.Zip(published).All(pair => Same(pair.First, pair.Second)))
                return;
            _byNode[nodeId] = published;
            Swap();
        }
    }

    /// <summary>Takes one route of a node before what it shows is stored; all of them follow by <see cref="Publish"/>.</summary>
    /// <param name="nodeId">The node.</param>
    /// <param name="route">The route.</param>
    /// <param name="mark">From <see cref="Mark"/>, before it was read.</param>
    public void Replace(int nodeId, ModelRoute route, long mark)
    {
        lock (_lock)
        {
            if (mark < _forgotten || !_byNode.TryGetValue(nodeId, out var before))
                return;
            _announced.RemoveAll(announced => announced.Route.DeploymentId == route.DeploymentId && announced.Mark < mark);
            _byNode[nodeId] = [.. before.Where(other => other.DeploymentId != route.DeploymentId), route];
            Swap();
        }
    }

    /// <summary>Drops every route; those that were read before are not taken any more.</summary>
    public void Forget()
    {
        lock (_lock)
        {
            _forgotten = ++_marks;
            _announced.Clear();
            foreach (var nodeId in _byNode.Keys.ToArray())
                _byNode[nodeId] = [];
            Swap();
        }
    }

    private void Swap()
    {
        var announced = _announced.AsEnumerable().Reverse().Select(latest => latest.Route).DistinctBy(route => route.DeploymentId).ToArray();
        var newer = announced.Select(route => route.DeploymentId).ToHashSet();
        _current = new RouteTable(_byNode.Values.SelectMany(part => part).Where(route => !newer.Contains(route.DeploymentId)).Concat(announced));
        Interlocked.Exchange(ref _changed, NewChange()).SetResult();
    }

    // whoever waits goes on elsewhere, and not under the lock
    private static TaskCompletionSource NewChange() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private static bool Same(ModelRoute a, ModelRoute b) => a with { LoraNames = b.LoraNames } == b && a.LoraNames.SequenceEqual(b.LoraNames);
}
