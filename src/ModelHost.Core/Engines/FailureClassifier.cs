using System.Collections.Concurrent;
using System.Text.RegularExpressions;
using ModelHost.Core.Backends;

namespace ModelHost.Core.Engines;

/// <summary>Why an engine ended.</summary>
/// <param name="Code">Stable name of the cause.</param>
/// <param name="Message">What happened, what helps, and the last lines of the log.</param>
/// <param name="IsFinal">Whether another run would fail as this one did.</param>
public sealed record EngineFailure(string Code, string Message, bool IsFinal = false);

/// <summary>Finds the cause of an engine's end in its log.</summary>
public static class FailureClassifier
{
    /// <summary>Number of last lines that are searched.</summary>
    public const int SearchedLines = 300;

    private const int ShownLines = 8;
    private const int ShownLength = 400;
    private const int ShownMessage = 4000;

    private static readonly ConcurrentDictionary<string, Regex> Patterns = new();

    /// <summary>Classifies an end; the rules are tried in the recipe's order, and the first match wins.</summary>
    /// <param name="recipe">Holds the rules.</param>
    /// <param name="lastLines">The last lines of the log, oldest first.</param>
    /// <param name="exitCode">Exit code of the process; null: unknown.</param>
    /// <param name="oomKilled">Whether the kernel ended it for lack of memory.</param>
    public static EngineFailure Classify(BackendRecipe recipe, IReadOnlyList<string> lastLines, int? exitCode, bool oomKilled = false)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(lastLines);
        var searched = lastLines.Skip(Math.Max(0, lastLines.Count - SearchedLines)).ToArray();
        var found = recipe.Failures.FirstOrDefault(rule => rule.Patterns.Any(pattern => searched.Any(Compiled(pattern).IsMatch)));
        var (code, message) = found is not null ? (found.Code, found.Message)
            : oomKilled || exitCode == 137 ? ("killed", "The engine was killed (exit code 137), most likely because the node ran out of memory.")
            : exitCode is { } known ? ("engine_exited", $"The engine ended with exit code {known}.")
            : ("engine_exited", "The engine ended.");
        return new EngineFailure(code, message + Tail(searched), found is { Final: true });
    }

    /// <summary>Why an engine could not even be started. What a runtime refuses it refuses again.</summary>
    /// <param name="recipe">Holds the rules, some of which are texts of the runtime.</param>
    /// <param name="message">What the runtime said.</param>
    public static EngineFailure ClassifyLaunch(BackendRecipe recipe, string message)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        var rule = recipe.Failures.FirstOrDefault(rule => rule.Patterns.Any(pattern => Compiled(pattern).IsMatch(message)));
        return rule is null ? new EngineFailure("launch_failed", message, IsFinal: true) : new EngineFailure(rule.Code, $"{rule.Message} ({message})", IsFinal: true);
    }

    /// <summary>Why an engine that runs could not load its model.</summary>
    /// <param name="recipe">Holds the rules.</param>
    /// <param name="message">What the engine said; it is shown, and what it refuses it refuses again.</param>
    public static EngineFailure ClassifyLoad(BackendRecipe recipe, string message)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(message);
        var shown = message.Length <= ShownMessage ? message : message[..ShownMessage] + "…";
        var rule = recipe.Failures.FirstOrDefault(rule => rule.Patterns.Any(pattern => Compiled(pattern).IsMatch(shown)));
        return rule is null ? new EngineFailure("load_failed", $"The backend could not load the model: {shown}", IsFinal: true)
            : new EngineFailure(rule.Code, $"{rule.Message} ({shown})", rule.Final);
    }

    private static Regex Compiled(string pattern) =>
        // log text is the engine's: a pattern must not take longer for a line made to hurt
        Patterns.GetOrAdd(pattern, static p => new Regex(p, RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.NonBacktracking));

    private static string Tail(string[] lines)
    {
        var shown = lines.Where(line => !string.IsNullOrWhiteSpace(line)).TakeLast(ShownLines)
            .Select(line => line.Length <= ShownLength ? line : line[..ShownLength] + "…").ToArray();
        return shown.Length == 0 ? "" : " Last log lines:\n" + string.Join('\n', shown);
    }
}
