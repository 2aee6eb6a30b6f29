using System.Collections.Concurrent;
using System.Text.RegularExpressions;
using ModelHost.Core.Backends;

namespace ModelHost.Core.Engines;

/// <summary>Why an engine ended.</summary>
/// <param name="Code">Stable name of the cause.</param>
/// <param name="Message">What happened, what helps, the line of the log that tells the cause, and the last ones.</param>
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
        var found = recipe.Failures.FirstOrDefault(rule => searched.Any(line => Matches(rule, line)));
        var (code, message) = found is not null ? (found.Code, found.Message)
            : oomKilled || exitCode == 137 ? ("killed", "The engine was killed (exit code 137), most likely because the node ran out of memory.")
            : exitCode is { } known ? ("engine_exited", $"The engine ended with exit code {known}.")
            : ("engine_exited", "The engine ended.");
        return new EngineFailure(code, message + Quote(searched, found), found is { Final: true });
    }

    /// <summary>Why an engine could not even be started. What a runtime refuses it refuses again.</summary>
    /// <param name="recipe">Holds the rules, some of which are texts of the runtime.</param>
    /// <param name="message">What the runtime said.</param>
    public static EngineFailure ClassifyLaunch(BackendRecipe recipe, string message)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        var rule = recipe.Failures.FirstOrDefault(rule => Matches(rule, message));
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
        var rule = recipe.Failures.FirstOrDefault(rule => Matches(rule, shown));
        return rule is null ? new EngineFailure("load_failed", $"The backend could not load the model: {shown}", IsFinal: true)
            : new EngineFailure(rule.Code, $"{rule.Message} ({shown})", rule.Final);
    }

    private static Regex Compiled(string pattern) =>
        // log text is the engine's: a pattern must not take longer for a line made to hurt
        Patterns.GetOrAdd(pattern, static p => new Regex(p, RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.NonBacktracking));

    private static bool Matches(FailureRule rule, string text) => rule.Patterns.Any(pattern => Compiled(pattern).IsMatch(text));

    // the line that tells the cause is often not among the last: stack traces of other processes follow it, and a container's two outputs interleave
    private static string Quote(string[] lines, FailureRule? cause)
    {
        var last = lines.Select((line, at) => (line, at)).Where(line => !string.IsNullOrWhiteSpace(line.line)).TakeLast(ShownLines).ToArray();
        if (last.Length == 0)
            return "";
        var causeAt = cause is null ? -1 : Array.FindLastIndex(lines, line => Matches(cause, line));
        string[] earlier = causeAt >= 0 && causeAt < last[0].at ? [lines[causeAt], "…"] : [];
        return " Last log lines:\n" + string.Join('\n', earlier.Concat(last.Select(line => line.line)).Select(Short));
    }

    private static string Short(string line) => line.Length <= ShownLength ? line : line[..ShownLength] + "…";
}
