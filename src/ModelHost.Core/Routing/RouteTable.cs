using System.Collections.Frozen;
using ModelHost.Core.Deployments;

namespace ModelHost.Core.Routing;

/// <summary>A deployment as the gateway sees it.</summary>
/// <param name="DeploymentId">Its id.</param>
/// <param name="Status">Where it stands.</param>
/// <param name="ServedName">The name given to it; null: none.</param>
/// <param name="ModelName">The model it serves.</param>
/// <param name="LoraNames">Adapters it serves.</param>
/// <param name="Owner">Who asked for it.</param>
/// <param name="CreatedAt">Since when it exists.</param>
/// <param name="EngineUrl">Where its engine listens; null: it does not answer now.</param>
/// <param name="EngineKey">Key of its run.</param>
public sealed record ModelRoute(
    int DeploymentId, DeploymentStatus Status, string? ServedName, string ModelName, IReadOnlyList<string> LoraNames,
    string Owner, DateTimeOffset CreatedAt, Uri? EngineUrl, string? EngineKey)
{
    /// <summary>Its public name: the served name, else the model's.</summary>
    public string PublicName => ServedName ?? ModelName;

    /// <summary>Whether requests can be forwarded to it.</summary>
    public bool IsRoutable => IsUp && EngineUrl is not null;

    private bool IsUp => Status is DeploymentStatus.Running or DeploymentStatus.PausedRam;

    /// <summary>Whether requests can be forwarded to it soon.</summary>
    public bool IsComing => !IsRoutable && (IsUp || Status is DeploymentStatus.Starting or DeploymentStatus.Loading);
}

/// <summary>Why a model name leads nowhere.</summary>
public enum RouteMiss
{
    /// <summary>Nothing serves the name.</summary>
    NotFound,
    /// <summary>Several deployments do.</summary>
    Ambiguous,
    /// <summary>What serves it is not up yet.</summary>
    Loading,
    /// <summary>What serves it stands on a node that does not answer.</summary>
    Unreachable,
}

/// <summary>Where a model name leads: a route, or the reason why to none.</summary>
/// <param name="Route">The one deployment that serves the name.</param>
/// <param name="Miss">The reason, when <paramref name="Route"/> is null.</param>
/// <param name="Candidates">The public names in question, sorted.</param>
public sealed record RouteAnswer(ModelRoute? Route, RouteMiss Miss, IReadOnlyList<string> Candidates);

/// <summary>
/// All routes of the gateway at one moment: immutable, swapped whole. A name is looked for among served names first, then among
/// model names, then among adapters; the first tier with a routable deployment decides.
/// </summary>
public sealed class RouteTable
{
    private readonly FrozenDictionary<string, ModelRoute[]>[] _tiers;
    private readonly FrozenDictionary<string, RouteAnswer> _answers;

    /// <summary>Builds the table; routes that do not hold their names are left out.</summary>
    public RouteTable(IEnumerable<ModelRoute> routes)
    {
        Routes = [.. routes.Where(route => route.Status.IsActive()).OrderBy(route => route.DeploymentId)];
        _tiers =
        [
            ByName(route => route.ServedName is null ? [] : [route.ServedName]),
            ByName(route => [route.ModelName]),
            ByName(route => route.LoraNames),
        ];
        _answers = _tiers.SelectMany(tier => tier.Keys).Distinct().ToFrozenDictionary(name => name, Answer, StringComparer.Ordinal);
    }

    /// <summary>The table that knows nothing.</summary>
    public static RouteTable Empty { get; } = new([]);

    /// <summary>All routes in the table.</summary>
    public IReadOnlyList<ModelRoute> Routes { get; }

    /// <summary>Where a model name leads.</summary>
    public RouteAnswer Find(string model) => _answers.TryGetValue(model, out var answer) ? answer : new RouteAnswer(null, RouteMiss.NotFound, Names);

    /// <summary>Every name that leads to a running deployment, sorted.</summary>
    public IReadOnlyList<string> Names => field ??=
        [.. Routes.Where(r => r.IsRoutable).SelectMany(r => (IEnumerable<string>)[r.PublicName, .. r.LoraNames]).Distinct().Order(StringComparer.Ordinal)];

    private RouteAnswer Answer(string name)
    {
        var matches = _tiers.Select(tier => tier.TryGetValue(name, out var routes) ? routes : []).ToArray();
        foreach (var tier in matches)
        {
            var routable = tier.Where(route => route.IsRoutable).ToArray();
            if (routable.Length == 1)
                return new RouteAnswer(routable[0], default, []);
            if (routable.Length > 1)
                return new RouteAnswer(null, RouteMiss.Ambiguous, [.. routable.Select(r => r.PublicName).Distinct().Order(StringComparer.Ordinal)]);
        }
        var held = matches.SelectMany(tier => tier).ToArray();
        var miss = held.Any(route => route.IsComing) ? RouteMiss.Loading
            : held.Any(route => route.Status is DeploymentStatus.Unreachable) ? RouteMiss.Unreachable
            : RouteMiss.NotFound;
        return new RouteAnswer(null, miss, miss == RouteMiss.NotFound ? Names : []);
    }

    private FrozenDictionary<string, ModelRoute[]> ByName(Func<ModelRoute, IEnumerable<string>> names) =>
        Routes.SelectMany(route => names(route).Distinct().Select(name => (name, route)))
            .GroupBy(pair => pair.name, pair => pair.route, StringComparer.Ordinal)
            .ToFrozenDictionary(group => group.Key, group => group.ToArray(), StringComparer.Ordinal);
}
