using System.Security.Cryptography;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Extraction;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Artifacts;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>A folder that is whole and can take an artifact's place.</summary>
/// <param name="Path">Where it lies.</param>
/// <param name="Files">The files that it was made of, as they came.</param>
/// <param name="SizeBytes">Bytes of all its files.</param>
internal sealed record BuiltTree(string Path, IReadOnlyList<ArtifactFile> Files, long SizeBytes);

/// <summary>Puts together what was downloaded, in a folder of its own.</summary>
internal sealed class TreeBuilder(ArtifactFolders folders, DownloadOptions options, DiskRoom room)
{
    private const string RunFile = "run.sh";
    private const UnixFileMode Executable = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;

    /// <summary>Makes the folder anew.</summary>
    /// <exception cref="DownloadException">What was downloaded is not to be used.</exception>
    public async Task<BuiltTree> BuildAsync(PullRequest request, IReadOnlyList<Fetched> fetched, PullProgress progress, CancellationToken cancellationToken)
    {
        var tree = folders.TreeOf(request.Kind, request.Name);
        DeleteFolder(tree);
        Directory.CreateDirectory(tree);
        var files = new List<ArtifactFile>();
        UnpackMeter Meter() => new(new UnpackLimits(options.MaxFileBytes, options.MaxArchiveEntries), room, cancellationToken);
        var meter = Meter();
        await Task.Run(() =>
        {
            for (var i = 0; i < fetched.Count; i++)
            {
                progress.Say(GuardedHttp.Display(fetched[i].Uri));
                if (fetched[i].Source is Source.SavedImage image)
                    AddSaved(request.Files[i], image.Path, tree, Path.Combine(folders.StagingOf(request.Kind, request.Name), "image"), files, meter, Meter());
                else
                    Add(request, request.Files[i], fetched[i], tree, files, meter);
            }
            Check(request, tree, cancellationToken);
        }, cancellationToken);
        return new BuiltTree(tree, files, Entries(tree).OfType<FileInfo>().Sum(file => file.LinkTarget is null ? file.Length : 0));
    }

    /// <summary>All files and links below a folder; the framework's own walk goes through links, which may lead round in circles.</summary>
    private static IEnumerable<FileSystemInfo> Entries(string folder)
    {
        var folders = new Stack<DirectoryInfo>([new DirectoryInfo(folder)]);
        while (folders.TryPop(out var next))
        {
            foreach (var entry in next.EnumerateFileSystemInfos())
            {
                if (entry is DirectoryInfo { LinkTarget: null } below)
                    folders.Push(below);
                else
                    yield return entry;
            }
        }
    }

    private static void Add(PullRequest request, PullFile file, Fetched fetched, string tree, List<ArtifactFile> files, UnpackMeter meter)
    {
        switch (fetched.Source)
        {
            case Source.Files items:
                for (var i = 0; i < items.Items.Count; i++)
                {
                    var path = items.IsFolder ? Join(file.Path, items.Items[i].Path) : file.Path.Length > 0 ? file.Path : items.Items[i].Path;
                    AddFile(request, file, fetched.Files[i], tree, path, files, meter);
                }
                break;
            case Source.Image:
                AddLayers(fetched.Files.Select(layer => layer.Path), Folder(tree, file.Path), meter);
                break;
            case Source.Local { Path: var folder } when Directory.Exists(folder):
                foreach (var found in Entries(folder))
                {
                    var path = Path.GetRelativePath(folder, found.FullName);
                    if (found is not FileInfo { LinkTarget: null } plain)
                        throw new DownloadException("uri_invalid", $"there is a link in the folder: {path}");
                    if (!PullRules.IsReserved(path))
                        Place(Facts(plain), tree, Join(file.Path, path), files, isCopy: true);
                    meter.Entry();
                }
                break;
            case Source.Local local:
                AddFile(request, file, Checked(file, local.Path), tree, file.Path.Length > 0 ? file.Path : Path.GetFileName(local.Path), files, meter, isCopy: true);
                break;
        }
    }

    private static void AddLayers(IEnumerable<string> layers, string tree, UnpackMeter meter)
    {
        var writer = new TreeWriter(tree, meter, isLayered: true);
        foreach (var layer in layers)
            Archive.Unpack(layer, writer, meter, isLayer: true);
    }

