using System.Globalization;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Loading;

/// <summary>What former starts left behind, when the knob asks for it: a marker for the weights, and one for the compiled graphs.</summary>
internal sealed class LoadCaches(ServerOptions options)
{
    private readonly string _weights = Path.Combine(options.Caches.Hub, "hub", "models--" + FileName(options.Model), "simulated-weights");

    /// <summary>The folder of the compiled graphs, by all that they depend on.</summary>
    public string CompiledFolder { get; } = Path.Combine(options.Caches.Vllm, "torch_compile_cache", Key(options), "rank_0_0", "backbone");

    /// <summary>Nothing has to be downloaded. Without the knob weights are taken to be there.</summary>
    public bool HasWeights => !options.Knobs.KeepsCaches || Path.IsPathRooted(options.Model) || File.Exists(_weights);

    public bool HasCompiled => options.Knobs.KeepsCaches && options.Caches.Compiles && File.Exists(Marker);

    public void KeepWeights()
    {
        if (!Path.IsPathRooted(options.Model))
            Keep(_weights);
    }

    public void KeepCompiled() => Keep(Marker);

    private string Marker => Path.Combine(CompiledFolder, "simulated-graphs");

    private void Keep(string marker)
    {
        if (!options.Knobs.KeepsCaches)
            return;
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(marker)!);
            File.WriteAllText(marker, "");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // a folder that cannot be written to costs the next start its time, and nothing else
        }
    }

    private static string FileName(string model) =>
        string.Concat(model.Replace("/", "--", StringComparison.Ordinal).Select(character => char.IsAsciiLetterOrDigit(character) || character is '.' or '_' ? character : '-'));

    private static string Key(ServerOptions options) => (TextSource.Hash(string.Create(CultureInfo.InvariantCulture,
        $"{options.Model} {options.Knobs.Version} {options.TensorParallel} {options.PipelineParallel} {options.Flags.Integer("max_model_len")} {options.Flags.Text("dtype")}"), 0)
        & 0xFF_FFFF_FFFF).ToString("x10", CultureInfo.InvariantCulture);
}
