using Microsoft.Extensions.Options;
using ModelHost.Agent.Downloads;
using ModelHost.Core.Artifacts;
using ModelHost.Hosting;

namespace ModelHost.Features.Galleries;

/// <summary>Where an index or a configuration is read.</summary>
/// <param name="Address">On the web; null: not there.</param>
/// <param name="File">On this machine; null: not there.</param>
/// <param name="BuiltIn">In this build; null: not there.</param>
internal sealed record SourcePlace(Uri? Address = null, string? File = null, string? BuiltIn = null);

/// <summary>Understands the addresses of galleries and of the configurations that their entries point to.</summary>
internal sealed class GallerySources(DataFolder folder, IOptions<DownloadOptions> downloads)
{
    // the rest of the data folder holds keys
    private static readonly string[] Folders = ["galleries", "models"];

    /// <summary>What is wrong with an address; null: nothing that its text tells.</summary>
    public string? Fault(string source) => Resolve(source, out var fault) is null ? fault : null;

    /// <summary>Finds out where an address leads.</summary>
    /// <param name="source">The address.</param>
    /// <param name="fault">Why it leads nowhere.</param>
    public SourcePlace? Resolve(string source, out string? fault)
    {
        fault = null;
        if (BuiltInGallery.IsKnown(source))
            return new SourcePlace(BuiltIn: source);
        if (!ArtifactUri.Parse(source).TryGet(out var uri, out var refusal))
        {
            fault = refusal.Detail;
            return null;
        }
        switch (uri)
        {
            case ArtifactUri.Web web:
                return new SourcePlace(web.Url);
            case ArtifactUri.GitHub hub:
                return new SourcePlace(new Uri($"{downloads.Value.GitHubUrl.TrimEnd('/')}/{hub.Repository}/{hub.Revision}/{Escape(hub.Path)}"));
            case ArtifactUri.HuggingFace { Path.Length: > 0 } face:
                return new SourcePlace(new Uri($"{downloads.Value.HuggingFaceUrl.TrimEnd('/')}/{face.Repository}/resolve/{face.Revision}/{Escape(face.Path)}"));
            case ArtifactUri.Local local:
                var full = Path.GetFullPath(local.Path, folder.Path);
                if (Folders.Any(name => full.StartsWith(folder.File(name) + "/", StringComparison.Ordinal)))
                    return new SourcePlace(File: full);
                fault = $"a file must lie in one of the folders {string.Join(" and ", Folders)} of the data folder";
                return null;
            default:
                fault = "an address that is read is one of https://, github:, huggingface://OWNER/REPO/PATH or file://";
                return null;
        }
    }

    /// <summary>The file of a <c>file://</c> address once more, when it is read: links may have been laid in between.</summary>
    /// <returns>The file with all links followed; null: it is not there, or leads out of the folders.</returns>
    public string? Follow(string file)
    {
        var real = Real(file);
        return real is not null && Folders.Any(name => Real(folder.File(name)) is { } root && real.StartsWith(root + "/", StringComparison.Ordinal)) ? real : null;
    }

    private static string Escape(string path) => string.Join('/', path.Split('/').Select(Uri.EscapeDataString));

    /// <summary>A path with every link in it followed; null: it is not there.</summary>
    private static string? Real(string path)
    {
        const int maxLinks = 40;
        var links = 0;
        var real = "/";
        var rest = new Stack<string>(path.Split('/', StringSplitOptions.RemoveEmptyEntries).Reverse());
        while (rest.TryPop(out var part))
        {
            if (part == "..")
            {
                real = Path.GetDirectoryName(real) ?? "/";
                continue;
            }
            var next = Path.Combine(real, part);
            if (new FileInfo(next).LinkTarget is not { } target)
            {
                if (!System.IO.File.Exists(next) && !Directory.Exists(next))
                    return null;
                real = next;
                continue;
            }
            if (++links > maxLinks)
                return null;
            if (target.StartsWith('/'))
                real = "/";
            foreach (var step in target.Split('/', StringSplitOptions.RemoveEmptyEntries).Where(step => step != ".").Reverse())
                rest.Push(step);
        }
        return real;
    }
}
