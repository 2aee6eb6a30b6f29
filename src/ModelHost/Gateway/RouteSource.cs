using ModelHost.Core.Routing;

namespace ModelHost.Gateway;

/// <summary>Holds the current route table; nodes publish their part, and the table is swapped whole.</summary>
internal sealed class RouteSource
{
    private readonly Dictionary<int, IReadOnlyList<ModelRoute>> _byNode = [];
    private readonly Lock _lock = new();
    private volatile RouteTable _current = RouteTable.Empty;

    /// <summary>The table to route by now.</summary>
    public RouteTable Current => _current;

    /// <summary>Whether a node has published its routes since the start.</summary>
    public bool Knows(int nodeId)
    {
        lock (_lock)
            return _byNode.ContainsKey(nodeId);
    }

    /// <summary>Takes the routes of one node; unchanged ones cost nothing.</summary>
    public void Publish(int nodeId, IEnumerable<ModelRoute> routes)
    {
        var published = routes.ToArray();
        lock (_lock)
        {
            if (_byNode.TryGetValue(nodeId, out var before) && before.Count == published.Length && before.Zip(published).All(pair => Same(pair.First, pair.Second)))
                return;
            _byNode[nodeId] = published;
            _current = new RouteTable(_byNode.Values.SelectMany(part => part));
        }
    }

    private static bool Same(ModelRoute a, ModelRoute b) => a with { LoraNames = b.LoraNames } == b && a.LoraNames.SequenceEqual(b.LoraNames);
}
