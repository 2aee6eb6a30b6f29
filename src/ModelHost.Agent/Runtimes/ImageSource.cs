using System.Net;
using ModelHost.Agent.Downloads;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.Docker;

namespace ModelHost.Agent.Runtimes;

/// <summary>Finds the image of a launch on the node, or has the container engine pull it.</summary>
internal sealed class ImageSource(DockerClient docker, PulledImages pulled, NodeOptions options, TimeProvider time)
{
    private const string DockerHubAddress = "https://index.docker.io/v1/";

    private readonly RegistryLogins _logins = new(options.Registries);

    /// <summary>Makes sure that the image is on the node. Pulls of the same image share one download: the engine sees to that.</summary>
    /// <returns>Its name with tag.</returns>
    /// <exception cref="RuntimeException">It is not, and could not be pulled.</exception>
    public async Task<string> EnsureAsync(EngineLaunch launch, Action<LaunchProgress> progress, CancellationToken cancellationToken)
    {
        var (repository, tag) = EngineImage.Split(launch.Install?.Settings?.Image ?? "") ?? await WantedAsync(launch, cancellationToken);
        if (tag is null)
            throw new RuntimeException($"no version was asked for, the latest release is not known, and the node has no image of {repository}");
        // before anything is pulled: what the request could not be told, since the version was not known then
        if (EngineReleaseRules.Check(launch.Recipe, tag, launch.Spec.EngineArgs, launch.Spec.ExtraArgs) is { } missing)
            throw new RuntimeException(missing.Detail) { Failure = new EngineFailure("option_unsupported", $"{missing.Field}: {missing.Detail}", IsFinal: true) };
        var image = Name(repository, tag);
        var isLocal = await IsLocalAsync(image, cancellationToken);
        // an installed backend is what was installed: where its tag leads to by now is for an upgrade to find out
        if (isLocal && (launch.Spec.Recipe is not null || !EngineImage.IsMoving(tag)))
            return image;
        progress(new LaunchProgress("pulling image", Line: $"[modelhost] pulling {image}"));
        try
        {
            await PullAsync(repository, tag, progress, cancellationToken);
        }
        catch (RuntimeException e) when (isLocal && !e.IsSilence)
        {
            progress(new LaunchProgress("preparing image", Line: $"[modelhost] {e.Message} The image that the node has is used."));
        }
        return image;
    }

    /// <summary>The name of an image.</summary>
    /// <param name="repository">Name without tag.</param>
    /// <param name="tag">A tag, or a digest.</param>
    public static string Name(string repository, string tag) => tag.StartsWith("sha256:", StringComparison.Ordinal) ? $"{repository}@{tag}" : $"{repository}:{tag}";

    private async Task<(string Repository, string? Tag)> WantedAsync(EngineLaunch launch, CancellationToken cancellationToken)
    {
        // of an installed backend it is known to the letter; Node:ImageRepository is where vLLM comes from
        if (launch.Spec.Recipe is not null)
        {
            var at = launch.Recipe.Image.IndexOf('@', StringComparison.Ordinal);
            return at > 0 ? (launch.Recipe.Image[..at], launch.Recipe.Image[(at + 1)..])
                : EngineImage.Split(launch.Recipe.Image) is var (repository, tag) ? (repository, tag) : (launch.Recipe.Image, null);
        }
        var image = options.RepositoryOf(launch.Recipe.Image);
        var wanted = launch.Spec.EngineVersion is { Length: > 0 } version ? version : launch.LatestVersion;
        return (image, wanted.Length > 0 ? EngineImage.Tag(wanted) : EngineImage.Newest(await LocalTagsAsync(image, cancellationToken)));
    }

    /// <summary>The digest under which the image is in its registry, else its id; empty when it is not on the node.</summary>
    public Task<string> DigestAsync(string image, CancellationToken cancellationToken) =>
        // untagged and removed while the container runs on
        DockerRuntime.Ask(async () => await FindAsync(image, cancellationToken) is not { } found ? ""
            : found.RepoDigests.Count > 0 ? found.RepoDigests[0] : found.Id);

