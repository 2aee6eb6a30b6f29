using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Core.Deployments;

namespace ModelHost.Core.Backends;

/// <summary>The arguments with which a recipe starts an engine.</summary>
public static class EngineCommandLine
{
    /// <summary>
    /// Renders the arguments: those of the recipe, the parallel size, the engine options in the order given, the adapters, and the
    /// extra arguments last. Always an argument array, never a shell line.
    /// </summary>
    /// <param name="recipe">How this engine takes its options.</param>
    /// <param name="spec">What is wanted.</param>
    /// <param name="enginePort">Loopback port the engine listens on.</param>
    public static IReadOnlyList<string> Arguments(BackendRecipe recipe, LaunchSpec spec, int enginePort)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(spec);
        var arguments = new List<string>();
        foreach (var argument in recipe.Arguments)
        {
            if (argument == "{served_names}")
            {
                arguments.Add(spec.PublicName);
                // so that a request that names the model and not its public name is answered as well
                if (spec.ModelName != spec.PublicName)
                    arguments.Add(spec.ModelName);
            }
            else
                arguments.Add(argument
                    .Replace("{engine_port}", enginePort.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)
                    .Replace("{gpu_memory_fraction}", spec.GpuMemoryFraction.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)
                    .Replace("{served_name}", spec.PublicName, StringComparison.Ordinal)
                    .Replace("{model}", spec.ModelName, StringComparison.Ordinal));
        }
        if (spec.TensorParallelSize is { } size && recipe.TensorParallel.Length > 0)
            arguments.AddRange([recipe.TensorParallel, size.ToString(CultureInfo.InvariantCulture)]);
        foreach (var (name, value) in spec.EngineArgs.Where(arg => !recipe.ControlOptions.Contains(arg.Key)))
            arguments.AddRange(Option(recipe, name, value));
        if (spec.LoraModules.Count > 0)
            arguments.AddRange([.. recipe.Lora, .. spec.LoraModules.Select(module => JsonSerializer.Serialize(module, LoraJson.Default.LoraModule))]);
        arguments.AddRange(spec.ExtraArgs);
        return arguments;
    }

    /// <summary>The arguments of one engine option; none for a value that is none.</summary>
    internal static string[] Option(BackendRecipe recipe, string name, JsonElement value)
    {
        var flag = "--" + name.Replace('_', '-');
        return value.ValueKind switch
        {
            JsonValueKind.Array when value.GetArrayLength() > 0 && OptionReader.Of(recipe).KindOf(flag) == OptionKind.Json => [flag, value.GetRawText()],
            JsonValueKind.True => [flag],
            JsonValueKind.False => recipe.OffByDefault.Contains(name.Replace('-', '_')) ? [] : ["--no-" + flag[2..]],
            JsonValueKind.String when value.GetString() is { Length: > 0 } text => Pair(flag, text),
            JsonValueKind.Number or JsonValueKind.Object => Pair(flag, value.GetRawText()),
            JsonValueKind.Array when value.GetArrayLength() > 0 =>
                [flag, .. value.EnumerateArray().Select(item => item.ValueKind == JsonValueKind.String ? item.GetString()! : item.GetRawText())],
            _ => [],
        };
    }

    // a value that begins with a dash would be read as an option of its own
    private static string[] Pair(string flag, string value) => value.StartsWith('-') ? [$"{flag}={value}"] : [flag, value];
}

// as an object: a name or path may then hold anything
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(LoraModule))]
internal sealed partial class LoraJson : JsonSerializerContext;
