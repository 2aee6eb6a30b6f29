namespace ModelHost.Core.Backends;

/// <summary>The runtimes that start engines as containers, from the same images.</summary>
public static class ContainerRuntimes
{
    /// <summary>Docker Engine.</summary>
    public const string Docker = "docker";

    /// <summary>Podman, through its socket.</summary>
    public const string Podman = "podman";

    /// <summary>All of them, in the order in which they are taken where nothing else decides.</summary>
    public static IReadOnlyList<string> All { get; } = [Docker, Podman];

    /// <summary>Whether one is among some runtimes.</summary>
    public static bool AreIn(IEnumerable<string> runtimes) => runtimes.Any(All.Contains);
}
