namespace ModelHost.Simulator.Options;

/// <summary>The releases of vLLM that have something: from <paramref name="From"/> on, and before <paramref name="Before"/>.</summary>
internal sealed record Lifespan(Version? From = null, Version? Before = null)
{
    public static Lifespan Always { get; } = new();

    public static Lifespan Since(string version) => new(Version.Parse(version));

    public static Lifespan Until(string version) => new(Before: Version.Parse(version));

    public static Lifespan Between(string since, string until) => new(Version.Parse(since), Version.Parse(until));
}

/// <summary>The release of vLLM to be.</summary>
/// <param name="name">Its number, with or without a <c>v</c> and a suffix. Without a number (<c>nightly</c>) it is the default one.</param>
internal sealed class Release(string name)
{
    /// <summary>The release whose behaviour is known best.</summary>
    public const string Default = "0.28.0";

    private readonly Version _version = Version.TryParse(name.TrimStart('v').Split('-', '+', 'r')[0], out var parsed) ? parsed : Version.Parse(Default);

    public bool Has(Lifespan lifespan) => (lifespan.From is null || _version >= lifespan.From) && (lifespan.Before is null || _version < lifespan.Before);

    /// <summary>The minor release before this one, as <c>--show-hidden-metrics-for-version</c> names it.</summary>
    public string Previous => $"{_version.Major}.{Math.Max(0, _version.Minor - 1)}";
}
