using System.Text.Json;
using System.Text.RegularExpressions;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;

namespace ModelHost.Features.Deployments;

/// <summary>What attributes cannot say about a request to start.</summary>
internal static partial class DeploymentRules
{
    private const int MaxName = 255;

    /// <summary>Checks everything that needs neither the node nor the database.</summary>
    /// <returns>The recipe, or the first fault.</returns>
    public static Result<BackendRecipe> Check(DeploymentFields request)
    {
        var backend = request.Backend ?? "vllm";
        if (!BackendCatalogue.BuiltIn.TryGetValue(backend, out var recipe))
            return Failure.Invalid("backend", $"is none of {string.Join(", ", BackendCatalogue.BuiltIn.Keys.Order())}");
        var fault = Unknown(request) ?? ModelName(request.ModelName!) ?? Version(request.VllmVersion) ?? Gpus(request.GpuIds) ?? Owner(request.Owner)
            ?? Lora(request.LoraModules ?? []) ?? Masked(request.EnvVars ?? [])
            ?? EngineRequestRules.Check(recipe, request.EngineArgs ?? new Dictionary<string, JsonElement>(), request.ExtraArgs ?? [], Variables(request.EnvVars ?? []))
            ?? ServedName(request.EngineArgs);
        return fault is null ? recipe : fault;
    }

    /// <summary>The variables as pairs; a missing item, name or value shows as null.</summary>
    private static IEnumerable<KeyValuePair<string, string>> Variables(IReadOnlyList<EnvironmentVariable> variables) =>
        variables.Select(variable => KeyValuePair.Create(variable?.Key!, variable?.Value!));

    /// <summary>Looks for fields that there are not: a misspelt gpu_ids that did nothing would be found out too late.</summary>
    public static Failure? Unknown(StrictRequest request) =>
        request.Unknown?.FirstOrDefault(field => !IsEmpty(field.Value)) is { Key: { } name }
            ? Failure.Invalid(name.Length <= MaxName ? name : name[..MaxName], "is no field of this request") : null;

    private static bool IsEmpty(JsonElement value) => value.ValueKind is JsonValueKind.Null or JsonValueKind.False
        || (value.ValueKind == JsonValueKind.String && value.ValueEquals(""u8))
        || (value.ValueKind == JsonValueKind.Array && value.GetArrayLength() == 0)
        || (value.ValueKind == JsonValueKind.Object && !value.EnumerateObject().Any());

    private static Failure? ModelName(string name) =>
        HubId().IsMatch(name) && !name.Contains("..", StringComparison.Ordinal) ? null
        : Failure.Invalid("model_name", "is no Hugging Face identifier such as organisation/model; paths are not taken");

    private static Failure? Version(string? version) =>
        string.IsNullOrEmpty(version) || EngineImage.IsValidVersion(version) ? null
        : Failure.Invalid("vllm_version", "is no version or image tag");

    private static Failure? Gpus(IReadOnlyList<int>? ids) =>
        ids?.FirstOrDefault(id => id < 0, 0) < 0 ? Failure.Invalid("gpu_ids", "holds a negative index") : null;

    /// <summary>Checks that an extension says one thing.</summary>
    public static Failure? Extension(DeploymentExtend request) => (request.Hours, request.Infinite) switch
    {
        (null, not true) => Failure.Invalid("hours", "is required, unless infinite is true"),
        (not null, true) => Failure.Invalid("infinite", "cannot be true beside hours"),
        _ => null,
    };

    /// <summary>Checks a name of an owner; none is fine here.</summary>
    public static Failure? Owner(string? owner) =>
        owner is not null && (owner.Any(char.IsControl) || string.IsNullOrWhiteSpace(owner)) ? Failure.Invalid("owner", "is blank or holds control characters") : null;

    // what was read from here and sent back would start the engine with asterisks for a token
    private static Failure? Masked(IReadOnlyList<EnvironmentVariable> variables) =>
        variables.FirstOrDefault(variable => variable?.Value == EnvironmentVariable.Mask) is { Key: { } key }
            ? Failure.Invalid("env_vars", $"the value of '{key[..Math.Min(key.Length, 64)]}' is the mask that answers show; give the value itself") : null;

    private static Failure? ServedName(IReadOnlyDictionary<string, JsonElement>? arguments) =>
        arguments?.GetValueOrDefault("served_model_name") is { ValueKind: JsonValueKind.String } name && !IsPublicName(name.GetString()!)
            ? Failure.Invalid("engine_args", "served_model_name is empty, too long, begins with a dash, or holds blanks or control characters") : null;

    private static Failure? Lora(IReadOnlyList<LoraModule> modules)
    {
        foreach (var module in modules)
        {
            if (module is null || module.Name is null || module.Path is null)
                return Failure.Invalid("lora_modules", "every module needs a name and a path");
            if (!IsPublicName(module.Name) || module.Name.Contains('=', StringComparison.Ordinal))
                return Failure.Invalid("lora_modules", "a name is empty, too long, begins with a dash, or holds '=', blanks or control characters");
            if (!HubId().IsMatch(module.Path) || module.Path.Contains("..", StringComparison.Ordinal))
                return Failure.Invalid("lora_modules", "a path is no Hugging Face identifier");
        }
        return modules.Select(module => module.Name).Distinct().Count() == modules.Count ? null : Failure.Invalid("lora_modules", "names a module twice");
    }

    private static bool IsPublicName(string name) =>
        name.Length is > 0 and <= MaxName && name[0] != '-' && !name.Any(c => char.IsControl(c) || char.IsWhiteSpace(c));

    [GeneratedRegex(@"\A[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._:-]{0,95})?\z")]
    private static partial Regex HubId();
}
