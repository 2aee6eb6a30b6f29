using ModelHost.Hosting;

namespace ModelHost.Features.Galleries;

/// <summary>Where an index or a configuration is read.</summary>
/// <param name="Address">On the web; null: not there.</param>
/// <param name="File">On this machine; null: not there.</param>
/// <param name="BuiltIn">In this build; null: not there.</param>
internal sealed record SourcePlace(Uri? Address = null, string? File = null, string? BuiltIn = null);

/// <summary>Understands the addresses of galleries and of the configurations that their entries point to.</summary>
internal sealed class GallerySources(DataFolder folder, Microsoft.Extensions.Options.IOptions<GalleryOptions> options)
{
    private const int MaxLength = 2048;
    private const string DefaultBranch = "main";

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
        if (source.Length > MaxLength || source.Any(char.IsControl))
            fault = $"is longer than {MaxLength} characters, or holds control characters";
        else if (BuiltInGallery.IsKnown(source))
            return new SourcePlace(BuiltIn: source);
        else if (After(source, "github://", "github:") is { } github)
            return GitHub(github, out fault);
        else if (After(source, "file://") is { } path)
            return File(path, out fault);
        else if (Uri.TryCreate(source, UriKind.Absolute, out var address) && address is { Scheme: "http" or "https", Host.Length: > 0, UserInfo: "" })
            return new SourcePlace(address);
        else
            fault = "is no address of https://, github: or file://, or has a login in it";
        return null;
    }

    /// <summary>The file of a <c>file://</c> address once more, when it is read: links may have been laid in between.</summary>
    /// <returns>The file with all links followed; null: it is not there, or leads out of the folders.</returns>
    public string? Follow(string file)
    {
        var real = Real(file);
        return real is not null && Folders.Any(name => Real(folder.File(name)) is { } root && real.StartsWith(root + "/", StringComparison.Ordinal)) ? real : null;
    }

    private SourcePlace? File(string path, out string? fault)
    {
        fault = null;
        // a relative path is one of the folder of galleries
        var full = Path.GetFullPath(path, folder.File(Folders[0]));
        if (Folders.Any(name => full.StartsWith(folder.File(name) + "/", StringComparison.Ordinal)))
            return new SourcePlace(File: full);
        fault = $"is a file that does not lie in the folders {string.Join(" and ", Folders)} of the data folder";
        return null;
    }

    private SourcePlace? GitHub(string path, out string? fault)
    {
        fault = null;
        var (file, branch) = path.LastIndexOf('@') is >= 0 and var at ? (path[..at], path[(at + 1)..]) : (path, DefaultBranch);
        if (file.Split('/') is { Length: >= 3 } parts && parts.Concat(branch.Split('/')).All(part => part is not ("" or "." or "..")))
        {
            var escaped = string.Join('/', parts[..2].Concat(branch.Split('/')).Concat(parts[2..]).Select(Uri.EscapeDataString));
            return new SourcePlace(new Uri($"{options.Value.GitHubFiles.TrimEnd('/')}/{escaped}"));
        }
        fault = "is no github:owner/repository/path@branch";
        return null;
    }

    private static string? After(string source, params ReadOnlySpan<string> prefixes)
    {
        foreach (var prefix in prefixes)
        {
            if (source.StartsWith(prefix, StringComparison.OrdinalIgnoreCase))
                return source[prefix.Length..];
        }
        return null;
    }

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
