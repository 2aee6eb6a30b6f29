using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Agent.Downloads;
using ModelHost.Core.Artifacts;

namespace ModelHost.Agent.Artifacts;

/// <summary>Asks Hugging Face what a repository holds.</summary>
internal sealed class HuggingFaceHub(GuardedHttp http, DownloadOptions options)
{
    private const int MaxAnswerBytes = 16 * 1024 * 1024, MaxFiles = 5000;

    /// <summary>The address of a file.</summary>
    public Uri FileUrl(string repository, string revision, string path) =>
        new($"{options.HuggingFaceUrl.TrimEnd('/')}/{repository}/resolve/{Uri.EscapeDataString(revision)}/{string.Join('/', path.Split('/').Select(Uri.EscapeDataString))}");

    /// <summary>All files of a repository, of one commit, with the hashes of the large ones.</summary>
    /// <param name="repository">Which, and of which revision.</param>
    /// <param name="headers">For the questions and the files.</param>
    /// <param name="refusesPickle">Whether pickles are left out where the weights are there in another form too, and else refused.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="DownloadException">There is none, or it is not to be used.</exception>
    public async Task<IReadOnlyList<RemoteFile>> FilesAsync(
        ArtifactUri.HuggingFace repository, IReadOnlyDictionary<string, string> headers, bool refusesPickle, CancellationToken cancellationToken)
    {
        var url = new Uri($"{options.HuggingFaceUrl.TrimEnd('/')}/api/models/{repository.Repository}/revision/{Uri.EscapeDataString(repository.Revision)}?blobs=true");
        var answer = await http.GetBytesAsync(url, headers, MaxAnswerBytes, cancellationToken);
        HubModel? model;
        try
        {
            model = JsonSerializer.Deserialize(answer, HubJson.Default.HubModel);
        }
        catch (JsonException e)
        {
            throw new DownloadException("answer_invalid", $"{GuardedHttp.Display(url)} does not answer with a list of files", inner: e);
        }
        if (model is not { Siblings.Count: > 0 and <= MaxFiles } || model.Sha.Length is < 7 or > 64 || !model.Sha.All(char.IsAsciiHexDigit))
            throw new DownloadException("answer_invalid", $"{repository.Repository} has no files, more than {MaxFiles}, or no commit");
        if (model.Siblings.FirstOrDefault(file => ArtifactNames.PathFault(file.RFilename) is not null) is not null)
            throw new DownloadException("answer_invalid", $"{repository.Repository} has a file whose name cannot be used");
        var files = model.Siblings.Where(file => !refusesPickle || !PickleFiles.ByName(file.RFilename)).ToArray();
        if (files.Length < model.Siblings.Count && !files.Any(file => file.RFilename.EndsWith(".safetensors", StringComparison.Ordinal) || file.RFilename.EndsWith(".gguf", StringComparison.Ordinal)))
            throw new DownloadException("pickle_refused", $"{repository.Repository} has its weights as pickles only, which run code when they are loaded");
        return
        [
            .. files.Select(file => new RemoteFile(FileUrl(repository.Repository, model.Sha, file.RFilename), file.RFilename)
            {
                Sha256 = file.Lfs?.Sha256 is { Length: 64 } hash && hash.All(char.IsAsciiHexDigitLower) ? hash : "",
                SizeBytes = file.Size,
                Headers = headers,
                RefusesPickle = refusesPickle,
            }),
        ];
    }
}

/// <summary>A repository as the hub tells of it.</summary>
internal sealed record HubModel(string Sha, IReadOnlyList<HubFile> Siblings);

/// <summary>A file of it.</summary>
internal sealed record HubFile([property: JsonPropertyName("rfilename")] string RFilename, long? Size, HubBlob? Lfs);

/// <summary>Where the file is a large one: its hash.</summary>
internal sealed record HubBlob(string? Sha256);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = false)]
[JsonSerializable(typeof(HubModel))]
internal sealed partial class HubJson : JsonSerializerContext;
