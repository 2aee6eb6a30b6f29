using ModelHost.Simulator.Loading;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Gpu;

/// <summary>The memory of one GPU as a server divides it, and the sizes that follow from it. All failures of the real arithmetic are here.</summary>
internal sealed record MemoryPlan(
    long TotalBytes, long BudgetBytes, long WeightBytes, long KvBytes, long GraphBytes, int NumBlocks, int BlockSize, long MaxModelLength)
{
    private const double Gib = 1L << 30;

    /// <summary>CUDA context, NCCL and the peak of activations; the published range is 1 to 3 GiB.</summary>
    private const long OverheadBytes = 1L << 30;

    /// <summary>What the process takes as soon as it opens a device.</summary>
    public const long ContextBytes = 500L << 20;

    public long KvTokens => (long)NumBlocks * BlockSize;

    /// <summary>Requests of full length that fit at once.</summary>
    public double MaxConcurrency => (double)KvTokens / MaxModelLength;

    /// <summary>What the process holds once it is ready.</summary>
    public long HeldBytes => WeightBytes + OverheadBytes + GraphBytes + KvBytes;

    /// <summary>Budget per GPU: a share of its total, whatever is free.</summary>
    public static long Budget(long totalBytes, double utilization) => (long)Math.Ceiling(totalBytes * utilization);

    /// <param name="options">The model and the flags that size it.</param>
    /// <param name="totalBytes">Memory of the smallest GPU in use.</param>
    /// <param name="enforced">False when the simulated GPU has no size of its own: then everything fits into a cache that the command line gives no size either.</param>
    public static MemoryPlan Make(ServerOptions options, long totalBytes, bool enforced)
    {
        var budget = Budget(totalBytes, options.GpuMemoryUtilization);
        var weights = options.Shape.WeightBytes / options.Parallel.Ranks;
        var graphs = options.EnforceEager ? 0 : 350L << 20;
        var perToken = options.Shape.KvBytesPerToken(options.TensorParallel, options.PipelineParallel, options.KvCacheDtypeBytes);
        var given = options.Flags.Integer("kv_cache_memory_bytes");
        var kv = given ?? budget - weights - OverheadBytes - (options.EstimatesGraphs ? graphs : 0);

        var asked = options.Flags.Integer("max_model_len");
        var longest = asked is { } fixedLength and not Flags.TokenCount.Auto ? fixedLength : options.Shape.MaxPositions;
        var needed = Math.Min(longest, long.MaxValue / 2 / perToken) * perToken;
        if (!enforced && given is null)
            kv = Math.Max(kv, needed + (options.BlockSize * perToken));
        else if (kv <= 0)
            throw LoadFailures.NoCacheBlocks();
        else if (kv < needed && asked == Flags.TokenCount.Auto)
            longest = Math.Max(1, kv / perToken / options.BlockSize * options.BlockSize);
        else if (kv < needed)
            throw LoadFailures.KvCacheTooSmall(longest, needed / Gib, kv / Gib, kv / perToken / options.BlockSize * options.BlockSize);

        var blocks = (int)Math.Min(options.Flags.Integer("num_gpu_blocks_override") ?? kv / perToken / options.BlockSize, int.MaxValue);
        return new(totalBytes, budget, weights, kv, graphs, blocks, options.BlockSize, longest);
    }
}
