using System.Runtime.CompilerServices;
using System.Text.Json;
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
    public Task PullImageAsync(string repository, string tag, Action<PullProgress> progress, CancellationToken cancellationToken) =>
        PullImageAsync(repository, tag, null, progress, cancellationToken);

    /// <summary>Pulls an image as the other one does, with a login.</summary>
    /// <param name="repository">Name without tag.</param>
    /// <param name="tag">A tag, or a digest (<c>sha256:…</c>).</param>
    /// <param name="credential">Who the registry is to take the engine for; null: nobody, or whom the engine itself knows.</param>
    /// <param name="progress">Called for each message of the engine, one after the other, many times a second; must return soon.</param>
    /// <param name="cancellationToken">Ends the call, and the pull unless somebody else waits for the same.</param>
    public async Task PullImageAsync(string repository, string tag, RegistryCredential? credential, Action<PullProgress> progress, CancellationToken cancellationToken)
    {
        ArgumentException.ThrowIfNullOrEmpty(repository);
        // without a tag the engine would pull every image of the repository
        ArgumentException.ThrowIfNullOrEmpty(tag);
        ArgumentNullException.ThrowIfNull(progress);
        var call = EngineCall.Post("/images/create").With("fromImage", repository).With("tag", tag);
        if (credential is not null)
            call.WithHeader("X-Registry-Auth", credential.Header);
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

    /// <summary>
    /// Takes a name from an image, and deletes the image with its last one. 404: absent; 409: a container uses it, or it is meant by its id and has
    /// several names.
    /// </summary>
    /// <param name="reference">Name with tag or digest, or an id.</param>
    /// <param name="force">Does it all the same. Of an image of which a container runs only the name goes.</param>
    /// <param name="cancellationToken">Ends the call; the image may be gone all the same.</param>
    public async Task<ImageRemoval> RemoveImageAsync(string reference, bool force, CancellationToken cancellationToken)
    {
        var call = EngineCall.Delete(EnginePaths.Image(HttpMethod.Delete, reference, "")).With("force", force ? "1" : "0");
        using var answer = await _engine.SendAsync(call, cancellationToken);
        return (await answer.ReadJsonAsync(DockerJson.Default.IReadOnlyListRemovedAnswer, cancellationToken)).ToRemoval();
    }

    /// <summary>Deletes the images that no container uses and that carry all the labels; with none, all that no container uses.</summary>
    /// <param name="labels">Label and value; a null value asks only that the label is there.</param>
    /// <param name="danglingOnly">Leaves images that have a name.</param>
    /// <param name="cancellationToken">Ends the call; images may be gone all the same.</param>
    public async Task<PruneReport> PruneImagesAsync(
        IReadOnlyDictionary<string, string?> labels, bool danglingOnly, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(labels);
        // said in both cases: left out means true
        var filters = Filters(("dangling", [danglingOnly ? "true" : "false"]), ("label", LabelTexts(labels)));
        using var answer = await _engine.SendAsync(EngineCall.Post("/images/prune").With("filters", filters), cancellationToken);
        return (await answer.ReadJsonAsync(DockerJson.Default.PruneAnswer, cancellationToken)).ToReport();
    }

    /// <summary>
    /// Builds an image with the engine's classic builder, which every engine has. A step that fails is told within a stream that began with 200;
    /// a Dockerfile that cannot be read is 400 or 500.
    /// </summary>
    /// <param name="contextTar">A tar file of the Dockerfile and what it copies; read to its end, and left open.</param>
    /// <param name="spec">What to build.</param>
    /// <param name="line">Called for each line of output, one after the other, pieces of 16 Ki characters of a longer one; must return soon.</param>
    /// <param name="cancellationToken">Ends the call and the build.</param>
    /// <returns>The image's id, <c>sha256:…</c>; of engines that do not tell it by itself, the short one of their last words.</returns>
    public async Task<string> BuildImageAsync(Stream contextTar, BuildSpec spec, Action<string> line, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(contextTar);
        ArgumentNullException.ThrowIfNull(spec);
        ArgumentNullException.ThrowIfNull(line);
        using var answer = await _engine.SendAsync(BuildCall(spec).WithTar(contextTar), cancellationToken);
        var output = new BuildOutput(line);
        try
        {
            await foreach (var message in MessagesAsync(answer, cancellationToken))
                output.Apply(message);
        }
        catch (DockerException)
        {
            output.Complete();
            throw;
        }
        output.Complete();
        return output.ImageId ?? throw answer.Unusable("the build ended without an image");
    }

    private static EngineCall BuildCall(BuildSpec spec)
    {
        // forcerm: a step that fails would leave its container behind
        var call = EngineCall.Post("/build").With("dockerfile", spec.Dockerfile).With("rm", "1").With("forcerm", "1");
        if (spec.Tag is not null)
            call.With("t", spec.Tag);
        if (spec.Labels.Count > 0)
            call.With("labels", JsonSerializer.Serialize(spec.Labels, DockerJson.Default.IReadOnlyDictionaryStringString));
        if (spec.BuildArgs.Count > 0)
            call.With("buildargs", JsonSerializer.Serialize(spec.BuildArgs, DockerJson.Default.IReadOnlyDictionaryStringString));
        return spec.NoCache ? call.With("nocache", "1") : call;
    }

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
