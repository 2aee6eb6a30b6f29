using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using ModelHost.Common;
using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Nodes;

namespace ModelHost.Features.Deployments;

/// <summary>Exports what makes a deployment reproducible, and starts deployments from it.</summary>
internal sealed class DeploymentManifests(Database database, NodeRegistry nodes, DeploymentStarts starts, IOptions<JsonOptions> json)
{
    private const string Root = "manifest";

    // where the fields of a start come from
    private static readonly Dictionary<string, string> Origins = new()
    {
        ["model_name"] = $"{Root}.model",
        ["gpu_memory_fraction"] = $"{Root}.gpu.memory_fraction",
        ["gpu_ids"] = $"{Root}.gpu.ids",
        ["tensor_parallel_size"] = $"{Root}.gpu.tensor_parallel_size",
        ["extra_args"] = $"{Root}.extra_args",
        ["engine_args"] = $"{Root}.engine_args",
        ["lora_modules"] = $"{Root}.lora_modules",
        ["vllm_version"] = $"{Root}.vllm_version",
        ["backend"] = $"{Root}.backend",
    };

    // a field that this build does not know may change what is started
    private readonly JsonSerializerOptions _strict = new(json.Value.SerializerOptions) { UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow };

    /// <summary>The manifest of a deployment; values of variables are not in it.</summary>
    public async Task<Result<DeploymentManifest>> ExportAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        if (await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken) is not { } row)
            return DeploymentFailures.NotFound(id);
        if (LaunchSpec.FromJson(row.Spec) is not { } spec)
            return DeploymentFailures.Unreadable(id);
        var hostname = await db.Nodes.Where(n => n.Id == row.NodeId).Select(n => n.Hostname).FirstOrDefaultAsync(cancellationToken);
        return new DeploymentManifest
        {
            DeploymentId = row.Id,
            Model = spec.ModelName,
            ServedModelName = Copy(spec.EngineArgs, "served_model_name"),
            Revision = Copy(spec.EngineArgs, "revision"),
            Seed = Copy(spec.EngineArgs, "seed"),
            VllmVersion = row.EngineVersion is { Length: > 0 } ? row.EngineVersion : spec.EngineVersion,
            ImageDigest = row.ImageDigest,
            ContainerRuntime = spec.Runtime,
            Backend = spec.Backend,
            EngineArgs = spec.EngineArgs,
            ExtraArgs = spec.ExtraArgs,
            ExtraPackages = spec.ExtraPackages,
            LoraModules = spec.LoraModules,
            EnvVarKeys = spec.EnvVarKeys,
            Gpu = new ManifestGpu
            {
                Ids = spec.GpusChosen ? [] : spec.GpuIds,
                MemoryFraction = spec.GpuMemoryFraction,
                TensorParallelSize = spec.TensorParallelSize,
                Names = GpuNames(row.NodeId, spec.GpuIds),
            },
            Node = hostname is null ? null : new ManifestNode(hostname),
            Owner = spec.Owner.Length > 0 ? spec.Owner : null,
            CreatedAt = row.CreatedAt,
            DurationSeconds = spec.DurationSeconds,
            StartOnDemand = row.StartOnDemand,
            Status = row.Status.ToWire(),
        };
    }

    /// <summary>Starts what a manifest describes, where the request says; every check of a start holds.</summary>
    public async Task<Result<DeploymentRead>> ImportAsync(DeploymentFromManifest request, IdempotencyClaim claim, CancellationToken cancellationToken)
    {
        if (DeploymentRules.Unknown(request) is { } unknown)
            return unknown;
        if (!Read(request.Manifest!.Value).TryGet(out var manifest, out var fault))
            return fault;
        var start = new DeploymentStart
        {
            NodeId = request.NodeId,
            Port = request.Port,
            Owner = request.Owner,
            DurationSeconds = request.DurationSeconds,
            EnvVars = request.EnvVars,
            SkipResourceCheck = request.SkipResourceCheck,
            StartOnDemand = manifest.StartOnDemand ?? false,
            ModelName = manifest.Model,
            VllmVersion = manifest.VllmVersion,
            Backend = manifest.Backend,
            EngineArgs = manifest.EngineArgs,
            ExtraArgs = manifest.ExtraArgs,
            ExtraPackages = manifest.ExtraPackages,
            LoraModules = manifest.LoraModules,
            GpuMemoryFraction = manifest.Gpu!.MemoryFraction,
            GpuIds = manifest.Gpu.Ids is { Count: > 0 } ids ? ids : null,
            TensorParallelSize = manifest.Gpu.TensorParallelSize,
        };
        if (Problems.Check(start) is { } invalid)
            return Rename(invalid);
        return (await starts.StartAsync(start, claim, cancellationToken)).Match<Result<DeploymentRead>>(started => started, failure => Rename(failure));
    }

    /// <summary>Reads a manifest; the version comes first, since another one may mean other things by the same names.</summary>
    private Result<DeploymentManifest> Read(JsonElement element)
    {
        if (element.ValueKind != JsonValueKind.Object)
            return Failure.Invalid(Root, "is no JSON object");
        if (!element.TryGetProperty("manifest_version", out var version))
            return Missing("manifest_version");
        if (version.ValueKind != JsonValueKind.Number || !version.TryGetInt32(out var number) || number != DeploymentManifest.CurrentVersion)
            return Failure.Invalid($"{Root}.manifest_version", $"is not {DeploymentManifest.CurrentVersion}, the one version that this build reads");
        DeploymentManifest manifest;
        try
        {
            manifest = element.Deserialize<DeploymentManifest>(_strict)!;
        }
        catch (JsonException e)
        {
            var path = e.Path is { Length: > 2 } at && at.StartsWith("$.", StringComparison.Ordinal) ? $"{Root}.{at[2..]}" : Root;
            return Failure.Invalid(path.Length <= 255 ? path : path[..255], "is no field of a manifest, is null, or has the wrong type");
        }
        if (string.IsNullOrEmpty(manifest.Model))
            return Missing("model");
        if (manifest.Gpu is null)
            return Missing("gpu");
        if (manifest.Gpu.MemoryFraction is null)
            return Missing("gpu.memory_fraction");
        return Contradiction(manifest) is { } contradiction ? contradiction : manifest;
    }

    // whoever changes one of the copies expects the deployment to change
    private static Failure? Contradiction(DeploymentManifest manifest)
    {
        foreach (var (name, copy) in (ReadOnlySpan<(string, JsonElement?)>)
            [("served_model_name", manifest.ServedModelName), ("revision", manifest.Revision), ("seed", manifest.Seed)])
        {
            if (copy is { ValueKind: not JsonValueKind.Null } given
                && (manifest.EngineArgs?.TryGetValue(name, out var original) != true || given.GetRawText() != original.GetRawText()))
                return Failure.Invalid($"{Root}.{name}", $"is not what engine_args.{name} says, which is what counts");
        }
        return null;
    }

    private string[] GpuNames(int nodeId, IReadOnlyList<int> ids) =>
        [.. nodes.Find(nodeId)?.LastReport?.Gpus.Where(gpu => ids.Count == 0 || ids.Contains(gpu.Index)).Select(gpu => gpu.Name) ?? []];

    private static JsonElement? Copy(IReadOnlyDictionary<string, JsonElement> arguments, string name) =>
        arguments.TryGetValue(name, out var value) ? value : null;

    private static Failure Missing(string field) => Failure.Invalid($"{Root}.{field}", "is required");

    private static Failure Rename(Failure failure)
    {
        var (name, rest) = failure.Field?.IndexOf('[', StringComparison.Ordinal) is { } at and > 0 ? (failure.Field[..at], failure.Field[at..]) : (failure.Field, "");
        return name is not null && Origins.TryGetValue(name, out var origin) ? failure with { Field = origin + rest } : failure;
    }
}
