using System.Runtime.CompilerServices;
using ModelHost.Docker.Http;
using ModelHost.Docker.Streams;
using ModelHost.Docker.Wire;

namespace ModelHost.Docker;

/// <content>The calls about images.</content>
public sealed partial class DockerClient
{
    /// <summary>Lists images.</summary>
    /// <param name="reference">A repository, with a tag or a <c>*</c> if wanted: only images of that name. Null for all.</param>
    /// <param name="cancellationToken">Ends the call.</param>
    public async Task<IReadOnlyList<ImageSummary>> ListImagesAsync(string? reference, CancellationToken cancellationToken)
    {
        var call = EngineCall.Get("/images/json");
        if (reference is not null)
            call.With("filters", Filters(("reference", [reference])));
        using var answer = await _engine.SendAsync(call, cancellationToken);
        return [.. (await answer.ReadJsonAsync(DockerJson.Default.IReadOnlyListImageListAnswer, cancellationToken)).Select(i => i.ToSummary())];
    }

    /// <summary>Reads what the engine knows of an image. 404: absent.</summary>
    /// <param name="reference">Name with tag or digest, or an id.</param>
    /// <param name="cancellationToken">Ends the call.</param>
    public async Task<ImageDetails> InspectImageAsync(string reference, CancellationToken cancellationToken)
    {
        using var answer = await _engine.SendAsync(EngineCall.Get(EnginePaths.Image(HttpMethod.Get, reference, "/json")), cancellationToken);
        return (await answer.ReadJsonAsync(DockerJson.Default.ImageAnswer, cancellationToken)).ToDetails();
    }

    /// <summary>
    /// Pulls an image. An engine tells of an absent image, or an unreachable registry, with 404, with 500, or within a stream that began with
    /// 200.
    /// </summary>
    /// <param name="repository">Name without tag.</param>
    /// <param name="tag">A tag, or a digest (<c>sha256:…</c>).</param>
    /// <param name="progress">Called for each message of the engine, one after the other, many times a second; must return soon.</param>
    /// <param name="cancellationToken">Ends the call, and the pull unless somebody else waits for the same.</param>
    public async Task PullImageAsync(string repository, string tag, Action<PullProgress> progress, CancellationToken cancellationToken)
    {
        ArgumentException.ThrowIfNullOrEmpty(repository);
        // without a tag the engine would pull every image of the repository
        ArgumentException.ThrowIfNullOrEmpty(tag);
        ArgumentNullException.ThrowIfNull(progress);
        var call = EngineCall.Post("/images/create").With("fromImage", repository).With("tag", tag);
        using var answer = await _engine.SendAsync(call, cancellationToken);
        var tracker = new PullTracker();
        await foreach (var message in MessagesAsync(answer, cancellationToken))
            progress(tracker.Apply(message));
    }

    /// <summary>Loads the images of a tar file as <c>docker save</c> writes it.</summary>
    /// <param name="tar">Read to its end, and left open.</param>
    /// <param name="cancellationToken">Ends the call.</param>
    public async Task LoadImageAsync(Stream tar, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(tar);
        using var answer = await _engine.SendAsync(EngineCall.Post("/images/load").With("quiet", "1").WithTar(tar), cancellationToken);
        await foreach (var _ in MessagesAsync(answer, cancellationToken))
        {
            // only a failure among them is of interest
        }
    }

    /// <summary>Gives an image a further name. 404: no such source.</summary>
    public Task TagImageAsync(string source, string repository, string tag, CancellationToken cancellationToken) =>
        DoAsync(EngineCall.Post(EnginePaths.Image(HttpMethod.Post, source, "/tag")).With("repo", repository).With("tag", tag), cancellationToken);

    private static async IAsyncEnumerable<StreamMessage> MessagesAsync(
        EngineAnswer answer, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await foreach (var message in answer.ReadJsonObjectsAsync(DockerJson.Default.StreamMessage, cancellationToken))
        {
            if ((message.ErrorDetail?.Message ?? message.Error) is { Length: > 0 } error)
                throw answer.Unusable(error);
            yield return message;
        }
    }
}
