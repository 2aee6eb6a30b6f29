using System.Text.Json;
using ModelHost.Agent.Backends;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Core.Packages;
using ModelHost.Core.Routing;
using ModelHost.Features.Backends;

namespace ModelHost.Features.Deployments;

/// <summary>What attributes cannot say about a request to start.</summary>
internal static class DeploymentRules
{
    private const int MaxName = 255;

    /// <summary>Finds the recipe of a request, and checks everything that does not need its node.</summary>
    /// <returns>The recipe, or the first fault.</returns>
    public static async Task<Result<LaunchRecipe>> CheckAsync(this BackendRecipes recipes, DeploymentFields request, CancellationToken cancellationToken)
    {
        // the version comes into the name of an image
        if (Version(request.VllmVersion) is { } wrong)
            return wrong;
        if (!(await recipes.FindAsync(request.NodeId!.Value, request.Backend ?? "vllm", request.VllmVersion ?? "", cancellationToken)).TryGet(out var found, out var unknown))
            return unknown;
        return Check(request, found.Recipe) is { } fault ? fault : found;
    }

    /// <summary>Checks everything of a request that does not need its node, once the recipe is known.</summary>
    public static Failure? Check(DeploymentFields request, BackendRecipe recipe)
    {
        var engineArgs = request.EngineArgs ?? new Dictionary<string, JsonElement>();
        return Version(request.VllmVersion) ?? Unknown(request) ?? ModelName(request.ModelName!) ?? Gpus(request.GpuIds) ?? Owner(request.Owner)
            ?? Masked(request.EnvVars ?? [])
            ?? EngineRequestRules.Check(recipe, engineArgs, request.ExtraArgs ?? [], Variables(request.EnvVars ?? []))
            ?? LoraRules.Check(request.ModelName!, request.LoraModules ?? [], engineArgs) ?? CheckRelease(request, recipe, request.VllmVersion ?? "")
            ?? Grpc(recipe, request, engineArgs) ?? ServedName(request.EngineArgs) ?? Packages(recipe, request.ExtraPackages ?? []);
    }

    /// <summary>Checks the options of a request against the release that it will run on.</summary>
    /// <param name="request">The request.</param>
    /// <param name="recipe">Knows the options.</param>
    /// <param name="version">The release; empty: not known yet, and the node checks it at the start.</param>
    public static Failure? CheckRelease(DeploymentFields request, BackendRecipe recipe, string version) =>
        EngineReleaseRules.Check(recipe, version, request.EngineArgs ?? new Dictionary<string, JsonElement>(), request.ExtraArgs ?? []);

    /// <summary>Checks the paths of a launch against the folders that its node allows, and that of its installed models; whether they are there, the node sees at the start.</summary>
    public static Failure? CheckPaths(LaunchSpec spec, string hostname, IReadOnlyCollection<string> folders, string installed)
    {
        var files = BackendCatalogue.Of(spec)?.PathsOf(spec).Select(file => (Field: "engine_args", file.Path)) ?? [];
        var outside = spec.LoraModules.Select(module => (Field: "lora_modules", module.Path)).Prepend((Field: "model_name", Path: spec.ModelName)).Concat(files)
            .FirstOrDefault(source => ModelSource.IsPath(source.Path) && !folders.Append(installed).Any(folder => folder.Length > 0 && ModelSource.IsWithin(source.Path, folder)));
        return outside.Path is null ? null : Failure.Invalid(outside.Field, folders.Count == 0
            ? $"{outside.Path} is a path, and node {hostname} allows none (Node:ModelFolders)"
            : $"{outside.Path} is in none of the folders that node {hostname} allows (Node:ModelFolders: {string.Join(", ", folders)})");
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
        ModelSource.Fault(name) is { } fault ? Failure.Invalid("model_name", fault) : null;

    /// <summary>Checks a version; none is fine.</summary>
    public static Failure? Version(string? version) =>
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

    private static Failure? Packages(BackendRecipe recipe, IReadOnlyList<string> packages) =>
        packages.Count > 0 && recipe.InstallPackages.Length == 0 ? Failure.Invalid("extra_packages", $"backend '{recipe.Name}' takes no packages")
        : PackageSpec.ParseAll(packages).Failure;

    /// <summary>Checks what a gRPC backend is told when it loads its model; it has no command line, and one model.</summary>
    private static Failure? Grpc(BackendRecipe recipe, DeploymentFields request, IReadOnlyDictionary<string, JsonElement> engineArgs) =>
        recipe.Protocol != BackendCatalogue.Grpc ? null
        : request.ExtraArgs is { Count: > 0 } ? Failure.Invalid("extra_args", $"backend '{recipe.Name}' takes its options by engine_args alone")
        : request.LoraModules is { Count: > 0 } ? Failure.Invalid("lora_modules", $"backend '{recipe.Name}' serves no adapters by names of their own; use engine_args.lora_adapters")
        : !string.IsNullOrEmpty(request.VllmVersion) ? Failure.Invalid("vllm_version", $"backend '{recipe.Name}' has the version that is installed")
        : ModelLoad.Check(recipe, engineArgs) ?? GenerationDefaults.Check(engineArgs);

    private static Failure? ServedName(IReadOnlyDictionary<string, JsonElement>? arguments) =>
        arguments?.GetValueOrDefault("served_model_name") is { ValueKind: JsonValueKind.String } name && !LoraRules.IsPublicName(name.GetString()!)
            ? Failure.Invalid("engine_args", "served_model_name is empty, too long, begins with a dash, or holds blanks or control characters") : null;
}