    private static void AddSaved(PullFile file, string tarball, string tree, string scratch, List<ArtifactFile> files, UnpackMeter meter, UnpackMeter outer)
    {
        var facts = Checked(file, tarball);
        DeleteFolder(scratch);
        try
        {
            Archive.Unpack(tarball, new TreeWriter(Directory.CreateDirectory(scratch).FullName, outer), outer, isLayer: false);
            AddLayers(SavedImage.Layers(scratch), Folder(tree, file.Path), meter);
        }
        finally
        {
            DeleteFolder(scratch);
        }
        files.Add(new ArtifactFile { Path = Path.GetFileName(tarball), SizeBytes = facts.SizeBytes, Sha256 = facts.Sha256 });
    }

    private static void DeleteFolder(string folder)
    {
        if (Directory.Exists(folder))
            Directory.Delete(folder, recursive: true);
    }

    private static DownloadedFile Checked(PullFile file, string path)
    {
        var facts = Facts(new FileInfo(path));
        return file.Sha256.Length == 0 || facts.Sha256.Equals(file.Sha256, StringComparison.OrdinalIgnoreCase) ? facts
            : throw new DownloadException("hash_mismatch", $"{file.Uri} has the SHA-256 {facts.Sha256}, not {file.Sha256}");
    }

    private static void AddFile(
        PullRequest request, PullFile file, DownloadedFile got, string tree, string path, List<ArtifactFile> files, UnpackMeter meter, bool isCopy = false)
    {
        if (!file.Unpack && !(request.Kind == ArtifactKind.Backend && Archive.Is(got.Path)))
        {
            Place(got, tree, path, files, isCopy);
            return;
        }
        Archive.Unpack(got.Path, new TreeWriter(Folder(tree, file.Path), meter), meter, isLayer: false);
        files.Add(new ArtifactFile { Path = path, SizeBytes = got.SizeBytes, Sha256 = got.Sha256 });
    }

    private static string Folder(string tree, string path) => Directory.CreateDirectory(path.Length == 0 ? tree : Path.Combine(tree, path)).FullName;

    private static DownloadedFile Facts(FileInfo file)
    {
        using var content = file.OpenRead();
        return new DownloadedFile(file.FullName, Convert.ToHexStringLower(SHA256.HashData(content)), file.Length);
    }

    private static string Join(string folder, string path) => folder.Length == 0 ? path : $"{folder}/{path}";

    private static void Place(DownloadedFile file, string tree, string path, List<ArtifactFile> files, bool isCopy)
    {
        if (ArtifactNames.PathFault(path) is { } fault)
            throw new DownloadException("uri_invalid", $"'{path}' cannot be the name of a file: {fault}");
        if (PullRules.IsReserved(path))
            throw new DownloadException("uri_invalid", $"'{path}' cannot be the name of a file: it is taken");
        var target = Path.Combine(tree, path);
        if (Path.Exists(target))
            throw new DownloadException("uri_invalid", $"two files are to be '{path}'");
        for (var slash = path.IndexOf('/', StringComparison.Ordinal); slash > 0; slash = path.IndexOf('/', slash + 1))
        {
            if (File.Exists(Path.Combine(tree, path[..slash])))
                throw new DownloadException("uri_invalid", $"'{path[..slash]}' is to be a file, and the folder of '{path}' too");
        }
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        if (isCopy)
        {
            File.Copy(file.Path, target);
        }
        else
        {
            // a second name, so that a node that goes down now finds the download again
            Libc.Link(file.Path, target);
            File.SetUnixFileMode(target, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
        }
        files.Add(new ArtifactFile { Path = path, SizeBytes = file.SizeBytes, Sha256 = file.Sha256 });
    }

    private static void Check(PullRequest request, string tree, CancellationToken cancellationToken)
    {
        if (request.Kind == ArtifactKind.Backend)
        {
            var run = Path.Combine(tree, RunFile);
            if (!File.Exists(run))
                throw new DownloadException("install_failed", $"it is no backend: there is no {RunFile} in it");
            File.SetUnixFileMode(run, File.GetUnixFileMode(run) | Executable);
        }
        else if (!request.AllowPickle)
        {
            foreach (var file in Entries(tree).OfType<FileInfo>())
            {
                cancellationToken.ThrowIfCancellationRequested();
                if (file.LinkTarget is null && IsPickle(file))
                    throw new DownloadException("pickle_refused", $"{Path.GetRelativePath(tree, file.FullName)} is a pickle, which runs code when it is loaded");
            }
        }
    }

    private static bool IsPickle(FileInfo file)
    {
        if (PickleFiles.ByName(file.Name))
            return true;
        Span<byte> beginning = stackalloc byte[PickleFiles.BeginningBytes];
        using var content = file.OpenRead();
        var read = beginning[..RandomAccess.Read(content.SafeFileHandle, beginning, 0)];
        return PickleFiles.ByBeginning(read) || (read.StartsWith("PK"u8) && ZipUnpacker.HoldsPickle(content));
    }
}
