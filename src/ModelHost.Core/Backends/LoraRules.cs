using System.Globalization;
using System.Text.Json;
using ModelHost.Core.Deployments;

namespace ModelHost.Core.Backends;

/// <summary>What adapters a deployment may have, and which of their options go together.</summary>
public static class LoraRules
{
    private const string Field = "lora_modules";

    /// <summary>Looks for what cannot be.</summary>
    /// <param name="modelName">The base model.</param>
    /// <param name="modules">The adapters.</param>
    /// <param name="engineArgs">Options by name, of which those for adapters are judged.</param>
    /// <returns>The first fault found, or null.</returns>
    public static Failure? Check(string modelName, IReadOnlyList<LoraModule> modules, IReadOnlyDictionary<string, JsonElement> engineArgs)
    {
        ArgumentNullException.ThrowIfNull(modules);
        ArgumentNullException.ThrowIfNull(engineArgs);
        return modules.Select(module => Module(modelName, module)).FirstOrDefault(fault => fault is not null)
            ?? (modules.Select(module => module.Name).Distinct().Count() < modules.Count ? Failure.Invalid(Field, "names a module twice") : null)
            ?? Options(modules.Count > 0, engineArgs);
    }

    /// <summary>Whether a text can be a name under which requests ask for a model.</summary>
    public static bool IsPublicName(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return name.Length is > 0 and <= ModelSource.MaxLength && name[0] != '-' && !name.Any(c => char.IsControl(c) || char.IsWhiteSpace(c));
    }

    private static Failure? Module(string modelName, LoraModule module)
    {
        if (module is null || module.Name is null || module.Path is null)
            return Failure.Invalid(Field, "every module needs a name and a path");
        if (!IsPublicName(module.Name) || module.Name.Contains('=', StringComparison.Ordinal))
            return Failure.Invalid(Field, "a name is empty, too long, begins with a dash, or holds '=', blanks or control characters");
        if (module.Name == modelName)
            return Failure.Invalid(Field, "an adapter has the name of the model");
        return ModelSource.Fault(module.Path) is { } fault ? Failure.Invalid(Field, $"the path of '{module.Name}' {fault}") : null;
    }

    private static Failure? Options(bool hasModules, IReadOnlyDictionary<string, JsonElement> engineArgs)
    {
        var given = engineArgs.Where(arg => arg.Value.ValueKind is not (JsonValueKind.Null or JsonValueKind.Undefined))
            .GroupBy(arg => arg.Key.Replace('-', '_')).ToDictionary(group => group.Key, group => group.Last().Value);
        if (hasModules && given.GetValueOrDefault("enable_lora").ValueKind == JsonValueKind.False)
            return Failure.Invalid("engine_args", "enable_lora is false, and lora_modules are given");
        foreach (var name in (string[])["max_loras", "max_cpu_loras", "max_lora_rank"])
        {
            if (given.TryGetValue(name, out var value) && Count(value) is not >= 1)
                return Failure.Invalid("engine_args", $"{name} is no whole number above 0");
        }
        return Count(given.GetValueOrDefault("max_cpu_loras")) < (Count(given.GetValueOrDefault("max_loras")) ?? 1)
            ? Failure.Invalid("engine_args", "max_cpu_loras is below max_loras") : null;
    }

    private static int? Count(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Number => value.TryGetInt32(out var number) ? number : null,
        JsonValueKind.String => int.TryParse(value.GetString(), NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : null,
        _ => null,
    };
}