    /// <summary>Pulls an image.</summary>
    /// <param name="repository">Name without tag.</param>
    /// <param name="tag">A tag, or a digest.</param>
    /// <param name="progress">Hears how far it is.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="RuntimeException">It could not be pulled.</exception>
    public async Task PullAsync(string repository, string tag, Action<LaunchProgress> progress, CancellationToken cancellationToken)
    {
        var image = Name(repository, tag);
        var report = new PullReport();
        var unpacking = false;
        var before = await DockerRuntime.Ask(() => FindAsync(image, cancellationToken));
        using var stalled = new CancellationTokenSource(options.PullStallTimeout, time);
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(stalled.Token, cancellationToken);
        try
        {
            await docker.PullImageAsync(repository, tag, Credential(image), pull =>
            {
                var was = unpacking;
                unpacking = PullReport.IsDownloaded(pull);
                // unpacking is work of the node's disk, for which no registry is to blame
                if (pull.Advanced || unpacking != was)
                    stalled.CancelAfter(unpacking ? Timeout.InfiniteTimeSpan : options.PullStallTimeout);
                progress(report.Next(pull));
            }, waiting.Token);
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw Failed(PullFailures.Stalled(image, options.PullStallTimeout, report.LastWords), e);
        }
        // nobody cancelled it here: the engine is being shut down
        catch (DockerException e) when (e.StatusCode is null || e.EngineMessage.Contains("context canceled", StringComparison.Ordinal))
        {
            throw new RuntimeException(e.Message, e, silent: true);
        }
        catch (DockerException e)
        {
            throw Failed(PullFailures.Classify(image, e.EngineMessage), e);
        }
        if (await DockerRuntime.Ask(() => FindAsync(image, cancellationToken)) is not { } after)
            throw Failed(PullFailures.Classify(image, "the engine ended the pull and does not have it"), null);
        // what was there already is whoever's it was
        if (after.Id != before?.Id)
            pulled.Note(image, after.Id);
    }

    private RegistryCredential? Credential(string image)
    {
        var registry = EngineImage.RegistryOf(image);
        try
        {
            return _logins.Of(registry) is { } account ? new RegistryCredential(account.Username, account.Password, registry == EngineImage.DockerHub ? DockerHubAddress : registry) : null;
        }
        catch (DownloadException e)
        {
            throw Failed(new EngineFailure(PullFailures.LoginWanted, e.Message, IsFinal: true), e);
        }
    }

    private static RuntimeException Failed(EngineFailure failure, Exception? inner) => new(failure.Message, inner) { Failure = failure };

    private async Task<IEnumerable<string>> LocalTagsAsync(string repository, CancellationToken cancellationToken)
    {
        var images = await DockerRuntime.Ask(() => docker.ListImagesAsync(repository, cancellationToken));
        return images.SelectMany(image => image.RepoTags).Where(tag => tag.StartsWith(repository + ":", StringComparison.Ordinal))
            .Select(tag => tag[(repository.Length + 1)..]);
    }

    private Task<bool> IsLocalAsync(string image, CancellationToken cancellationToken) =>
        DockerRuntime.Ask(async () => await FindAsync(image, cancellationToken) is not null);

    /// <summary>What the engine knows of an image; null: it does not have it.</summary>
    /// <exception cref="DockerException">It does not answer.</exception>
    public async Task<ImageDetails?> FindAsync(string image, CancellationToken cancellationToken)
    {
        try
        {
            return await docker.InspectImageAsync(image, cancellationToken);
        }
        catch (DockerException e) when (e.StatusCode == HttpStatusCode.NotFound)
        {
            return null;
        }
    }
}

/// <summary>Puts a pull into the words of a launch: the phase, the figures, and a line for the log once per step of a layer.</summary>
internal sealed class PullReport
{
    private const int MaxLayers = 1024;

    private readonly Dictionary<string, string> _steps = [];
    private string _said = "";

    /// <summary>What the engine said last.</summary>
    public string LastWords { get; private set; } = "";

    /// <summary>Whether nothing is left to download, as far as the engine has said.</summary>
    public static bool IsDownloaded(PullProgress pull) => pull.Layers > 0 && pull.LayersDownloaded == pull.Layers;

    /// <summary>The next message.</summary>
    public LaunchProgress Next(PullProgress pull)
    {
        LastWords = pull.Layer is null ? pull.Status : $"{pull.Layer}: {pull.Status}";
        var detail = IsDownloaded(pull) && pull.LayersDone < pull.Layers ? "extracting image" : "pulling image";
        return new LaunchProgress(detail, pull, IsNewStep(pull) ? $"[docker] {LastWords}" : null);
    }

    private bool IsNewStep(PullProgress pull)
    {
        if (pull.Layer is null)
        {
            var before = _said;
            _said = pull.Status;
            return pull.Status != before;
        }
        // the first word tells the steps apart; the rest of a countdown changes every second
        var step = pull.Status.Split(' ')[0];
        if (_steps.GetValueOrDefault(pull.Layer) == step || (_steps.Count == MaxLayers && !_steps.ContainsKey(pull.Layer)))
            return false;
        _steps[pull.Layer] = step;
        return true;
    }
}
