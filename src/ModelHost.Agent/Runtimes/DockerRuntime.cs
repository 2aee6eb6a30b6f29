using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using ModelHost.Agent.Backends;
using ModelHost.Agent.Engines;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Docker;

namespace ModelHost.Agent.Runtimes;

/// <summary>Runs engines as containers of Docker or Podman. The containers' labels are all it needs to find them again.</summary>
internal sealed class DockerRuntime(ContainerEngine engine, NodeOptions options, NodeIdentity identity, string cacheFolder, TimeProvider time) : IEngineRuntime
{
    internal const string ClusterLabel = "modelhost.cluster";
    internal const string DeploymentLabel = "modelhost.deployment";
    internal const string RunLabel = "modelhost.run";
    internal const string SpecLabel = "modelhost.spec";
    private const string PortLabel = "modelhost.engine_port";
    private const string ImageLabel = "modelhost.image";
    private const string LeaseLabel = "modelhost.lease";

    // the driver's own, and the cards: a list of ours, of which a recipe can only say that it wants it
    private static readonly string[] AmdDevices = ["/dev/kfd", "/dev/dri"];

    private static readonly TimeSpan CreateDeadline = TimeSpan.FromSeconds(60);

    private readonly DockerClient _docker = engine.Client;

    public string Name => engine.Name;

    public async Task<IReadOnlyList<EngineInstance>> ListAsync(IReadOnlySet<string> knownRuns, CancellationToken cancellationToken)
    {
        var labels = new Dictionary<string, string?> { [ClusterLabel] = identity.ClusterId };
        var found = await Ask(() => _docker.ListContainersAsync(labels, cancellationToken));
        var instances = new List<EngineInstance>();
        foreach (var summary in found.Where(summary => !knownRuns.Contains(summary.Labels.GetValueOrDefault(RunLabel, ""))))
        {
            if (await InspectAsync(summary.Id, cancellationToken) is not { } details)
                continue;
            var launched = LaunchSpec.FromJson(details.Labels.GetValueOrDefault(SpecLabel));
            // two endpoints can lead to one engine: podman-docker makes Docker's socket a link to Podman's
            if (launched is not null && launched.Runtime != Name)
                continue;
            var recipe = BackendCatalogue.Of(launched);
            if (recipe is null || !details.Labels.TryGetValue(DeploymentLabel, out var uid) || !details.Labels.TryGetValue(RunLabel, out var run)
                || !int.TryParse(details.Labels.GetValueOrDefault(PortLabel), NumberStyles.None, CultureInfo.InvariantCulture, out var port))
                continue; // made by a newer build, or by hand
            var variables = details.Env.Select(pair => pair.Split('=', 2)).Where(pair => pair.Length == 2).ToLookup(pair => pair[0], pair => pair[1]);
            var image = details.Labels.GetValueOrDefault(ImageLabel, details.ImageName);
            instances.Add(new EngineInstance(details.Id, uid, run, details.Labels[SpecLabel], port, variables[recipe.KeyVariable].LastOrDefault(""),
                image, await engine.Images.DigestAsync(details.Image, cancellationToken), VersionOf(image),
                [.. variables.SelectMany(pair => pair.SelectMany(value => Redactor.SecretsOf(pair.Key, value)))])
            {
                Env = EngineInstance.Named(details.Labels[SpecLabel], name => variables[name].LastOrDefault()),
                Lease = Lease.FromJson(details.Labels.GetValueOrDefault(LeaseLabel)),
            });
        }
        return instances;
    }

