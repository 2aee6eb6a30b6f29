namespace ModelHost.Core.Nodes;

/// <summary>Which runtime of a node starts an engine.</summary>
public static class RuntimeChoice
{
    /// <summary>Chooses one.</summary>
    /// <param name="usable">Runtimes that can start the engine, best first.</param>
    /// <param name="available">Runtimes that the node has.</param>
    /// <param name="preferred">Decide where several are possible, the first before the others; null says nothing.</param>
    /// <returns>The first preferred one that is possible, else the first that is; null: none is.</returns>
    public static string? Choose(IEnumerable<string> usable, IEnumerable<string> available, params IReadOnlyList<string?> preferred)
    {
        var possible = usable.Intersect(available).ToArray();
        return preferred.FirstOrDefault(possible.Contains) ?? possible.FirstOrDefault();
    }
}
