using ModelHost.Agent.Artifacts;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Artifacts;

namespace ModelHost.Agent.Extraction;

/// <summary>
/// Writes what archives tell into a folder, and nothing outside of it. Nothing is written through a link: a link is only ever the last part of a name, and
/// leads to a place in the folder.
/// </summary>
/// <param name="root">The folder.</param>
/// <param name="meter">Counts what is written.</param>
/// <param name="isLayered">Whether later archives replace what earlier ones wrote, as layers of an image do.</param>
internal sealed class TreeWriter(string root, UnpackMeter meter, bool isLayered = false)
{
    private const int MaxLink = 4096, BufferBytes = 128 * 1024;
    private const UnixFileMode Plain = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
    private const UnixFileMode Executable = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;

    private readonly byte[] _buffer = new byte[BufferBytes];
    // of the archive at hand, with the folders above them
    private readonly HashSet<string> _written = new(StringComparer.Ordinal);

    /// <summary>Begins with another archive.</summary>
    /// <param name="archiveBytes">Its size.</param>
    public void Begin(long archiveBytes)
    {
        meter.Begin(archiveBytes);
        _written.Clear();
    }

    /// <summary>A folder.</summary>
    public void Folder(string name)
    {
        if (Normal(name) is { } path)
            MakeFolder(path);
    }

    /// <summary>A file. Owner, special bits and what others may do are not taken over, only whether it can be run.</summary>
    public void File(string name, UnixFileMode mode, Stream? content)
    {
        var target = Claim(name);
        using var file = new FileStream(target, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, BufferSize = 0 });
        for (int read; content is not null && (read = content.Read(_buffer)) > 0;)
            file.Write(_buffer, 0, read);
        System.IO.File.SetUnixFileMode(file.SafeFileHandle, (mode & Executable) != 0 ? Plain | Executable : Plain);
    }

    /// <summary>A symbolic link.</summary>
    public void SymbolicLink(string name, string to)
    {
        var target = Claim(name);
        var depth = Normal(name)!.Count(c => c == '/');
        var parts = to.Split('/').SkipWhile(part => part == "..").ToArray();
        var up = to.Split('/').Length - parts.Length;
        // '..' after a name could be taken from where a further link leads
        if (to.Length is 0 or > MaxLink || to[0] == '/' || to.Any(char.IsControl) || up > depth || parts.Contains(".."))
            throw Invalid(name, $"is a link to '{Shown(to)}', which is not a place in the archive");
        System.IO.File.CreateSymbolicLink(target, to);
    }

    /// <summary>Another name of a file that the archive has brought.</summary>
    public void HardLink(string name, string to)
    {
        if (Normal(to) is not { } path || Find(path) is not FileInfo { LinkTarget: null } existing)
            throw Invalid(name, $"is a link to '{Shown(to)}', which is no file of the archive");
        Libc.Link(existing.FullName, Claim(name));
    }

    /// <summary>Takes away what an earlier archive wrote; what is not there is no error.</summary>
    public void Remove(string name)
    {
        if (Normal(name) is { } path && !_written.Contains(path) && Find(path) is { } found)
            Delete(found);
    }

    /// <summary>Takes away what earlier archives wrote into a folder.</summary>
    /// <param name="name">The folder; empty: all of it.</param>
    public void Clear(string name)
    {
        var path = Normal(name);
        if ((path is null ? new DirectoryInfo(root) : Find(path)) is not DirectoryInfo { LinkTarget: null } folder)
            return;
        foreach (var entry in folder.GetFileSystemInfos())
        {
            if (!_written.Contains(path is null ? entry.Name : $"{path}/{entry.Name}"))
                Delete(entry);
        }
    }

    private static void Delete(FileSystemInfo entry)
    {
        if (entry is DirectoryInfo { LinkTarget: null } folder)
            folder.Delete(recursive: true);
        else
            entry.Delete();
    }

    /// <summary>The path that a name stands for; null: the folder itself.</summary>
    private static string? Normal(string name)
    {
        var path = name;
        while (path.StartsWith("./", StringComparison.Ordinal))
            path = path[2..];
        path = path.Length > 1 ? path.TrimEnd('/') : path;
        if (path is "" or ".")
            return null;
        if (ArtifactNames.PathFault(path) is { } fault)
            throw Invalid(name, fault);
        return PullRules.IsReserved(path) ? throw Invalid(name, "has a name that is taken") : path;
    }

    /// <summary>Makes room for a file or link, and the folders above it.</summary>
    private string Claim(string name)
    {
        var path = Normal(name) ?? throw Invalid(name, "has no name");
        meter.Entry();
        if (path.LastIndexOf('/') is var slash and > 0)
            MakeFolder(path[..slash]);
        if (!_written.Add(path))
            throw Invalid(name, "comes twice");
        if (Entry(path) is { } there)
        {
            if (!isLayered)
                throw Invalid(name, "is there already");
            Delete(there);
        }
        return Path.Combine(root, path);
    }

    private void MakeFolder(string path)
    {
        for (var end = path.IndexOf('/', StringComparison.Ordinal); ; end = path.IndexOf('/', end + 1))
        {
            var part = end < 0 ? path : path[..end];
            var isNew = !_written.Contains(part);
            var there = Entry(part);
            if (there is DirectoryInfo { LinkTarget: null })
                _written.Add(part);
            else if (there is null || (isLayered && isNew && there.LinkTarget is null))
            {
                meter.Entry();
                there?.Delete();
                Directory.CreateDirectory(Path.Combine(root, part), Plain | Executable);
                _written.Add(part);
            }
            else
                throw Invalid(path, $"lies below '{Shown(part)}', which is no folder");
            if (end < 0)
                return;
        }
    }

    /// <summary>What is there under a path that leads through no link; null: nothing.</summary>
    private FileSystemInfo? Find(string path)
    {
        for (var end = path.IndexOf('/', StringComparison.Ordinal); end >= 0; end = path.IndexOf('/', end + 1))
        {
            if (Entry(path[..end]) is not DirectoryInfo { LinkTarget: null })
                return null;
        }
        return Entry(path);
    }

    private FileSystemInfo? Entry(string path)
    {
        var full = Path.Combine(root, path);
        var folder = new DirectoryInfo(full);
        if (folder.Exists)
            return folder;
        var file = new FileInfo(full);
        return file.Exists || file.LinkTarget is not null ? file : null;
    }

    private static DownloadException Invalid(string name, string why) => new("archive_invalid", $"the archive is refused: '{Shown(name)}' {why}");

    private static string Shown(string name) => new([.. name.Take(200).Select(c => char.IsControl(c) ? '?' : c)]);
}
