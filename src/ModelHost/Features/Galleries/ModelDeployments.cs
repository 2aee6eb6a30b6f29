using System.Text.Json;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Core.Artifacts;
using ModelHost.Core.Deployments;
using ModelHost.Core.Galleries;
using ModelHost.Features.Backends;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;

namespace ModelHost.Features.Galleries;

/// <summary>What the deployment of a model is to be on a node.</summary>
/// <param name="Create">What is asked for.</param>
/// <param name="Backend">How its engine is started.</param>
/// <param name="Unused">What is said of the fields of the configuration that its backend has no use for; null: there are none.</param>
internal sealed record ModelWish(DeploymentCreate Create, LaunchRecipe Backend, string? Unused);

/// <summary>Makes deployments of installed models, and takes them away with them.</summary>
internal sealed class ModelDeployments(
    DeploymentReads reads, DeploymentStarts starts, DeploymentService deployments, NodeRegistry nodes, LiveSettings settings, IOptions<GalleryOptions> options, TimeProvider time)
    : IDisposable
{
    private const string Owner = "galleries";
    private const int LastPort = 65_535;
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(200);

    // from the choice of a port until it is recorded nobody else chooses one
    private readonly SemaphoreSlim _choosing = new(1);

    /// <summary>What the deployment of a model is to be; checked as far as that goes without asking its node.</summary>
    /// <param name="model">The model.</param>
    /// <param name="deploy">What was asked for.</param>
    /// <param name="variables">Values of its variables.</param>
    /// <param name="nodeId">Where.</param>
    /// <param name="backend">How its engine is started there.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async Task<Result<ModelWish>> DescribeAsync(
        ComposedModel model, ModelDeploy? deploy, Dictionary<string, string> variables, int nodeId, LaunchRecipe backend, CancellationToken cancellationToken)
    {
        if (nodes.Find(nodeId)?.LastReport is not { } report)
            return DeploymentFailures.NodeSilent($"{nodeId}");
        if (!Source(model, report.ModelsFolder).TryGet(out var source, out var none))
            return none;
        if (!ModelEngineOptions.Read(model, backend.Recipe, Folder(report.ModelsFolder, model)).TryGet(out var said, out none))
            return none;
        foreach (var (key, value) in deploy?.EngineArgs ?? new Dictionary<string, JsonElement>())
            ModelEngineOptions.Put(said.EngineArgs, key, value);
        var create = new DeploymentCreate
        {
            NodeId = nodeId,
            ModelName = source,
            Port = deploy?.Port ?? settings.Current.DefaultPort, // chosen when it is made
            GpuMemoryFraction = deploy?.GpuMemoryFraction ?? said.GpuMemoryFraction ?? settings.Current.DefaultGpuFraction,
            GpuIds = deploy?.GpuIds,
            TensorParallelSize = deploy?.TensorParallelSize ?? said.TensorParallelSize,
            Owner = string.IsNullOrWhiteSpace(deploy?.Owner) ? Owner : deploy.Owner,
            DurationSeconds = deploy?.DurationSeconds,
            Pinned = deploy?.Pinned ?? false,
            StartOnDemand = deploy?.StartOnDemand ?? true,
            VllmVersion = deploy?.VllmVersion,
            EngineArgs = said.EngineArgs,
            ExtraArgs = deploy?.ExtraArgs,
            LoraModules = deploy?.LoraModules,
            EnvVars = [.. variables.Select(variable => new EnvironmentVariable { Key = variable.Key, Value = variable.Value })],
            Backend = backend.Recipe.Name, // of one that stands for a backend of every build, that one's
        };
        return DeploymentRules.Check(create, backend.Recipe) is { } fault ? fault : new ModelWish(create, backend, said.Told(model.Backend));
    }

    /// <summary>Makes the deployment, unless one is there that is in use: that goes on as it is. One at rest makes way.</summary>
    /// <param name="wish">What it is to be.</param>
    /// <param name="port">The port that was asked for; null: the one it had, else a free one.</param>
    /// <param name="before">The one that was made before; null: none.</param>
    /// <param name="job">The job that makes it: run again, it finds what it made.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>Its id.</returns>
    public async Task<Result<int>> MakeAsync(ModelWish wish, int? port, int? before, string job, CancellationToken cancellationToken)
    {
        await _choosing.WaitAsync(cancellationToken);
        try
        {
            var create = wish.Create with { Port = port ?? await FreePortAsync(wish.Create.NodeId!.Value, before, cancellationToken) };
            return await MakeAsync(wish with { Create = create }, before, job, cancellationToken);
        }
        finally
        {
            _choosing.Release();
        }
    }

    private async Task<Result<int>> MakeAsync(ModelWish wish, int? before, string job, CancellationToken cancellationToken)
    {
        var create = wish.Create;
        var claim = new IdempotencyClaim($"job:{job}:{create.NodeId}", "job");
        int? replaced = null;
        if (before is { } id && (await reads.FindAsync(id, cancellationToken)).TryGet(out var known, out _))
        {
            if (!IsAtRest(known) || (known.Owner == create.Owner && SameSpec(known, create) && await IsRecipeAsync(id, wish.Backend, cancellationToken)))
                return await SetOnDemandAsync(id, known.StartOnDemand, create.StartOnDemand, cancellationToken) ?? (Result<int>)id;
            replaced = id;
        }
        if (!(await starts.RecordAsync(create, claim, cancellationToken)).TryGet(out var made, out var failure))
            return failure;
        // only now: where none can be recorded, the one that is there stays
        if (replaced is not { } old || old == made.Id || (await deployments.DeleteAsync(old, cancellationToken)).Failure is not { Kind: not FailureKind.NotFound } kept)
            return made.Id;
        await deployments.DeleteAsync(made.Id, cancellationToken);
        return kept;
    }

    /// <summary>Whether a deployment carries the recipe, and so the image, of what is installed now.</summary>
    private async Task<bool> IsRecipeAsync(int id, LaunchRecipe backend, CancellationToken cancellationToken) =>
        ((await reads.FindSpecAsync(id, cancellationToken))?.Recipe, backend.Carried) switch
        {
            (null, null) => true,
            ({ } known, { } now) => JsonElement.DeepEquals(known, now),
            _ => false,
        };

    /// <summary>Starts one that rests.</summary>
    public async Task<Failure?> StartAsync(int id, DeploymentCreate create, CancellationToken cancellationToken)
    {
        if (!(await reads.FindAsync(id, cancellationToken)).TryGet(out var known, out var gone))
            return gone;
        return !IsAtRest(known) ? null
            : (await starts.RestartAsync(id, new DeploymentRestart { Owner = create.Owner, DurationSeconds = create.DurationSeconds }, IdempotencyClaim.None, cancellationToken)).Failure;
    }

    /// <summary>Stops one, waits for its end as long as the settings say, and deletes its record. One that is gone already is fine, one that does not end stays.</summary>
    public async Task<Failure?> RemoveAsync(int id, CancellationToken cancellationToken)
    {
        if (!(await reads.FindAsync(id, cancellationToken)).TryGet(out var before, out _))
            return null;
        // or a request could start it again before it is deleted
        await SetOnDemandAsync(id, before.StartOnDemand, wish: false, cancellationToken);
        var failure = await StopAsync(id, cancellationToken);
        if (failure is null && (await deployments.DeleteAsync(id, cancellationToken)).Failure is { Kind: not FailureKind.NotFound } refused)
            failure = refused;
        if (failure is not null)
            await SetOnDemandAsync(id, before: false, before.StartOnDemand, cancellationToken);
        return failure;
    }

    private async Task<Failure?> StopAsync(int id, CancellationToken cancellationToken)
    {
        var until = time.GetUtcNow() + options.Value.StopPatience;
        while ((await reads.FindAsync(id, cancellationToken)).TryGet(out var known, out _) && !IsAtRest(known))
        {
            if (time.GetUtcNow() > until)
                return new Failure(FailureKind.Unavailable, "deployment.not_stopped", $"deployment {id} has not stopped within {options.Value.StopPatience:g}, and stays with its model and the files; it goes on stopping, so try again later");
            // asked again each time: a stop that nobody hears changes nothing
            if ((await deployments.StopAsync(id, cancellationToken)).Failure is { Kind: not FailureKind.NotFound } failure)
                return failure;
            if (DeploymentStatuses.FromWire(known.Status) == DeploymentStatus.Unreachable)
                return DeploymentFailures.NodeSilent($"{known.NodeId}");
            await Task.Delay(Poll, time, cancellationToken);
        }
        return null;
    }

    public void Dispose() => _choosing.Dispose();

    private async Task<Failure?> SetOnDemandAsync(int id, bool before, bool wish, CancellationToken cancellationToken) =>
        before == wish ? null : (await deployments.SetOnDemandAsync(id, new DeploymentOnDemand { StartOnDemand = wish }, cancellationToken)).Failure;

    private static bool IsAtRest(DeploymentRead deployment) =>
        DeploymentStatuses.FromWire(deployment.Status) is DeploymentStatus.Stopped or DeploymentStatus.Expired or DeploymentStatus.Error;

    // the same wish again keeps its record, with its id and its totals
    private static bool SameSpec(DeploymentRead known, DeploymentCreate wish) => known.ModelName == wish.ModelName && known.Backend == wish.Backend && known.Port == wish.Port && known.EnvVars!.Count == 0 && wish.EnvVars!.Count == 0
        && known.GpuMemoryFraction == wish.GpuMemoryFraction && known.TensorParallelSize == wish.TensorParallelSize && known.Pinned == wish.Pinned && known.DurationSeconds == wish.DurationSeconds
        && JsonSerializer.Serialize(known.EngineArgs) == JsonSerializer.Serialize(wish.EngineArgs) && (known.ExtraArgs ?? []).SequenceEqual(wish.ExtraArgs ?? [])
        && (known.LoraModules ?? []).SequenceEqual(wish.LoraModules ?? []) && (known.GpuIds ?? []).SequenceEqual(wish.GpuIds ?? []) && (known.VllmVersion ?? "") == (wish.VllmVersion ?? "");

    /// <summary>What the engine loads: a repository of Hugging Face, or what lies in the model's folder.</summary>
    private static Result<string> Source(ComposedModel model, string folder)
    {
        if (model.Files.Count == 0)
        {
            var named = ArtifactUri.Parse(model.Model).Match(uri => uri is ArtifactUri.HuggingFace { Path: "" } face ? face.Repository : model.Model, _ => model.Model);
            return named.Length > 0 ? named : Failure.Invalid("parameters.model", "the configuration names no model, and there are no files");
        }
        var own = Folder(folder, model);
        var inside = model.Files.FirstOrDefault(file => file.Filename == model.Model || file.Filename.StartsWith(model.Model + "/", StringComparison.Ordinal));
        return model.Model.Length > 0 && inside is not null ? $"{own}/{model.Model}"
            : model is { Files: [{ Filename: { Length: > 0 } only }] } && only.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase) ? $"{own}/{only}" : own;
    }

    private static string Folder(string models, ComposedModel model) => $"{models}/{GalleryNames.ToFolder(model.Name)}";

    // one that is made anew keeps its port, which clients may know, unless another has it too
    private async Task<int> FreePortAsync(int nodeId, int? before, CancellationToken cancellationToken)
    {
        var all = (await reads.ListAsync(new DeploymentQuery { NodeId = nodeId }, cancellationToken)).Match(page => page.Deployments, _ => []);
        var taken = all.Where(deployment => deployment.Id != before).Select(deployment => deployment.Port).ToHashSet();
        if (all.FirstOrDefault(deployment => deployment.Id == before) is { } known && !taken.Contains(known.Port))
            return known.Port;
        var port = settings.Current.DefaultPort;
        while (taken.Contains(port) && port < LastPort)
            port++;
        return port;
    }
}
