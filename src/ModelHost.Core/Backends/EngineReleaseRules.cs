using System.Text.Json;
using ModelHost.Core.Engines;

namespace ModelHost.Core.Backends;

/// <summary>What a release of an engine does not have: found before anything starts, where the recipe knows it.</summary>
public static class EngineReleaseRules
{
    private const string Code = "deployment.option_unsupported";

    /// <summary>Looks for options and values that a version does not have. What the recipe does not know is left to the engine.</summary>
    /// <param name="recipe">Knows the options.</param>
    /// <param name="version">A version or image tag; of one that stands for no release nothing is known.</param>
    /// <param name="engineArgs">Options by name.</param>
    /// <param name="extraArgs">Further arguments.</param>
    /// <returns>The first that is missing, with the field it was given in (<c>engine_args.NAME</c> or <c>extra_args</c>); null: none.</returns>
    public static Failure? Check(
        BackendRecipe recipe, string version, IReadOnlyDictionary<string, JsonElement> engineArgs, IReadOnlyList<string> extraArgs)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(engineArgs);
        if (EngineImage.ReleaseOf(version) is not { } release)
            return null;
        foreach (var (name, value) in engineArgs.Where(arg => !recipe.ControlOptions.Contains(arg.Key)))
        {
            var rendered = EngineCommandLine.Option(recipe, name, value);
            if (rendered.Length > 0 && Missing(recipe, release, rendered) is { } missing)
                return new Failure(FailureKind.Invalid, Code, missing, $"engine_args.{name}");
        }
        return Missing(recipe, release, extraArgs) is { } fault ? new Failure(FailureKind.Invalid, Code, fault, "extra_args") : null;
    }

    private static string? Missing(BackendRecipe recipe, Version release, IReadOnlyList<string> arguments)
    {
        foreach (var option in OptionReader.Of(recipe).Read(arguments, out _))
        {
            var names = OptionReader.Of(recipe).Resolve(option.Name);
            var rules = names.Select(name => RuleOf(recipe, name)).ToArray();
            // an abbreviation stands for what the release has
            if (rules.Length > 0 && Array.TrueForAll(rules, rule => rule is not null && IsMissing(rule, release)))
                return Why(recipe, rules[0]!, release);
            if (names.Count == 1 && release <= EngineImage.ReleaseOf(recipe.KnownRelease)
                && recipe.Choices.GetValueOrDefault(names[0].TrimStart('-')) is { } choices && option.Values is [var value] && !choices.Contains(value))
                return $"{names[0]} may be {string.Join(", ", choices)} in {recipe.Name} {release}";
        }
        return null;
    }

    private static ReleaseOption? RuleOf(BackendRecipe recipe, string name) =>
        Array.Find(recipe.ReleaseOptions, rule => name == "--" + rule.Name || name == "--no-" + rule.Name);

    private static bool IsMissing(ReleaseOption rule, Version release) =>
        (EngineImage.ReleaseOf(rule.Since) is { } since && release < since) || (EngineImage.ReleaseOf(rule.Gone) is { } gone && release >= gone);

    private static string Why(BackendRecipe recipe, ReleaseOption rule, Version release) =>
        $"{recipe.Name} {release} has no option --{rule.Name}: "
        + (EngineImage.ReleaseOf(rule.Since) > release ? $"releases before {rule.Since} do not have it. " : $"releases from {rule.Gone} on do not have it. ")
        + rule.Instead;
}
