using YamlDotNet.Serialization;
using YamlDotNet.Serialization.NamingConventions;

namespace ModelHost.Features.Backends;

/// <summary>The backends that can be asked for by their names, whether they are installed or not.</summary>
internal static class KnownBackends
{
    private static readonly Lazy<IReadOnlyList<KnownBackend>> s_registry = new(Read);

    /// <summary>All of them by modality and name: of a name that is known more than once, the first; those that are installed and not known have no modality.</summary>
    /// <param name="installed">Names of what is installed.</param>
    public static IReadOnlyList<KnownBackendRead> List(IEnumerable<string> installed)
    {
        var here = installed.ToHashSet(StringComparer.Ordinal);
        var known = s_registry.Value.DistinctBy(one => one.Name).Select(one => new KnownBackendRead
        {
            Name = one.Name,
            Modality = one.Modality,
            AutoDetect = one.AutoDetect,
            Description = one.Description.Length > 0 ? one.Description : null,
            Installed = here.Remove(one.Name),
        }).ToList();
        known.AddRange(here.Select(name => new KnownBackendRead { Name = name, Modality = "", AutoDetect = false, Installed = true }));
        return [.. known.OrderBy(one => one.Modality, StringComparer.Ordinal).ThenBy(one => one.Name, StringComparer.Ordinal)];
    }

    private static List<KnownBackend> Read()
    {
        using var stream = typeof(KnownBackends).Assembly.GetManifestResourceStream("backends/known.yaml") ?? throw new InvalidOperationException("this build has no list of backends");
        using var reader = new StreamReader(stream);
        return new DeserializerBuilder().WithNamingConvention(UnderscoredNamingConvention.Instance).Build().Deserialize<List<KnownBackend>>(reader);
    }
}

/// <summary>A line of the registry.</summary>
internal sealed record KnownBackend
{
    public string Name { get; init; } = "";
    public string Modality { get; init; } = "";
    public bool AutoDetect { get; init; }
    public string Description { get; init; } = "";
}
