namespace ModelHost.Agent.Backends;

/// <summary>
/// Files that a backend reads or writes on this machine because its protocol names them by their paths: what it is to transcribe, what it has spoken. Each run has
/// a folder of its own, which goes with the run; a container sees it under the same path.
/// </summary>
/// <param name="dataFolder">The node's data folder.</param>
public sealed class RunFiles(string dataFolder)
{
    /// <summary>The longest file, in bytes: a request or an answer of the gateway is no longer.</summary>
    public const long MaxBytes = 512L * 1024 * 1024;

    private const int MaxName = 64;
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    /// <summary>The folder of a run.</summary>
    public static string FolderOf(string dataFolder, string runId) =>
        Guid.TryParse(runId, out _) ? Path.GetFullPath(Path.Combine(dataFolder, "run-files", runId)) : throw new ArgumentException("a run id is a GUID", nameof(runId));

    /// <summary>Makes the folder of a run, if it is not there.</summary>
    public string Open(string runId)
    {
        var folder = FolderOf(dataFolder, runId);
        Directory.CreateDirectory(Path.GetDirectoryName(folder)!, OwnerOnly);
        Directory.CreateDirectory(folder, OwnerOnly);
        return folder;
    }

    /// <summary>Where a file of a run is, whether it is there or not.</summary>
    /// <param name="runId">The run.</param>
    /// <param name="name">Its name: letters, digits and dots.</param>
    /// <exception cref="ArgumentException">The name is none.</exception>
    public string PathOf(string runId, string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return name.Length is > 0 and <= MaxName && name[0] != '.' && name.All(c => char.IsAsciiLetterOrDigit(c) || c == '.')
            ? Path.Combine(FolderOf(dataFolder, runId), name)
            : throw new ArgumentException("the name of a file has letters, digits and dots, and does not begin with one", nameof(name));
    }

    /// <summary>Writes a file whole.</summary>
    /// <exception cref="InvalidDataException">It is longer than <see cref="MaxBytes"/>; nothing of it is left.</exception>
    public async Task<string> WriteAsync(string runId, string name, Stream content, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(content);
        var path = PathOf(runId, name);
        Open(runId);
        await using var file = new FileStream(path, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, Options = FileOptions.Asynchronous });
        try
        {
            var buffer = new byte[64 * 1024];
            var written = 0L;
            while (await content.ReadAsync(buffer, cancellationToken) is var read and > 0)
            {
                written += read;
                if (written > MaxBytes)
                    throw new InvalidDataException($"the file is longer than {MaxBytes} bytes");
                await file.WriteAsync(buffer.AsMemory(0, read), cancellationToken);
            }
            await file.FlushAsync(cancellationToken);
            return path;
        }
        catch
        {
            File.Delete(path);
            throw;
        }
    }

    /// <summary>Opens a file that the backend has written; null: there is none. A link is none: it would lead to what is not the backend's.</summary>
    public FileStream? OpenRead(string runId, string name)
    {
        var path = PathOf(runId, name);
        if (!File.Exists(path))
            return null;
        var file = new FileStream(path, new FileStreamOptions { Mode = FileMode.Open, Access = FileAccess.Read, Share = FileShare.ReadWrite | FileShare.Delete, Options = FileOptions.Asynchronous });
        // asked of what is open: a link could be laid between a look and the opening
        var opened = new FileInfo($"/proc/self/fd/{file.SafeFileHandle.DangerousGetHandle()}").LinkTarget;
        if (file.Length <= MaxBytes && opened?.EndsWith($"/run-files/{runId}/{name}", StringComparison.Ordinal) == true)
            return file;
        file.Dispose();
        return null;
    }

    /// <summary>Removes a file; one that is not there is no error.</summary>
    public void Delete(string runId, string name)
    {
        var path = PathOf(runId, name);
        if (File.Exists(path))
            File.Delete(path);
    }

    /// <summary>Removes the folder of a run that has ended.</summary>
    public void Forget(string runId)
    {
        var folder = FolderOf(dataFolder, runId);
        if (Directory.Exists(folder))
            Directory.Delete(folder, recursive: true);
    }
}
