using System.Text.Json;
using ModelHost.Core.Artifacts;
using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>Which pulls make sense.</summary>
internal static class PullRules
{
    private const int MaxFiles = 1000, MaxMirrors = 10, MaxVersion = 200, MaxMetadataBytes = 256 * 1024, MaxToken = 4096;

    /// <summary>What is wrong with a request; null: nothing.</summary>
    public static string? Fault(PullRequest request) =>
        !Guid.TryParse(request.PullId, out _) ? "pull_id: a pull id is a GUID"
        : request.Version.Length > MaxVersion || request.Version.Any(char.IsControl) ? $"version: a version has up to {MaxVersion} characters"
        : MetadataFault(request.Metadata) is { } metadata ? $"metadata: {metadata}"
        : request.HuggingFaceToken.Length > MaxToken || !request.HuggingFaceToken.All(c => c is > ' ' and < (char)127) ? "hugging_face_token: it has blanks in it, or is too long"
        : request.Kind switch
        {
            ArtifactKind.Model or ArtifactKind.Backend => NameFault(request.Kind, request.Name) ?? FilesFault(request),
            ArtifactKind.Image when request.Files.Count > 0 => "files: an image has none",
            ArtifactKind.Image when request.Hold => "hold: an image is not held",
            ArtifactKind.Image => ImageFault(request.Name),
            _ => "kind: it is to be a model, a backend or an image",
        };

    /// <summary>What is wrong with the name of a model or backend; null: nothing.</summary>
    public static string? NameFault(ArtifactKind kind, string name) =>
        kind is not (ArtifactKind.Model or ArtifactKind.Backend) ? "kind: it is to be a model, a backend or an image"
        : ArtifactNames.NameFault(name) is { } fault ? $"name: {fault}" : null;

    /// <summary>What is wrong with the name of something to be deleted; null: nothing.</summary>
    public static string? DeletionFault(ArtifactKind kind, string name) => kind == ArtifactKind.Image ? ImageFault(name) : NameFault(kind, name);

    /// <summary>Repository, and tag or digest, of an image.</summary>
    public static (string Repository, string Reference)? Image(string name)
    {
        var at = name.IndexOf('@', StringComparison.Ordinal);
        var split = at >= 0 ? at : name.LastIndexOf(':') is var colon && colon > name.LastIndexOf('/') ? colon : -1;
        return split < 0 ? null : (name[..split], name[(split + 1)..]);
    }

    private static string? ImageFault(string name) =>
        Image(name) is { } image && EngineImage.IsValidRepository(image.Repository)
            && ArtifactUri.Parse($"oci://{name}").Failure is null ? null : "name: an image is [host[:port]/]path:tag or [host[:port]/]path@sha256:digest";

    private static string? FilesFault(PullRequest request)
    {
        if (request.Files.Count is 0 or > MaxFiles)
            return $"files: there are to be 1 to {MaxFiles}";
        var paths = new HashSet<string>(StringComparer.Ordinal);
        for (var i = 0; i < request.Files.Count; i++)
        {
            if (FileFault(request, request.Files[i], paths) is { } fault)
                return $"files[{i}].{fault}";
        }
        return null;
    }

    private static string? FileFault(PullRequest request, PullFile file, HashSet<string> paths)
    {
        if (file.Mirrors.Count > MaxMirrors)
            return $"mirrors: there are more than {MaxMirrors}";
        foreach (var text in file.Mirrors.Prepend(file.Uri))
        {
            if (!ArtifactUri.Parse(text).TryGet(out var uri, out var failure))
                return $"uri: {failure.Detail}";
            if (!request.AllowPickle && request.Kind == ArtifactKind.Model && !file.Unpack && (PickleFiles.ByName(uri.FileName) || PickleFiles.ByName(file.Path)))
                return "uri: it is a pickle by its name, which runs code when it is loaded, and pickles are not allowed";
        }
        if (file.Sha256.Length > 0 && !(file.Sha256.Length == 64 && file.Sha256.All(char.IsAsciiHexDigit)))
            return "sha256: it has 64 hexadecimal digits";
        if (!paths.Add($"{(file.Sha256.Length > 0 ? file.Sha256.ToLowerInvariant() : file.Uri)}\n{file.Path}"))
            return "uri: another file is the same";
        if (file.Path.Length == 0)
            return null;
        if (ArtifactNames.PathFault(file.Path) is { } fault || IsReserved(file.Path))
            return $"path: {ArtifactNames.PathFault(file.Path) ?? $"names that begin with {ArtifactFolders.RecordFile} are taken"}";
        return file.Unpack || paths.Add(file.Path) ? null : "path: another file has the same";
    }

    /// <summary>Whether a path is one that only the node itself writes.</summary>
    public static bool IsReserved(string path) => path.StartsWith(ArtifactFolders.RecordFile, StringComparison.OrdinalIgnoreCase);

    private static string? MetadataFault(string metadata)
    {
        if (metadata.Length == 0)
            return null;
        if (System.Text.Encoding.UTF8.GetByteCount(metadata) > MaxMetadataBytes)
            return "it is longer than 256 KiB";
        try
        {
            using var document = JsonDocument.Parse(metadata);
            return document.RootElement.ValueKind == JsonValueKind.Object ? null : "it is no JSON object";
        }
        catch (JsonException)
        {
            return "it is no JSON";
        }
    }
}
