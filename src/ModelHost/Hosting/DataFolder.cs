using System.Security.Cryptography;
using System.Text;

namespace ModelHost.Hosting;

/// <summary>The data folder cannot be used; the message says why and what helps.</summary>
public sealed class DataFolderException(string message) : Exception(message);

/// <summary>
/// The one folder in which everything lives that must survive: the database, the keys, the logs. One process owns it at a time. The ids
/// of the cluster and of the local node stand in files of their own, so that a lost database does not lose the containers.
/// </summary>
internal sealed class DataFolder : IDisposable
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private const int LockedByAnother = 11; // EWOULDBLOCK
    private readonly FileStream _lock;

    private DataFolder(string path, FileStream ownership)
    {
        (Path, _lock) = (path, ownership);
        ClusterId = ReadOrMake("cluster-id");
        NodeId = ReadOrMake("node-id");
        // an existing folder may be open to others; what engines say and who may do what is not for them
        foreach (var name in (string[])["logs", "models", "engines", "keys"])
            PrivateFolder(name);
    }

    /// <summary>Absolute path of the folder.</summary>
    public string Path { get; }

    /// <summary>Id of the cluster, written into the labels of its containers.</summary>
    public string ClusterId { get; }

    /// <summary>Id of the node inside this process.</summary>
    public string NodeId { get; }

    /// <summary>Path of a file or folder in it.</summary>
    public string File(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>Makes the folder if there is none, and takes it over.</summary>
    /// <exception cref="DataFolderException">Another process owns it, or it cannot be written.</exception>
    public static DataFolder Open(string path)
    {
        path = System.IO.Path.GetFullPath(path);
        try
        {
            if (!Directory.Exists(path))
                Directory.CreateDirectory(path, OwnerOnly | UnixFileMode.UserExecute);
            var options = new FileStreamOptions
            {
                Mode = FileMode.OpenOrCreate,
                Access = FileAccess.ReadWrite,
                Share = FileShare.None,
                UnixCreateMode = OwnerOnly,
            };
            return new DataFolder(path, new FileStream(System.IO.Path.Combine(path, "lock"), options));
        }
        catch (IOException e) when (e.HResult == LockedByAnother)
        {
            throw new DataFolderException($"the data folder {path} is used by another modelhost; give this one another with --data ({e.Message})");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DataFolderException($"the data folder {path} cannot be used: {e.Message}");
        }
    }

    /// <summary>A folder in it that only its owner can look into; made if there is none.</summary>
    public DirectoryInfo PrivateFolder(string name) => Directory.CreateDirectory(File(name), OwnerOnly | UnixFileMode.UserExecute);

    /// <summary>A file in it that only its owner can read; made empty if there is none.</summary>
    public string PrivateFile(string name)
    {
        new FileStream(File(name), new FileStreamOptions { Mode = FileMode.OpenOrCreate, Access = FileAccess.ReadWrite, Share = FileShare.ReadWrite, UnixCreateMode = OwnerOnly }).Dispose();
        return File(name);
    }

    /// <summary>Writes a file whole or not at all, readable by its owner only.</summary>
    public void WriteSecret(string name, string text)
    {
        var temporary = File(name + ".new");
        var options = new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = OwnerOnly };
        using (var file = new FileStream(temporary, options))
        {
            file.Write(Encoding.UTF8.GetBytes(text + "\n"));
            file.Flush(flushToDisk: true);
        }
        System.IO.File.Move(temporary, File(name), overwrite: true);
    }

    /// <summary>Reads a file; null: there is none.</summary>
    public string? Read(string name) => System.IO.File.Exists(File(name)) ? System.IO.File.ReadAllText(File(name)).Trim() : null;

    public void Dispose() => _lock.Dispose();

    private string ReadOrMake(string name)
    {
        if (Read(name) is { Length: > 0 } id)
            return id;
        var made = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16));
        WriteSecret(name, made);
        return made;
    }
}
