using ModelHost.Agent.Artifacts;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Runtimes;
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
    public Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (PullRules.NameFault(request.Kind, request.Name) is { } fault)
            throw new ArgumentException(fault, nameof(request));
        _pulls.Delete(request.Kind, request.Name);
        return Task.FromResult(new DeleteArtifactReply());
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
