namespace ModelHost.Agent;

/// <summary>Writes files whole or not at all, for their owner's eyes only.</summary>
internal static class WholeFile
{
    /// <summary>The mode of such a file.</summary>
    public const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>Writes one; its folder is made if it is not there.</summary>
    /// <exception cref="IOException">The disk is full.</exception>
    public static void Write(string path, Action<Stream> write)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!, OwnerOnly | UnixFileMode.UserExecute);
        var options = new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = OwnerOnly };
        using (var file = new FileStream(path + ".new", options))
        {
            write(file);
            file.Flush(flushToDisk: true);
        }
        File.Move(path + ".new", path, overwrite: true);
    }
}
