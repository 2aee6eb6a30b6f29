using ModelHost.Agent.Artifacts;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent;

/// <content>What the node gets from elsewhere and keeps.</content>
public sealed partial class LocalNode
{
    private const int MaxRepositories = 100;

    private readonly GuardedHttp _http;
    private readonly ArtifactFolders _folders;
    private readonly ImagePull _images;
    private readonly ImageRemoval _imageRemoval;
    private readonly PullQueue _pulls;

    /// <inheritdoc/>
    public Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        _pulls.Pull(request);
        return Task.FromResult(new PullReply());
    }

    /// <inheritdoc/>
    public Task<CancelPullReply> CancelPullAsync(CancelPullRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        _pulls.Cancel(request.PullId, request.KeepPartial);
        return Task.FromResult(new CancelPullReply());
    }

    /// <inheritdoc/>
    public Task<CommitPullReply> CommitPullAsync(CommitPullRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        _pulls.Commit(request.PullId);
        return Task.FromResult(new CommitPullReply());
    }

    /// <inheritdoc/>
    public async Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (request.ImageRepositories.Count > MaxRepositories || !request.ImageRepositories.All(EngineImage.IsValidRepository))
            throw new ArgumentException($"image_repositories: up to {MaxRepositories} of [host[:port]/]path", nameof(request));
        var reply = new ArtifactsReply();
        reply.Artifacts.AddRange(_folders.List());
        reply.OwnRepositories.Add(_images.OwnRepositories(request.ImageRepositories));
        try
        {
            reply.Artifacts.AddRange(await _images.ListAsync(request.ImageRepositories.Concat(reply.OwnRepositories.Values), cancellationToken));
        }
        catch (RuntimeException e)
        {
            reply.ImageError = e.Message;
        }
        return reply;
    }

    /// <inheritdoc/>
    public async Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (PullRules.DeletionFault(request.Kind, request.Name) is { } fault)
            throw new ArgumentException(fault, nameof(request));
        if (request.Kind == ArtifactKind.Image)
            return await _imageRemoval.RemoveAsync(request.Name, cancellationToken);
        _pulls.Delete(request.Kind, request.Name);
        return new DeleteArtifactReply();
    }

    /// <summary>What is about to use an image though no container of it is there yet; null: nothing.</summary>
    private string? UseOf(string image)
    {
        if (_pulls.IsPulling(image))
            return "a pull is at work on it";
        if (_options.Backends.FirstOrDefault(backend => backend.Value.Image == image).Key is { } configured)
            return $"backend {configured} of the node's configuration is started from it";
        lock (_lock)
        {
            return _engines.Values.Where(engine => !engine.IsGone).Select(engine => engine.Peek())
                .Where(engine => engine.Phase == EnginePhase.Preparing && _images.MayStart(LaunchSpec.FromJson(engine.LaunchSpec), image))
                .Select(engine => $"run {engine.RunId} is being started").FirstOrDefault();
        }
    }

    private PullQueue Pulls(DownloadOptions downloads)
    {
        var room = new DiskRoom(_identity.DataFolder, downloads.ReservedDiskBytes);
        var resolver = new SourceResolver(new ImageRegistry(_http, downloads, new RegistryLogins(_options.Registries)), new HuggingFaceHub(_http, downloads), downloads, _identity.DataFolder);
        var runner = new PullRunner(
            _folders, resolver, new FileDownload(_http, downloads, room, _time, Random.Shared), new TreeBuilder(_folders, downloads, room), downloads, _time);
        return new PullQueue(_folders, new PullRecords(_identity.DataFolder, _records), runner, _images, downloads, _time, _logger, SignalChange);
    }
}
