using ModelHost.Agent.Downloads;
using ModelHost.Core.Artifacts;

namespace ModelHost.Agent.Artifacts;

/// <summary>Finds out what an address stands for, and asks its registry where need be.</summary>
internal sealed class SourceResolver(DownloadOptions options)
{
    /// <summary>What there is to download.</summary>
    /// <param name="text">The address.</param>
    /// <param name="sha256">The hash that the file is to have; empty: unknown.</param>
    /// <param name="huggingFaceToken">For Hugging Face alone; null: none.</param>
    /// <param name="refusesPickle">Whether pickles are refused.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="DownloadException">It cannot be found out, or stands for nothing.</exception>
    public async Task<Source> ResolveAsync(string text, string sha256, string? huggingFaceToken, bool refusesPickle, CancellationToken cancellationToken)
    {
        await Task.Yield();
        cancellationToken.ThrowIfCancellationRequested();
        if (!ArtifactUri.Parse(text).TryGet(out var uri, out var failure))
            throw new DownloadException("uri_invalid", failure.Detail);
        var headers = new Dictionary<string, string>();
        RemoteFile File(Uri url) => new(url, uri.FileName) { Sha256 = sha256, Headers = headers, RefusesPickle = refusesPickle };
        switch (uri)
        {
            case ArtifactUri.Web web:
                return One(File(web.Url) with { Headers = TokenFor(web.Url, huggingFaceToken) });
            case ArtifactUri.HuggingFace { Path.Length: > 0 } face:
                var url = Below(options.HuggingFaceUrl, $"{face.Repository}/resolve/{Uri.EscapeDataString(face.Revision)}/{face.Path}");
                return One(File(url) with { Headers = TokenFor(url, huggingFaceToken) });
            case ArtifactUri.GitHub hub:
                return One(File(Below(options.GitHubUrl, $"{hub.Repository}/{hub.Revision}/{hub.Path}")));
            default:
                throw new DownloadException("uri_invalid", "the node cannot download from such an address");
        }
    }

    private static Source.Files One(RemoteFile file) => new([file], IsFolder: false);

    private static Uri Below(string address, string path) =>
        new(address.TrimEnd('/') + "/" + string.Join('/', path.Split('/').Select(part => Uri.EscapeDataString(Uri.UnescapeDataString(part)))));

    // an address of Hugging Face may be written out
    private Dictionary<string, string> TokenFor(Uri url, string? token) =>
        token is not null && Uri.Compare(url, new Uri(options.HuggingFaceUrl), UriComponents.SchemeAndServer, UriFormat.UriEscaped, StringComparison.OrdinalIgnoreCase) == 0
            ? new() { ["Authorization"] = "Bearer " + token } : [];
}
