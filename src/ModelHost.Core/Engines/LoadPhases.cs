using ModelHost.Core.Backends;

namespace ModelHost.Core.Engines;

/// <summary>Reads the load phase off an engine's log.</summary>
public static class LoadPhases
{
    /// <summary>The phase that a line announces; null: it announces none.</summary>
    public static string? Detect(BackendRecipe recipe, string line)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        return recipe.Phases.FirstOrDefault(phase => Holds(phase.Contains, line))?.Detail;
    }

    /// <summary>Whether a line says that the engine is up.</summary>
    public static bool IsReady(BackendRecipe recipe, string line)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        return Holds(recipe.ReadyLines, line);
    }

    private static bool Holds(string[] texts, string line) =>
        texts.Any(text => line.Contains(text, StringComparison.OrdinalIgnoreCase));
}
