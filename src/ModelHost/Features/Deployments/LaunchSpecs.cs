using System.Text.Json;
using ModelHost.Core.Deployments;
using ModelHost.Features.Backends;

namespace ModelHost.Features.Deployments;

/// <summary>Makes launch specs of requests.</summary>
internal static class LaunchSpecs
{
    /// <summary>The values of the variables; of a name given twice the last one counts.</summary>
    public static Dictionary<string, string> Variables(this DeploymentFields request) =>
        (request.EnvVars ?? []).GroupBy(v => v.Key!).ToDictionary(g => g.Key, g => g.Last().Value!);

    /// <summary>What a checked request asks for.</summary>
    public static LaunchSpec From(DeploymentFields request, LaunchRecipe recipe, string runtime) => new()
    {
        Backend = recipe.Recipe.Name,
        Recipe = recipe.Carried,
        Runtime = runtime,
        ModelName = request.ModelName!,
        Port = request.Port!.Value,
        GpuMemoryFraction = request.GpuMemoryFraction!.Value,
        GpuIds = request.GpuIds ?? [],
        TensorParallelSize = request.TensorParallelSize,
        ExtraArgs = request.ExtraArgs ?? [],
        EnvVarKeys = [.. request.Variables().Keys],
        EngineVersion = request.VllmVersion is { Length: > 0 } version ? version : recipe.Version is { Length: > 0 } installed ? installed : null,
        EngineArgs = request.EngineArgs ?? new Dictionary<string, JsonElement>(),
        ExtraPackages = request.ExtraPackages ?? [],
        LoraModules = request.LoraModules ?? [],
        MaxFailedRestarts = request.MaxFailedRestarts,
        Owner = request.Owner ?? "",
        DurationSeconds = request.DurationSeconds,
        Pinned = request.Pinned,
        StartOnDemand = request.StartOnDemand,
    };
}
