using System.Text;

namespace ModelHost.TestKit;

/// <summary>What stands in files at which somebody is at work.</summary>
public static class FolderText
{
    /// <summary>The text of each file of a folder, below other folders too; one that is gone when it comes to it, as a file is that has just been renamed, has none.</summary>
    public static IReadOnlyList<string> Read(string folder) =>
        [.. Directory.GetFiles(folder, "*", SearchOption.AllDirectories).Where(static file => Path.GetFileName(file) != "lock").Select(static file => Encoding.Latin1.GetString(Bytes(file)))];

    /// <summary>What stands in a file; nothing when it is not there, as for the moment in which another takes its place.</summary>
    public static byte[] Bytes(string file)
    {
        try
        {
            using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            using var bytes = new MemoryStream();
            stream.CopyTo(bytes);
            return bytes.ToArray();
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return [];
        }
    }
}
