using System.Text.Json;
using System.Text.RegularExpressions;
using ModelHost.Core.Deployments;

namespace ModelHost.Core.Backends;

/// <summary>What a request may hand to an engine: options, arguments and variables that are ours are refused in every spelling.</summary>
public static partial class EngineRequestRules
{
    private const int MaxArguments = 256;
    private const int MaxLength = 16 * 1024;

    /// <summary>Looks for what may not be given.</summary>
    /// <returns>The first fault found, or null.</returns>
    public static Failure? Check(
        BackendRecipe recipe,
        IReadOnlyDictionary<string, JsonElement> engineArgs,
        IReadOnlyList<string> extraArgs,
        IEnumerable<KeyValuePair<string, string>> variables)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        return engineArgs.Select(arg => EngineArg(recipe, arg.Key, arg.Value)).FirstOrDefault(f => f is not null)
            ?? ExtraArgs(recipe, extraArgs)
            ?? variables.Select(variable => Variable(recipe, variable.Key, variable.Value)).FirstOrDefault(f => f is not null);
    }

    private static Failure? EngineArg(BackendRecipe recipe, string name, JsonElement value)
    {
        if (!IsOption(name))
            return Failure.Invalid("engine_args", $"'{Shown(name)}' is no option name");
        if (!IsText(value))
            return Failure.Invalid("engine_args", $"the value of '{name}' holds text that is not valid Unicode");
        if (recipe.ControlOptions.Contains(name))
            return name == "served_model_name" && value.ValueKind is not (JsonValueKind.String or JsonValueKind.Null)
                ? Failure.Invalid("engine_args", "served_model_name is not a string")
                : null;
        if (IsDenied(recipe, "--" + name))
            return Denied("engine_args", name);
        if (value.GetRawText().Length > MaxLength || HasControls(value))
            return Failure.Invalid("engine_args", $"the value of '{name}' is too long or holds control characters");
        if (recipe.IsFile(name) && value.ValueKind != JsonValueKind.Null && (value.ValueKind != JsonValueKind.String || ModelSource.Fault(value.GetString()!) is not null))
            return Failure.Invalid("engine_args", $"'{name}' names a file, by its plain absolute path");
        if (WrongKind(recipe, name, value) is { } wrong)
            return Failure.Invalid("engine_args", $"'{name}' {wrong}");
        // each item of a list is an argument of its own, and one that begins with a dash would be read as an option
        return value.ValueKind == JsonValueKind.Array && value.EnumerateArray().Any(item =>
                item.ValueKind is JsonValueKind.Array or JsonValueKind.Null
                || (item.ValueKind == JsonValueKind.String && (item.GetString()!.StartsWith('-') || HasControls(item))))
            ? Failure.Invalid("engine_args", $"a value in the list of '{name}' is null, a list, or begins with a dash")
            : null;
    }

    /// <summary>What is left over after an option would be read as the name of another model.</summary>
    private static string? WrongKind(BackendRecipe recipe, string name, JsonElement value) =>
        value.ValueKind == JsonValueKind.Null ? null : OptionReader.Of(recipe).KindOf(OptionReader.NameOf("--" + name)) switch
        {
            OptionKind.Switch => value.ValueKind is JsonValueKind.True or JsonValueKind.False ? null : "is true or false and takes no other value",
            OptionKind.Value => value.ValueKind is JsonValueKind.String or JsonValueKind.Number or JsonValueKind.Object ? null : "takes one text or number",
            OptionKind.Json => value.ValueKind is JsonValueKind.True or JsonValueKind.False ? "takes JSON, and neither true nor false" : null,
            OptionKind.List => value.ValueKind is JsonValueKind.True or JsonValueKind.False ? "takes texts, and neither true nor false" : null,
            OptionKind.Optional => value.ValueKind == JsonValueKind.Array ? "takes one text" : null,
            OptionKind.Unknown => null,
        };

    private static Failure? ExtraArgs(BackendRecipe recipe, IReadOnlyList<string> arguments)
    {
        if (arguments.Count > MaxArguments)
            return Failure.Invalid("extra_args", $"more than {MaxArguments} arguments");
        foreach (var argument in arguments)
        {
            if (argument is null || argument.Length > MaxLength || HasControls(argument))
                return Failure.Invalid("extra_args", "an argument is null, too long or holds control characters");
            if (IsDenied(recipe, argument))
                return Denied("extra_args", argument.Split('=')[0]);
        }
        // before the first option it would add to the list of names, which comes before; after a switch it would be the model
        OptionReader.Of(recipe).Read(arguments, out var stray);
        return stray is null ? null : Failure.Invalid(
            "extra_args", $"'{Shown(stray)}' is neither an option nor the value of the option before it: the engine would take it for a model. Options and values are arguments of their own");
    }

    private static Failure? Variable(BackendRecipe recipe, string name, string value)
    {
        if (name is null || !VariableName().IsMatch(name))
            return Failure.Invalid("env_vars", $"'{Shown(name ?? "null")}' is no variable name");
        if (recipe.DeniedVariables.Contains(name, StringComparer.OrdinalIgnoreCase))
            return Denied("env_vars", name);
        if (recipe.AllowedVariablePrefixes.Length > 0 && !recipe.AllowedVariablePrefixes.Any(prefix => name.StartsWith(prefix, StringComparison.Ordinal)))
            return Failure.Invalid("env_vars", $"'{name}' may not be set for backend '{recipe.Name}': only {string.Join("*, ", recipe.AllowedVariablePrefixes)}*");
        return value is null || value.Length > MaxLength || value.Contains('\0', StringComparison.Ordinal)
            ? Failure.Invalid("env_vars", $"the value of '{name}' is missing, too long or holds a NUL character")
            : null;
    }

    /// <summary>Whether a name can be that of an option in <c>engine_args</c>.</summary>
    internal static bool IsOption(string name) => OptionName().IsMatch(name);

    /// <summary>
    /// Whether an argument is a denied option: argparse takes <c>_</c> for <c>-</c>, <c>--name=value</c>, a dotted key, any
    /// abbreviation of an option, and a value glued to a short one.
    /// </summary>
    private static bool IsDenied(BackendRecipe recipe, string argument)
    {
        if (!argument.StartsWith('-'))
            return false;
        if (!argument.StartsWith("--", StringComparison.Ordinal))
        {
            var letters = argument[1..].Split('=')[0];
            return recipe.DeniedShortOptions.Any(denied => letters.StartsWith(denied, StringComparison.Ordinal) || denied.StartsWith(letters, StringComparison.Ordinal));
        }
        var name = argument[2..].Split('=', '.')[0].Replace('_', '-').ToLowerInvariant();
        if (name.Length == 0)
            return true; // "--" ends the options: what follows would be read as something else than it looks
        // a name that is an option's own abbreviates no other
        if (OptionReader.Of(recipe).IsWhole("--" + name) && !recipe.DeniedOptions.Any(denied => denied == name || "no-" + denied == name))
            return false;
        return recipe.DeniedOptions.Any(denied => denied.StartsWith(name, StringComparison.Ordinal) || ("no-" + denied).StartsWith(name, StringComparison.Ordinal));
    }

    private static Failure Denied(string field, string name) =>
        new(FailureKind.Invalid, "deployment.option_denied", $"'{Shown(name)}' is set by ModelHost and may not be given", field);

    private static bool HasControls(string text) => text.Any(c => char.IsControl(c) && c is not ('\n' or '\t'));

    private static bool HasControls(JsonElement value) => value.ValueKind == JsonValueKind.String && HasControls(value.GetString()!);

    // JSON may hold half of a surrogate pair or broken UTF-8, which shows only where it is read: it could be neither stored nor handed on
    private static bool IsText(JsonElement value)
    {
        try
        {
            using var writer = new Utf8JsonWriter(Stream.Null);
            value.WriteTo(writer);
            return true;
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException)
        {
            return false;
        }
    }

    private static string Shown(string text) => text.Length <= 64 ? text : text[..64] + "…";

    [GeneratedRegex(@"\A[A-Za-z][A-Za-z0-9_-]{0,63}\z")]
    private static partial Regex OptionName();

    [GeneratedRegex(@"\A[A-Za-z_][A-Za-z0-9_]{0,127}\z")]
    private static partial Regex VariableName();
}
