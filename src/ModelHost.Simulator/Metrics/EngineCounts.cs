namespace ModelHost.Simulator.Metrics;

/// <summary>Why a sequence ended.</summary>
internal enum FinishReason
{
    Stop,
    Length,
    Abort,
    Error,
    Repetition,
}

/// <summary>All that one engine counts; not safe for threads.</summary>
internal sealed class EngineCounts
{
    private readonly Histogram[] _histograms;

    public EngineCounts(long maxModelLength)
    {
        var tokens = Buckets.OneTwoFive(maxModelLength);
        _histograms = new Histogram[Enum.GetValues<Observed>().Length];
        foreach (var kind in Enum.GetValues<Observed>())
            _histograms[(int)kind] = new(kind switch
            {
                Observed.TimeToFirstToken => Buckets.TimeToFirstToken,
                Observed.InterToken or Observed.TimePerOutputToken => Buckets.TokenGap,
                Observed.EndToEnd or Observed.Queue or Observed.Inference or Observed.Prefill or Observed.Decode => Buckets.Latency,
                Observed.IterationTokens => Buckets.Iteration,
                Observed.N => Buckets.N,
                Observed.BlockLifetime or Observed.BlockIdle or Observed.BlockReuse => Buckets.BlockResidency,
                Observed.ModelTime => Buckets.ModelMilliseconds,
                Observed.PromptTokens or Observed.GenerationTokens or Observed.MaxGenerationTokens or Observed.MaxTokens or Observed.PrefillComputed => tokens,
            });
        Finished = new long[Enum.GetValues<FinishReason>().Length];
    }

    private EngineCounts(EngineCounts other)
    {
        _histograms = [.. other._histograms.Select(histogram => histogram.Copy())];
        Finished = (long[])other.Finished.Clone();
        (PromptTokens, GenerationTokens) = (other.PromptTokens, other.GenerationTokens);
        (PrefixCacheQueries, PrefixCacheHits, Preemptions) = (other.PrefixCacheQueries, other.PrefixCacheHits, other.Preemptions);
    }

    public long PromptTokens { get; set; }

    public long GenerationTokens { get; set; }

    public long PrefixCacheQueries { get; set; }

    public long PrefixCacheHits { get; set; }

    public long Preemptions { get; set; }

    /// <summary>Ended sequences by their <see cref="FinishReason"/>.</summary>
    public long[] Finished { get; }

    public Histogram this[Observed kind] => _histograms[(int)kind];

    public EngineCounts Copy() => new(this);
}

/// <summary>What histograms are kept of.</summary>
internal enum Observed
{
    TimeToFirstToken,
    InterToken,
    TimePerOutputToken,
    EndToEnd,
    Queue,
    Inference,
    Prefill,
    Decode,
    IterationTokens,
    N,
    PromptTokens,
    GenerationTokens,
    MaxGenerationTokens,
    MaxTokens,
    PrefillComputed,
    BlockLifetime,
    BlockIdle,
    BlockReuse,
    ModelTime,
}
