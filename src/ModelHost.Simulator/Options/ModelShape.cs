using System.Globalization;
using System.Text.RegularExpressions;

namespace ModelHost.Simulator.Options;

/// <summary>
/// What the simulator assumes about a model it never loads, guessed from its name: parameters from "8B", bytes per parameter from the
/// quantization, layers from the size class, context length from the family.
/// </summary>
internal sealed partial record ModelShape(long WeightBytes, int Layers, int KvHeads, int HeadSize, int MaxPositions, bool Pools, int? KvBytes)
{
    private static readonly (string Family, int Positions)[] Families =
    [
        ("qwen3", 40_960), ("qwen2", 32_768), ("mistral", 32_768), ("llama-2", 4_096), ("opt-", 2_048), ("gpt2", 1_024),
    ];

    private static readonly string[] Embedders = ["embed", "bge-", "e5-", "gte-", "minilm"];

    public static ModelShape Guess(string model, Knobs knobs)
    {
        var name = model.ToLowerInvariant();
        var match = Size().Match(name);
        var billions = !match.Success ? 1
            : double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture) / (match.Groups[2].Value == "m" ? 1000 : 1);
        var bytesPerParameter = Quantized(name, "awq", "gptq", "int4", "4bit", "fp4") ? 0.6 : Quantized(name, "fp8", "int8", "w8a8") ? 1.05 : 2;
        var weights = knobs.WeightMib is { } mib ? (long)mib << 20 : (long)(billions * 1e9 * bytesPerParameter);
        var (layers, heads) = billions switch { < 1 => (28, 8), < 5 => (36, 8), < 10 => (32, 8), < 20 => (40, 8), < 50 => (64, 8), _ => (80, 8) };
        var family = Array.Find(Families, entry => name.Contains(entry.Family, StringComparison.Ordinal));
        return new(weights, layers, heads, 128, knobs.ModelMaxLength ?? (family.Positions == 0 ? 131_072 : family.Positions),
            Embedders.Any(part => name.Contains(part, StringComparison.Ordinal)), knobs.KvBytesPerToken);
    }

    /// <summary>2 × layers ÷ PP × max(1, heads ÷ TP) × head size × bytes, for ordinary attention; or what a knob says.</summary>
    public long KvBytesPerToken(int tensorParallel, int pipelineParallel, int dtypeBytes) =>
        KvBytes ?? 2L * Math.Max(1, Layers / pipelineParallel) * Math.Max(1, KvHeads / tensorParallel) * HeadSize * dtypeBytes;

    private static bool Quantized(string name, params string[] marks) => marks.Any(mark => name.Contains(mark, StringComparison.Ordinal));

    [GeneratedRegex(@"(?<![\d.a-z])(\d+(?:\.\d+)?)([bm])(?![a-z])")]
    private static partial Regex Size();
}
