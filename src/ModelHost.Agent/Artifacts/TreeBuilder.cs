using ModelHost.Agent.Downloads;
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
internal sealed class TreeBuilder(ArtifactFolders folders)
{
    private const string RunFile = "run.sh";
    private const UnixFileMode Executable = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;

    /// <summary>Makes the folder anew.</summary>
    /// <exception cref="DownloadException">What was downloaded is not to be used.</exception>
    public async Task<BuiltTree> BuildAsync(PullRequest request, IReadOnlyList<Fetched> fetched, PullProgress progress, CancellationToken cancellationToken)
    {
        var tree = Path.Combine(folders.StagingOf(request.Kind, request.Name), "tree");
        if (Directory.Exists(tree))
            Directory.Delete(tree, recursive: true);
        Directory.CreateDirectory(tree);
        var files = new List<ArtifactFile>();
        await Task.Run(() =>
        {
            for (var i = 0; i < fetched.Count; i++)
            {
                progress.Say(fetched[i].Uri);
                Add(request, request.Files[i], fetched[i], tree, files, cancellationToken);
            }
            Check(request, tree, cancellationToken);
        }, cancellationToken);
        return new BuiltTree(tree, files, new DirectoryInfo(tree).EnumerateFiles("*", s_all).Sum(file => file.LinkTarget is null ? file.Length : 0));
    }

    private static readonly EnumerationOptions s_all = new() { RecurseSubdirectories = true, AttributesToSkip = 0, IgnoreInaccessible = false };

    private static void Add(PullRequest request, PullFile file, Fetched fetched, string tree, List<ArtifactFile> files, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (fetched.Source is Source.Files items)
        {
            for (var i = 0; i < items.Items.Count; i++)
            {
                var path = items.IsFolder ? Join(file.Path, items.Items[i].Path) : file.Path.Length > 0 ? file.Path : items.Items[i].Path;
                Place(fetched.Files[i], tree, path, files);
            }
        }
    }

    private static string Join(string folder, string path) => folder.Length == 0 ? path : $"{folder}/{path}";

    private static void Place(DownloadedFile file, string tree, string path, List<ArtifactFile> files)
    {
        if (ArtifactNames.PathFault(path) is { } fault)
            throw new DownloadException("uri_invalid", $"'{path}' cannot be the name of a file: {fault}");
        if (PullRules.IsReserved(path))
            throw new DownloadException("uri_invalid", $"'{path}' cannot be the name of a file: it is taken");
        var target = Path.Combine(tree, path);
        if (Path.Exists(target))
            throw new DownloadException("uri_invalid", $"two files are to be '{path}'");
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        // a second name, so that a node that goes down now finds the download again
        Libc.Link(file.Path, target);
        File.SetUnixFileMode(target, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
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
            foreach (var file in new DirectoryInfo(tree).EnumerateFiles("*", s_all))
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
        using var handle = File.OpenHandle(file.FullName);
        return PickleFiles.ByBeginning(beginning[..RandomAccess.Read(handle, beginning, 0)]);
    }
}
