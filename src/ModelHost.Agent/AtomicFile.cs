namespace ModelHost.Agent;

/// <summary>Files that are there whole or not at all, for their owner's eyes only.</summary>
internal static class AtomicFile
{
    /// <summary>Access for the owner alone.</summary>
    public const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>Writes a file and the folder it is in.</summary>
    /// <exception cref="IOException">The disk is full.</exception>
    public static void Write(string path, ReadOnlySpan<byte> content)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!, OwnerOnly | UnixFileMode.UserExecute);
        var options = new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = OwnerOnly };
        using (var file = new FileStream(path + ".new", options))
        {
            file.Write(content);
            file.Flush(flushToDisk: true);
        }
        File.Move(path + ".new", path, overwrite: true);
    }
}
