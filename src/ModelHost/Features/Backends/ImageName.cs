using ModelHost.Core.Artifacts;
using ModelHost.Core.Engines;

namespace ModelHost.Features.Backends;

/// <summary>Names of images as container engines write them.</summary>
internal static class ImageName
{
    private const string DockerHub = EngineImage.DockerHub, Library = "library/", Latest = "latest";

    /// <summary>The address of a registry as an engine names it: <c>repository:tag</c> or <c>repository@digest</c>; null: it is none.</summary>
    public static string? Of(string uri)
    {
        if ((uri.StartsWith("oci://", StringComparison.OrdinalIgnoreCase) ? ArtifactUri.Parse(uri) : ArtifactUri.Parse("oci://" + uri)).TryGet(out var parsed, out _)
            && parsed is ArtifactUri.Image image)
        {
            var repository = image.Registry == DockerHub ? image.Repository.StartsWith(Library, StringComparison.Ordinal) ? image.Repository[Library.Length..] : image.Repository
                : $"{image.Registry}/{image.Repository}";
            return repository + (image.Reference.StartsWith("sha256:", StringComparison.Ordinal) ? "@" : ":") + image.Reference;
        }
        return null;
    }

    /// <summary>What stands before tag or digest.</summary>
    public static string Repository(string image) =>
        image.IndexOf('@', StringComparison.Ordinal) is >= 0 and var at ? image[..at] : image.LastIndexOf(':') is var colon && colon > image.LastIndexOf('/') ? image[..colon] : image;

    /// <summary>
    /// The tag under which the repository of an image has a version: with a <c>v</c> before its number where releases are tagged so, or it is not to be seen how; of a variant
    /// such as <c>latest-x86_64</c> or <c>cuda-latest</c>, that of the variant.
    /// </summary>
    public static string TagOf(string image, string version)
    {
        var tag = Tag(image);
        if (tag.StartsWith(Latest + "-", StringComparison.Ordinal))
            return EngineImage.Tag(version) is var release && release.EndsWith(tag[Latest.Length..], StringComparison.Ordinal) ? release : release + tag[Latest.Length..];
        if (tag.EndsWith("-" + Latest, StringComparison.Ordinal))
            return version.StartsWith(tag[..^Latest.Length], StringComparison.Ordinal) ? version : tag[..^Latest.Length] + version;
        return tag.Length > 0 && !EngineImage.IsMoving(tag) && EngineImage.VersionOf(tag) == tag ? version : EngineImage.Tag(version);
    }

    /// <summary>The tag; empty: there is none.</summary>
    public static string Tag(string image) => image.Contains('@', StringComparison.Ordinal) ? "" : image[Repository(image).Length..].TrimStart(':');
}
