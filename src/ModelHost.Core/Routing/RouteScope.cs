using System.Collections.Frozen;

namespace ModelHost.Core.Routing;

/// <summary>
/// What may be asked for: deployments by uid, and models by name. Both limits hold at once, and one that is null is none. A deployment is
/// within a limit of names by its served name or its model name, an adapter by a name of its own.
/// </summary>
public sealed class RouteScope
{
    private RouteScope(FrozenSet<string>? deployments, FrozenSet<string>? models) => (Deployments, Models) = (deployments, models);

    /// <summary>Everything.</summary>
    public static RouteScope All { get; } = new(null, null);

    /// <summary>Uids of the deployments; null: all. Empty: none.</summary>
    public FrozenSet<string>? Deployments { get; }

    /// <summary>Names of the models; null: all. Empty: none.</summary>
    public FrozenSet<string>? Models { get; }

    /// <summary>Whether nothing is left out.</summary>
    public bool IsAll => Deployments is null && Models is null;

    /// <summary>A scope of these deployments and models; null: no limit.</summary>
    public static RouteScope Of(IEnumerable<string>? deployments, IEnumerable<string>? models) => deployments is null && models is null
        ? All : new(deployments?.ToFrozenSet(StringComparer.Ordinal), models?.ToFrozenSet(StringComparer.Ordinal));

    /// <summary>Whether a deployment may be asked for by one of its names.</summary>
    public bool Allows(ModelRoute route, string name) => (Deployments is null || Deployments.Contains(route.DeploymentUid))
        && (Models is null || Models.Contains(name) || (route.IsOwnName(name) && (Models.Contains(route.ModelName) || Models.Contains(route.PublicName))));

    /// <summary>Whether everything in it is in another one as well.</summary>
    public bool IsWithin(RouteScope other) => IsWithin(Deployments, other.Deployments) && IsWithin(Models, other.Models);

    /// <summary>What is in both.</summary>
    public RouteScope LimitedTo(RouteScope other) => IsWithin(other) ? this : new(Both(Deployments, other.Deployments), Both(Models, other.Models));

    private static bool IsWithin(FrozenSet<string>? inner, FrozenSet<string>? outer) => outer is null || (inner is not null && inner.All(outer.Contains));

    private static FrozenSet<string>? Both(FrozenSet<string>? a, FrozenSet<string>? b) =>
        a is null ? b : b is null ? a : a.Where(b.Contains).ToFrozenSet(StringComparer.Ordinal);
}
