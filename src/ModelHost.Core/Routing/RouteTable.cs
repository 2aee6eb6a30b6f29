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
    /// <summary>Its uid, by which scopes name it; one without is in no scope that names deployments.</summary>
    public string DeploymentUid { get; init; } = "";

    /// <summary>Its run.</summary>
    public string RunId { get; init; } = "";

    /// <summary>Name of its backend, as it was asked for.</summary>
    public string Backend { get; init; } = "";

    /// <summary>How its engine is spoken to: <c>openai</c> over HTTP, or <c>grpc</c>.</summary>
    public string Protocol { get; init; } = "openai";

    /// <summary>Whether a request may start it while it rests.</summary>
    public bool StartsOnDemand { get; init; }

    /// <summary>Since when it stands where it stands.</summary>
    public DateTimeOffset StatusSince { get; init; }

    /// <summary>What a backend that speaks gRPC is told where a request says nothing.</summary>
    public GenerationDefaults Defaults { get; init; } = GenerationDefaults.None;

    /// <summary>Its public name: the served name, else the model's.</summary>
    public string PublicName => ServedName ?? ModelName;

    /// <summary>Whether a name is that of the deployment itself, and not of an adapter.</summary>
    public bool IsOwnName(string name) => name == PublicName || name == ModelName;

    /// <summary>Whether requests can be forwarded to it.</summary>
    public bool IsRoutable => IsUp && EngineUrl is not null;

    private bool IsUp => Status is DeploymentStatus.Running or DeploymentStatus.PausedRam;

    /// <summary>Whether requests can be forwarded to it soon, or start it soon.</summary>
    public bool IsComing => !IsRoutable
        && (IsUp || Status is DeploymentStatus.Starting or DeploymentStatus.Loading || (StartsOnDemand && Status == DeploymentStatus.Stopping));

    /// <summary>Whether it rests, and a request may start it. One whose lease ran out has had its time.</summary>
    public bool IsStartable => StartsOnDemand && (Status is DeploymentStatus.Stopped or DeploymentStatus.Error);

    /// <summary>Whether it can be asked for, be it that the request starts it or waits for it.</summary>
    public bool IsListed => IsRoutable || (StartsOnDemand && (IsComing || IsStartable));
}

/// <summary>Why a model name leads nowhere.</summary>
public enum RouteMiss
{
    /// <summary>Nothing serves the name.</summary>
    NotFound,
    /// <summary>Several deployments do.</summary>
    Ambiguous,
    /// <summary>What serves it is not up yet, or rests and is started on demand.</summary>
    Loading,
    /// <summary>What serves it stands on a node that does not answer.</summary>
    Unreachable,
    /// <summary>Only what is out of scope serves it.</summary>
    Forbidden,
}

/// <summary>Where a model name leads: a route, or the reason why to none.</summary>
/// <param name="Route">The one deployment that serves the name.</param>
/// <param name="Miss">The reason, when <paramref name="Route"/> is null.</param>
/// <param name="Candidates">The public names in question, sorted.</param>
public sealed record RouteAnswer(ModelRoute? Route, RouteMiss Miss, IReadOnlyList<string> Candidates)
{
    /// <summary>Of what is <see cref="RouteMiss.Loading"/>: the deployments of one public name of which one has to be started; empty: one comes up.</summary>
    public IReadOnlyList<ModelRoute> Startable { get; init; } = [];
}

/// <summary>
/// All routes of the gateway at one moment: immutable, swapped whole. A name is looked for among served names first, then among
/// model names, then among adapters; the first tier with a routable deployment decides. What is out of scope is as if it were not there,
/// except that a name which leads there alone is said to be forbidden.
/// </summary>
public sealed class RouteTable
{
    private readonly FrozenDictionary<string, ModelRoute[]>[] _tiers;
    private readonly FrozenDictionary<string, RouteAnswer> _answers;

    /// <summary>Builds the table; routes that do not hold their names are left out, but those that are started on demand.</summary>
    public RouteTable(IEnumerable<ModelRoute> routes)
    {
        Routes = [.. routes.Where(route => route.Status.IsActive() || route.IsStartable).OrderBy(route => route.DeploymentId)];
        _tiers =
        [
            ByName(route => route.ServedName is null ? [] : [route.ServedName]),
            ByName(route => [route.ModelName]),
            ByName(route => route.LoraNames),
        ];
        _answers = _tiers.SelectMany(tier => tier.Keys).Distinct().ToFrozenDictionary(name => name, name => Answer(name, RouteScope.All), StringComparer.Ordinal);
    }

