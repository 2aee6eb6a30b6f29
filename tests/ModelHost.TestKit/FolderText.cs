using System.Text;

namespace ModelHost.TestKit;

/// <summary>What stands in the files of a folder in which somebody is at work.</summary>
public static class FolderText
{
    /// <summary>The text of each file, below other folders too; one that is gone when it comes to it, as a file is that has just been renamed, has none.</summary>
    public static async Task<IReadOnlyList<string>> ReadAsync(string folder)
    {
        var texts = new List<string>();
        foreach (var file in Directory.GetFiles(folder, "*", SearchOption.AllDirectories).Where(static file => Path.GetFileName(file) != "lock"))
        {
            try
            {
                await using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
                using var reader = new StreamReader(stream, Encoding.Latin1);
                texts.Add(await reader.ReadToEndAsync());
            }
            catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
            {
                // it has another name now, under which it is read or was
            }
        }
        return texts;
    }
}
