namespace ModelHost.Agent.Runtimes;

/// <summary>Where Podman listens by itself: <c>podman.socket</c> of the system, or of a user.</summary>
public static class PodmanSocket
{
    /// <summary>Looks for it; the system's comes first.</summary>
    /// <param name="folders">Folders of sockets, <c>/run</c> and the user's <c>XDG_RUNTIME_DIR</c>; null and empty are none.</param>
    /// <returns>Its path; null: it listens in none of them.</returns>
    public static string? Find(params IReadOnlyList<string?> folders) =>
        folders.Where(folder => folder is { Length: > 0 }).Select(folder => Path.Combine(folder!, "podman", "podman.sock")).FirstOrDefault(File.Exists);
}