    /// <summary>The table that knows nothing.</summary>
    public static RouteTable Empty { get; } = new([]);

    /// <summary>All routes in the table.</summary>
    public IReadOnlyList<ModelRoute> Routes { get; }

    /// <summary>Where a model name leads.</summary>
    /// <param name="model">The name.</param>
    /// <param name="scope">What may be asked for; null: everything.</param>
    public RouteAnswer Find(string model, RouteScope? scope = null)
    {
        if (!_answers.TryGetValue(model, out var whole))
            return new RouteAnswer(null, RouteMiss.NotFound, NamesIn(scope));
        // a route that is the answer to everybody is also the answer within a scope that has it
        if (scope is null or { IsAll: true } || (whole.Route is { } route && scope.Allows(route, model)))
            return whole;
        var answer = Answer(model, scope);
        return answer is { Route: null, Miss: RouteMiss.NotFound } && whole is not { Route: null, Miss: RouteMiss.NotFound }
            ? new RouteAnswer(null, RouteMiss.Forbidden, []) : answer;
    }

    /// <summary>Every name that leads to a deployment that runs or is started on demand, sorted.</summary>
    public IReadOnlyList<string> Names => field ??= Sorted(RouteScope.All);

    /// <summary>Every name in a scope that leads to a deployment that runs or is started on demand, sorted.</summary>
    /// <param name="scope">What may be asked for; null: everything.</param>
    public IReadOnlyList<string> NamesIn(RouteScope? scope) => scope is null or { IsAll: true } ? Names : Sorted(scope);

    private string[] Sorted(RouteScope scope) =>
    [
        .. Routes.Where(route => route.IsListed)
            .SelectMany(route => ((IEnumerable<string>)[route.PublicName, .. route.LoraNames]).Where(name => scope.Allows(route, name)))
            .Distinct().Order(StringComparer.Ordinal),
    ];

    private RouteAnswer Answer(string name, RouteScope scope)
    {
        var matches = _tiers.Select(tier => tier.TryGetValue(name, out var routes) ? routes.Where(route => scope.Allows(route, name)).ToArray() : []).ToArray();
        foreach (var tier in matches)
        {
            var routable = tier.Where(route => route.IsRoutable).ToArray();
            if (routable.Length == 1)
                return new RouteAnswer(routable[0], default, []);
            if (routable.Length > 1)
                return new RouteAnswer(null, RouteMiss.Ambiguous, [.. routable.Select(r => r.PublicName).Distinct().Order(StringComparer.Ordinal)]);
        }
        var held = matches.SelectMany(tier => tier).ToArray();
        var isComing = held.Any(route => route.IsComing);
        if (!isComing && Array.Find(matches, tier => tier.Any(route => route.IsStartable)) is { } resting)
            return ToStart([.. resting.Where(route => route.IsStartable)]);
        var miss = isComing ? RouteMiss.Loading
            : held.Any(route => route.Status is DeploymentStatus.Unreachable) ? RouteMiss.Unreachable
            : RouteMiss.NotFound;
        return new RouteAnswer(null, miss, miss == RouteMiss.NotFound ? NamesIn(scope) : []);
    }

    // of one name on several nodes one is enough; several names are as several that run
    private static RouteAnswer ToStart(ModelRoute[] resting) =>
        resting.Select(route => route.PublicName).Distinct().Order(StringComparer.Ordinal).ToArray() is { Length: > 1 } names
            ? new RouteAnswer(null, RouteMiss.Ambiguous, names)
            : new RouteAnswer(null, RouteMiss.Loading, []) { Startable = resting };

    private FrozenDictionary<string, ModelRoute[]> ByName(Func<ModelRoute, IEnumerable<string>> names) =>
        Routes.SelectMany(route => names(route).Distinct().Select(name => (name, route)))
            .GroupBy(pair => pair.name, pair => pair.route, StringComparer.Ordinal)
            .ToFrozenDictionary(group => group.Key, group => group.ToArray(), StringComparer.Ordinal);
}
