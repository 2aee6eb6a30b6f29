using ModelHost.Simulator.Flags;

namespace ModelHost.Simulator.Options;

/// <summary>How many engines and GPUs a model is spread over, and which of them are this server's.</summary>
/// <param name="Tensor">Tensor parallel ranks of an engine.</param>
/// <param name="Pipeline">Pipeline parallel ranks of an engine.</param>
/// <param name="Data">Engines of the whole deployment.</param>
/// <param name="Nodes">Nodes that share the ranks of one engine.</param>
/// <param name="Headless">This server computes for one on another node, and answers nobody.</param>
/// <param name="Engines">The numbers of the engines that this server sends requests to.</param>
/// <param name="LocalEngines">Engines that run here.</param>
internal sealed record Parallelism(
    int Tensor, int Pipeline, int Data, int Nodes, bool Headless, IReadOnlyList<int> Engines, int LocalEngines)
{
    /// <summary>More than any machine has GPUs; keeps a slip of the finger from taking all memory.</summary>
    public const int MostEngines = 1024;

    /// <summary>GPUs of one engine.</summary>
    public int Ranks => Tensor * Pipeline;

    /// <summary>GPUs that are used here.</summary>
    public long LocalGpus => (long)LocalEngines * Math.Max(1, Ranks / Nodes);

    public static Parallelism Read(FlagValues flags)
    {
        var data = Of("data_parallel_size", 1);
        var local = Of("data_parallel_size_local", data);
        var first = Of("data_parallel_start_rank", 0);
        var headless = flags.Switch("headless");
        // external balancing: a process for every engine. Hybrid: a front end for those of its node. Otherwise one front end for all of them.
        var (start, count) = flags.Integer("data_parallel_rank") is { } rank ? ((int)Math.Clamp(rank, -1, int.MaxValue - 1), 1)
            : headless || flags.Switch("data_parallel_hybrid_lb") ? (first, local) : (0, data);
        return new(
            Of("tensor_parallel_size", 1), Of("pipeline_parallel_size", 1), data, Math.Max(1, Of("nnodes", 1)), headless,
            [.. Enumerable.Range(start, Math.Clamp(count, 1, MostEngines))], flags.Integer("data_parallel_rank") is null ? local : 1);

        int Of(string name, int otherwise) => (int)Math.Clamp(flags.Integer(name) ?? otherwise, 0, 1_000_000);
    }

    /// <summary>What is wrong with the sizes; null when nothing is.</summary>
    public string? Problem =>
        Tensor < 1 || Pipeline < 1 || Data < 1 || LocalEngines < 1 ? "Input should be greater than or equal to 1"
        : Engines[0] < 0 || Engines[^1] >= Data ? $"Value error, data_parallel_rank ({Engines[^1]}) must be in the range [0, {Data})" : null;
}
