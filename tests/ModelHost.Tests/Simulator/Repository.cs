namespace ModelHost.Tests.Simulator;

/// <summary>Finds files of the working copy that the tests run from.</summary>
internal static class Repository
{
    public static string File(string path)
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
            if (System.IO.File.Exists(Path.Combine(folder.FullName, "ModelHost.sln")))
                return Path.Combine(folder.FullName, path);
        throw new FileNotFoundException("no ModelHost.sln above " + AppContext.BaseDirectory);
    }
}