    public async Task<EngineInstance> LaunchAsync(EngineLaunch launch, Action<LaunchProgress> progress, CancellationToken cancellationToken)
    {
        new ModelFolders(options, identity).Resolve(launch.Spec); // before hours of pulling
        var image = await engine.Images.EnsureAsync(launch, progress, cancellationToken);
        var derived = await engine.Packages.EnsureAsync(launch, image, progress, cancellationToken);
        var digest = await engine.Images.DigestAsync(derived, cancellationToken);
        progress(new LaunchProgress("starting container", Line: $"[modelhost] starting a container of {derived}"));
        Directory.CreateDirectory(cacheFolder);
        var specJson = launch.Spec.ToJson();
        var spec = new ContainerSpec
        {
            Image = derived,
            // of a gRPC backend it is a folder's; its image starts itself
            Entrypoint = launch.Install is null && launch.Recipe.Command.Length > 0 ? launch.Recipe.Command : null,
            Command = EngineCommandLine.Arguments(launch.Recipe, launch.Spec, launch.EnginePort),
            Env = Variables(launch),
            Labels = new Dictionary<string, string>
            {
                [ClusterLabel] = identity.ClusterId,
                [DeploymentLabel] = launch.DeploymentUid,
                [RunLabel] = launch.RunId,
                [SpecLabel] = specJson,
                [PortLabel] = launch.EnginePort.ToString(CultureInfo.InvariantCulture),
                [ImageLabel] = image, // the engine's own: its tag tells the version
                [LeaseLabel] = launch.Lease.ToJson(), // as at the launch: what came later stands in the node's own record
            },
            Mounts =
            [
                .. launch.Recipe.CacheMount.Length > 0 ? [new BindMount(cacheFolder, launch.Recipe.CacheMount, ReadOnly: false)] : Array.Empty<BindMount>(),
                .. new ModelFolders(options, identity).Resolve(launch.Spec).Select(path => new BindMount(path, path, ReadOnly: true)),
                .. BackendMounts(launch),
            ],
            NetworkMode = "host",
            IpcMode = "host",
            // placement gives every engine on a node with GPUs some of them, so none means that there are none
            Gpus = launch.Spec.GpuIds.Count > 0
                ? new GpuRequest { DeviceIds = [.. launch.Spec.GpuIds.Select(id => id.ToString(CultureInfo.InvariantCulture))] } : null,
            Devices = launch.Recipe.Device == "amd" ? [.. AmdDevices.Where(Path.Exists)] : [],
            RestartPolicy = "no",
            MaxLogBytes = options.LogBytes,
        };
        var name = ContainerName(launch);
        var id = name;
        try
        {
            id = await CreateAsync(spec, name, cancellationToken);
            await _docker.StartContainerAsync(id, cancellationToken);
        }
        catch (DockerException e) when (e.StatusCode is null)
        {
            throw Silent(e);
        }
        catch (Exception e) when (e is DockerException or OperationCanceledException)
        {
            await RemoveAsync(id, CancellationToken.None);
            throw e is DockerException refusal ? new RuntimeException(refusal.EngineMessage, e) : e;
        }
        return new EngineInstance(id, launch.DeploymentUid, launch.RunId, specJson, launch.EnginePort, launch.EngineKey, image, digest, VersionOf(image), []);
    }

    private static Dictionary<string, string> Variables(EngineLaunch launch)
    {
        var variables = new Dictionary<string, string>(launch.Env);
        if (launch.Recipe.KeyVariable.Length > 0)
            variables[launch.Recipe.KeyVariable] = launch.EngineKey;
        return variables;
    }

    /// <summary>Of a gRPC backend: the node's own models, and where files are exchanged with it, under the paths that they have for both.</summary>
    private IEnumerable<BindMount> BackendMounts(EngineLaunch launch)
    {
        if (launch.Install is null)
            yield break;
        Directory.CreateDirectory(identity.ModelsFolder);
        yield return new BindMount(identity.ModelsFolder, identity.ModelsFolder, ReadOnly: true);
        yield return new BindMount(new RunFiles(identity.DataFolder).Open(launch.RunId), RunFiles.FolderOf(identity.DataFolder, launch.RunId), ReadOnly: false);
    }

    public async Task<EngineExit?> WaitAsync(EngineInstance instance, CancellationToken cancellationToken)
    {
        if (await InspectAsync(instance.Id, cancellationToken) is not { } details)
            return null;
        // a host that was killed between create and start left it so
        if (details.State.Status == "created")
        {
            try
            {
                await _docker.StartContainerAsync(instance.Id, cancellationToken);
            }
            catch (DockerException e) when (e.StatusCode is not null)
            {
                return new EngineExit(null, Message: e.EngineMessage);
            }
            catch (DockerException e)
            {
                throw Silent(e);
            }
        }
        try
        {
            await _docker.WaitContainerAsync(instance.Id, cancellationToken);
        }
        catch (DockerException e) when (e.StatusCode == HttpStatusCode.NotFound)
        {
            return null;
        }
        catch (DockerException e)
        {
            throw Silent(e);
        }
        // an engine that came back after its own restart shows the container as it is now
        return await InspectAsync(instance.Id, cancellationToken) switch
        {
            null => null,
            // somebody ends and removes it by force: what it leaves is no exit of its own
            { State.Status: "removing" } => null,
            { State.Running: true } => throw new RuntimeException("the container still runs"),
            { State: var state } => new EngineExit(state.ExitCode, state.OomKilled, state.Error is { Length: > 0 } error ? error : null),
        };
    }

