using ModelHost.Agent.Downloads;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>Has the node's container engines pull images, and tells which they have.</summary>
/// <param name="engines">The engines, best first.</param>
/// <param name="options">Where images come from.</param>
/// <param name="answers">Whether the engine of a name answered when it was asked last.</param>
internal sealed class ImagePull(IReadOnlyList<ContainerEngine> engines, NodeOptions options, Func<string, bool> answers)
{
    private static readonly string[] s_own = [.. BackendCatalogue.BuiltIn.Values.Select(recipe => recipe.Image).Where(image => image.Length > 0).Distinct()];

    /// <summary>Pulls one, to the first engine that answers.</summary>
    /// <param name="request">Which.</param>
    /// <param name="progress">Hears how far it is.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="DownloadException">It could not be pulled.</exception>
    public async Task<Artifact> RunAsync(PullRequest request, PullProgress progress, CancellationToken cancellationToken)
    {
        var source = Present().First().Images;
        var name = NameOf(request);
        var (repository, reference) = PullRules.Image(name)!.Value;
        progress.Enter(PullPhase.Downloading);
        try
        {
            await source.PullAsync(repository, reference, launch =>
            {
                if (launch.Pull is not { } pull)
                    return;
                progress.Set(pull.DoneBytes, pull.TotalBytes > 0 ? pull.TotalBytes : null);
                if (PullReport.IsDownloaded(pull) && pull.LayersDone < pull.Layers && progress.Phase == PullPhase.Downloading)
                    progress.Enter(PullPhase.Unpacking);
                progress.Say(pull.Layer is null ? pull.Status : $"{pull.Layer}: {pull.Status}");
            }, cancellationToken);
            return new Artifact { Kind = ArtifactKind.Image, Name = name, Digest = DigestOf(await source.DigestAsync(name, cancellationToken)) };
        }
        catch (RuntimeException e)
        {
            // a tag that does not move is what it was: without its registry, the image that the node has will do
            if (e.Failure?.Code == PullFailures.Unreachable && !EngineImage.IsMoving(reference) && await source.DigestAsync(name, cancellationToken) is { Length: > 0 } digest)
                return new Artifact { Kind = ArtifactKind.Image, Name = name, Digest = DigestOf(digest) };
            throw new DownloadException(e.Failure?.Code ?? "image", e.Message, inner: e);
        }
    }

    /// <summary>The image that a pull is of, on this node.</summary>
    public string NameOf(PullRequest request)
    {
        var (repository, reference) = PullRules.Image(request.Name)!.Value;
        return ImageSource.Name(request.IsOwnImage ? options.RepositoryOf(repository) : repository, reference);
    }

    /// <summary>Whether a run may come to be started from an image of this node.</summary>
    public bool MayStart(LaunchSpec? spec, string image)
    {
        if (BackendCatalogue.Of(spec) is not { Image.Length: > 0 } recipe)
            return false;
        if (spec!.Recipe is not null)
            return recipe.Image == image;
        var repository = options.RepositoryOf(recipe.Image);
        // without a version it is the newest release, or what there is
        return spec.EngineVersion is { Length: > 0 } version ? image == ImageSource.Name(repository, EngineImage.Tag(version)) : PullRules.Image(image)?.Repository == repository;
    }

    /// <summary>Of some repositories, those of recipes of ModelHost itself in whose place this node has another.</summary>
    public Dictionary<string, string> OwnRepositories(IEnumerable<string> repositories) =>
        repositories.Intersect(s_own).Where(image => options.RepositoryOf(image) != image).ToDictionary(image => image, options.RepositoryOf);

    /// <summary>The images of some repositories.</summary>
    /// <exception cref="RuntimeException">An engine does not answer.</exception>
    public async Task<IReadOnlyList<Artifact>> ListAsync(IEnumerable<string> repositories, CancellationToken cancellationToken)
    {
        var found = new List<Artifact>();
        foreach (var (engine, repository) in Present().SelectMany(engine => repositories.Distinct().Select(repository => (engine, repository))))
        {
            var images = await DockerRuntime.Ask(() => engine.Client.ListImagesAsync(repository, cancellationToken));
            foreach (var (image, tag) in images.SelectMany(image => image.RepoTags.Where(tag => tag.StartsWith(repository + ":", StringComparison.Ordinal)).Select(tag => (image, tag))))
            {
                var artifact = new Artifact
                {
                    Kind = ArtifactKind.Image,
                    Name = tag,
                    Version = tag[(repository.Length + 1)..],
                    Digest = DigestOf(image.RepoDigests.FirstOrDefault(digest => digest.StartsWith(repository + "@", StringComparison.Ordinal)) ?? image.Id),
                    SizeBytes = image.SizeBytes,
                };
                if (engine.Pulled.Find(tag, image.Id) is { } pulled)
                    artifact.InstalledAt = pulled.At.ToUnixTimeMilliseconds() / 1000d;
                found.Add(artifact);
            }
        }
        return [.. found.DistinctBy(image => image.Name)];
    }

    /// <summary>Those that answer; where none does, the first tells why.</summary>
    private IEnumerable<ContainerEngine> Present() => engines.Where(engine => answers(engine.Name)).DefaultIfEmpty(engines[0]);

    private static string DigestOf(string name) => name[(name.IndexOf('@', StringComparison.Ordinal) + 1)..];
}
