using ModelHost.Agent.Downloads;
using ModelHost.Core.Artifacts;

namespace ModelHost.Agent.Artifacts;

/// <summary>Finds out what an address stands for, and asks its registry where need be.</summary>
internal sealed class SourceResolver(ImageRegistry registry, HuggingFaceHub hub, DownloadOptions options, string dataFolder)
{
    // the rest of the data folder holds keys
    private static readonly string[] s_folders = ["models", "backends", "packages", "galleries"];

    /// <summary>What there is to download.</summary>
    /// <param name="text">The address.</param>
    /// <param name="sha256">The hash that the file is to have; empty: unknown.</param>
    /// <param name="huggingFaceToken">For Hugging Face alone; null: none.</param>
    /// <param name="refusesPickle">Whether pickles are refused.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="DownloadException">It cannot be found out, or stands for nothing.</exception>
    public async Task<Source> ResolveAsync(string text, string sha256, string? huggingFaceToken, bool refusesPickle, CancellationToken cancellationToken)
    {
        if (!ArtifactUri.Parse(text).TryGet(out var uri, out var failure))
            throw new DownloadException("uri_invalid", failure.Detail);
        RemoteFile FileAt(Uri url) => new(url, uri.FileName) { Sha256 = sha256, Headers = TokenFor(url, huggingFaceToken), RefusesPickle = refusesPickle };
        switch (uri)
        {
            case ArtifactUri.Web web:
                return One(FileAt(web.Url));
            case ArtifactUri.HuggingFace { Path.Length: 0 } repository:
                return new Source.Files(await hub.FilesAsync(repository, TokenFor(new Uri(options.HuggingFaceUrl), huggingFaceToken), refusesPickle, cancellationToken), IsFolder: true);
            case ArtifactUri.HuggingFace file:
                return One(FileAt(hub.FileUrl(file.Repository, file.Revision, file.Path)));
            case ArtifactUri.GitHub source:
                return One(FileAt(new Uri($"{options.GitHubUrl.TrimEnd('/')}/{source.Repository}/{source.Revision}/{string.Join('/', source.Path.Split('/').Select(Uri.EscapeDataString))}")));
            case ArtifactUri.Image image:
                return await registry.LayersAsync(image, sha256, cancellationToken);
            case ArtifactUri.Ollama model:
                var weights = await registry.WeightsAsync(model, cancellationToken);
                return sha256.Length == 0 || sha256 == weights.Sha256 ? One(weights with { RefusesPickle = refusesPickle })
                    : throw new DownloadException("hash_mismatch", $"{text} has the SHA-256 {weights.Sha256}, not {sha256}");
            case ArtifactUri.Local local:
                return new Source.Local(Plain(local.Path));
            case ArtifactUri.SavedImage saved:
                return Plain(saved.Path) is var tarball && File.Exists(tarball) ? new Source.SavedImage(tarball) : throw new DownloadException("uri_invalid", $"{text} is a folder, not a file that an image was saved to");
            default:
                throw new DownloadException("uri_invalid", "the node cannot download from such an address");
        }
    }

    private static Source.Files One(RemoteFile file) => new([file], IsFolder: false);

    private string Plain(string path)
    {
        var root = Path.GetFullPath(dataFolder);
        var full = Path.GetFullPath(Path.Combine(root, path)).TrimEnd('/');
        if (!s_folders.Any(folder => full.StartsWith(Path.Combine(root, folder) + "/", StringComparison.Ordinal)))
            throw new DownloadException("uri_invalid", $"a local address leads to the {string.Join(", ", s_folders)} of the node's data folder, and nowhere else");
        var part = root;
        foreach (var name in Path.GetRelativePath(root, full).Split('/'))
        {
            part = Path.Combine(part, name);
            if (new FileInfo(part).LinkTarget is not null)
                throw new DownloadException("uri_invalid", "a local address leads through no link");
        }
        return Path.Exists(full) ? full : throw new DownloadException("not_found", $"there is no {Path.GetRelativePath(root, full)} in the data folder of the node");
    }

    // an address of Hugging Face may be written out
    private Dictionary<string, string> TokenFor(Uri url, string? token) =>
        token is not null && Uri.Compare(url, new Uri(options.HuggingFaceUrl), UriComponents.SchemeAndServer, UriFormat.UriEscaped, StringComparison.OrdinalIgnoreCase) == 0
            ? new() { ["Authorization"] = "Bearer " + token } : [];
}
