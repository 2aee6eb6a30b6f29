using System.Collections.Concurrent;
using System.Globalization;
using System.Text.RegularExpressions;
using ModelHost.Core.Backends;

namespace ModelHost.Core.Engines;

/// <summary>Reads what an engine's GPU memory is for off its log.</summary>
public static class MemoryLines
{
    private const double Gib = 1024 * 1024 * 1024;
    private static readonly ConcurrentDictionary<string, Regex> Patterns = new();

    /// <summary>What a line tells of one GPU; null: nothing.</summary>
    public static (string Part, long Bytes)? Read(BackendRecipe recipe, string line)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        foreach (var rule in recipe.MemoryLines)
        {
            if (Compiled(rule.Pattern).Match(line) is { Success: true } match
                && double.TryParse(match.Groups[1].ValueSpan, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var gib) && gib < 1e6)
                return (rule.Part, (long)(gib * Gib));
        }
        return null;
    }

    private static Regex Compiled(string pattern) =>
        // log text is the engine's: a pattern must not take longer for a line made to hurt
        Patterns.GetOrAdd(pattern, static p => new Regex(p, RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.NonBacktracking));
}
