using System.IO.Compression;
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using ModelHost.Core.Packages;

namespace ModelHost.Agent.Runtimes;

/// <summary>The wheels that an image needs, held open, so that what was hashed is what goes in.</summary>
internal sealed partial class WheelFolder : IAsyncDisposable
{
    private const int MaxFiles = 10_000;
    private const int MaxMetadata = 1024 * 1024;

    private readonly List<WheelFile> _wheels = [];
    private readonly List<FileStream> _contents = [];

    private WheelFolder()
    {
    }

    /// <summary>The wheels.</summary>
    public IReadOnlyList<WheelFile> Wheels => _wheels;

    /// <summary>The wheels with their bytes, from the beginning.</summary>
    public IEnumerable<(string FileName, Stream Content)> Contents()
    {
        foreach (var (wheel, content) in _wheels.Zip(_contents))
        {
            content.Position = 0;
            yield return (wheel.FileName, content);
        }
    }

    /// <summary>Opens the wheels named, those of the projects named, and those of everything these say they require.</summary>
    /// <param name="folder">Where they are; empty: nowhere.</param>
    /// <param name="packages">What is wanted.</param>
    /// <param name="cancellationToken">Ends the reading.</param>
    /// <exception cref="RuntimeException">A wheel that is named is not there, or the folder cannot be read.</exception>
    public static async Task<WheelFolder> OpenAsync(string folder, IReadOnlyList<PackageSpec> packages, CancellationToken cancellationToken)
    {
        var open = new WheelFolder();
        try
        {
            var files = Files(folder);
            foreach (var named in packages.Where(package => package.IsWheel))
            {
                if (!files.Contains(named.Text))
                    throw Failed(folder.Length == 0
                        ? $"{named.Text} is a wheel, and the node has no folder of them (Node:WheelFolder)."
                        : $"there is no {named.Text} in the node's folder of wheels (Node:WheelFolder).");
            }
            var byProject = files.ToLookup(file => PackageSpec.ProjectOfWheel(file)!);
            // of a project whose wheel is named, no other wheel is wanted
            var wanted = new Queue<string>(packages.SelectMany(package => package.IsWheel ? [package.Text] : byProject[package.Project]));
            var seen = new HashSet<string>(packages.Select(package => package.Project));
            while (wanted.TryDequeue(out var file))
            {
                var content = new FileStream(Path.Combine(folder, file), FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete);
                open._contents.Add(content);
                open._wheels.Add(new WheelFile(file, Convert.ToHexStringLower(await SHA256.HashDataAsync(content, cancellationToken))));
                foreach (var required in Required(content).Where(seen.Add).SelectMany(project => byProject[project]))
                    wanted.Enqueue(required);
            }
            return open;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            await open.DisposeAsync();
            throw Failed($"the node's folder of wheels cannot be read: {e.Message}", e);
        }
        catch
        {
            await open.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var content in _contents)
            await content.DisposeAsync();
    }

    /// <summary>File names of all wheels in a folder; links are none.</summary>
    private static HashSet<string> Files(string folder)
    {
        if (folder.Length == 0)
            return [];
        var files = new DirectoryInfo(folder).EnumerateFiles("*.whl").Take(MaxFiles + 1).ToArray();
        return files.Length > MaxFiles ? throw Failed($"the node's folder of wheels has more than {MaxFiles} of them.")
            : [.. files.Where(file => file.LinkTarget is null && PackageSpec.ProjectOfWheel(file.Name) is not null).Select(file => file.Name)];
    }

    /// <summary>Projects that a wheel requires, whatever for: which of them it needs here, the installer finds out.</summary>
    private static IEnumerable<string> Required(FileStream content)
    {
        try
        {
            content.Position = 0;
            using var archive = new ZipArchive(content, ZipArchiveMode.Read, leaveOpen: true);
            var metadata = archive.Entries.FirstOrDefault(entry => entry.Name == "METADATA" && entry.FullName.EndsWith(".dist-info/METADATA", StringComparison.Ordinal));
            if (metadata is null)
                return [];
            using var stream = metadata.Open();
            var buffer = new byte[MaxMetadata];
            var text = System.Text.Encoding.UTF8.GetString(buffer, 0, stream.ReadAtLeast(buffer, MaxMetadata, throwOnEndOfStream: false));
            return [.. RequiredProject().Matches(text).Select(match => PackageSpec.Normal(match.Groups["name"].Value)).Distinct()];
        }
        catch (InvalidDataException)
        {
            return []; // what is no wheel, the installer says so
        }
    }

    private static RuntimeException Failed(string reason, Exception? inner = null) => new(reason, inner) { Failure = PackageFailures.Because(reason) };

    [GeneratedRegex(@"^Requires-Dist: *(?<name>[A-Za-z0-9][A-Za-z0-9._-]*)", RegexOptions.Multiline | RegexOptions.NonBacktracking)]
    private static partial Regex RequiredProject();
}
