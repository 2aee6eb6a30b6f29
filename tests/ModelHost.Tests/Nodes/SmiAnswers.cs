using System.Globalization;
using System.Runtime.CompilerServices;
using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

/// <summary>The answers in the folder <c>nvidia-smi</c> beside this file; its page says where they come from.</summary>
internal static class SmiAnswers
{
    public static string Folder([CallerFilePath] string here = "") => Path.Combine(Path.GetDirectoryName(here)!, "nvidia-smi");

    public static string Text(string file) => File.ReadAllText(Path.Combine(Folder(), file));

    /// <summary>The answer to a query; the exit code stands in the file's name.</summary>
    public static SmiAnswer Answer(string name)
    {
        var file = Path.GetFileName(Directory.EnumerateFiles(Folder(), name + ".*").Single(path => IsAnswer(path, name)));
        return new SmiAnswer(ExitCode(file[(name.Length + 1)..]), Text(file));
    }

    public static GpuReading Read(string name, SystemMemory? ram = null) => GpuReading.Of(Answer(name), ram);

    // a.0.csv is an answer of a, a.apps.0.csv of a.apps
    private static bool IsAnswer(string path, string name) => ExitCode(Path.GetFileName(path)[(name.Length + 1)..]) is not null;

    private static int? ExitCode(string rest) => int.TryParse(rest.Split('.')[0], CultureInfo.InvariantCulture, out var code) ? code : null;
}