    public async IAsyncEnumerable<OutputLine> FollowAsync(
        EngineInstance instance, string? position, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var place = LogPosition.Parse(position);
        // a followed log can lose its very last line when that has no line end: what came after the last one is read once more
        foreach (var follow in new[] { true, false })
        {
            // Only against what was there before: within one reading the pieces of a long line carry the same time, and lines of the
            // two outputs may be a little out of order.
            var before = place;
            var again = 0;
            var query = new LogQuery { Follow = follow, Timestamps = true, Since = before?.ToUnixTime() };
            await using var lines = _docker.ReadLogsAsync(instance.Id, query, cancellationToken).GetAsyncEnumerator(cancellationToken);
            while (await Ask(() => lines.MoveNextAsync().AsTask()))
            {
                // the engine counts "since" inclusively
                if (lines.Current.Timestamp is not { } timestamp)
                    continue;
                var order = before is null ? 1 : LogPosition.Compare(timestamp, before.Timestamp);
                if (order < 0 || (order == 0 && ++again <= before!.Lines))
                    continue;
                place = place is null ? new LogPosition(timestamp, 1) : place.With(timestamp);
                yield return new OutputLine(lines.Current.Text, place.ToString(), LogPosition.ToTime(timestamp));
            }
        }
    }

    public async Task RemoveAsync(EngineInstance instance, TimeSpan grace, CancellationToken cancellationToken)
    {
        await Ask(async () =>
        {
            try
            {
                await _docker.StopContainerAsync(instance.Id, grace, cancellationToken);
            }
            catch (DockerException e) when (e.StatusCode == HttpStatusCode.NotFound)
            {
            }
            return true;
        });
        await RemoveAsync(instance.Id, cancellationToken);
    }

    public bool Owns(EngineInstance instance, ProcessOrigin process) => process.Containers.Contains(instance.Id);

    /// <summary>Creates the container of a run; one that an earlier attempt left behind makes way.</summary>
    private async Task<string> CreateAsync(ContainerSpec spec, string name, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        // not cancelled half way: the engine would make the container all the same, and nobody would know
        using var deadline = new CancellationTokenSource(CreateDeadline, time);
        try
        {
            try
            {
                return (await _docker.CreateContainerAsync(spec, name, deadline.Token)).Id;
            }
            catch (DockerException e) when (e.StatusCode == HttpStatusCode.Conflict)
            {
                await RemoveAsync(name, deadline.Token);
                return (await _docker.CreateContainerAsync(spec, name, deadline.Token)).Id;
            }
        }
        catch (OperationCanceledException e) when (deadline.IsCancellationRequested)
        {
            throw new RuntimeException($"the engine did not make the container within {CreateDeadline.TotalSeconds:0} s", e, silent: true);
        }
    }

    private async Task RemoveAsync(string id, CancellationToken cancellationToken) =>
        await Ask(async () =>
        {
            try
            {
                await _docker.RemoveContainerAsync(id, force: true, cancellationToken);
            }
            catch (DockerException e) when (e.StatusCode is HttpStatusCode.NotFound or HttpStatusCode.Conflict)
            {
                // gone, or another call is removing it
            }
            return true;
        });

    private async Task<ContainerDetails?> InspectAsync(string id, CancellationToken cancellationToken) =>
        await Ask(async () =>
        {
            try
            {
                return await _docker.InspectContainerAsync(id, cancellationToken);
            }
            catch (DockerException e) when (e.StatusCode == HttpStatusCode.NotFound)
            {
                return null;
            }
        });

    /// <summary>Asks the engine, and tells of its failure in the words of a runtime.</summary>
    internal static async Task<T> Ask<T>(Func<Task<T>> call)
    {
        try
        {
            return await call();
        }
        catch (DockerException e)
        {
            throw new RuntimeException(e.Message, e, e.StatusCode is null);
        }
    }

    private static RuntimeException Silent(DockerException e) => new(e.Message, e, e.StatusCode is null);

    private static string ContainerName(EngineLaunch launch) => $"modelhost-{launch.DeploymentUid}-{launch.RunId[..8]}";

    private static string VersionOf(string image) => EngineImage.VersionOf(image[(image.LastIndexOf(':') + 1)..]);
}
