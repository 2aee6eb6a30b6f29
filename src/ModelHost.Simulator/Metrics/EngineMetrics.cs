namespace ModelHost.Simulator.Metrics;

/// <summary>The times of one finished request, in seconds.</summary>
internal readonly record struct RequestTimes(double Queue, double Prefill, double Decode, double EndToEnd);

/// <summary>Counts what one engine does. One lock covers it: a request takes it a few times, for less than a microsecond each.</summary>
internal sealed class EngineMetrics(long maxModelLength)
{
    private readonly Lock _gate = new();
    private readonly EngineCounts _counts = new(maxModelLength);

    /// <summary>Counts several things under one lock, which costs less than the same again for each.</summary>
    public Lock.Scope Together() => _gate.EnterScope();

    /// <summary>All values of one moment.</summary>
    public EngineCounts Read()
    {
        lock (_gate)
            return _counts.Copy();
    }

    public void FirstToken(double seconds, int promptTokens, int cachedTokens, bool caching, int sequences)
    {
        lock (_gate)
        {
            _counts[Observed.TimeToFirstToken].Observe(seconds, sequences);
            _counts.PromptTokens += promptTokens;
            _counts.PrefixCacheQueries += caching ? promptTokens : 0;
            _counts.PrefixCacheHits += cachedTokens;
            _counts[Observed.PrefillComputed].Observe(promptTokens - cachedTokens);
            _counts[Observed.IterationTokens].Observe(promptTokens - cachedTokens);
        }
    }

    /// <summary>Tokens were generated; <paramref name="gaps"/> of them came this long after the one before.</summary>
    public void Tokens(int tokens, double gapSeconds, int gaps)
    {
        lock (_gate)
        {
            _counts.GenerationTokens += tokens;
            _counts[Observed.InterToken].Observe(gapSeconds, gaps);
            _counts[Observed.IterationTokens].Observe(1, tokens);
        }
    }

    /// <summary>This many sequences lost their blocks to others.</summary>
    public void Preempted(int sequences)
    {
        lock (_gate)
            _counts.Preemptions += sequences;
    }

    public void BlockReused(double gapSeconds)
    {
        lock (_gate)
            _counts[Observed.BlockReuse].Observe(gapSeconds);
    }

    public void BlockEvicted(double lifetimeSeconds, double idleSeconds)
    {
        lock (_gate)
        {
            _counts[Observed.BlockLifetime].Observe(lifetimeSeconds);
            _counts[Observed.BlockIdle].Observe(idleSeconds);
        }
    }

    /// <summary>A sequence has ended.</summary>
    /// <param name="reason">Why.</param>
    /// <param name="times">How long its parts took.</param>
    /// <param name="promptTokens">Tokens of its prompt.</param>
    /// <param name="generated">Tokens it got.</param>
    /// <param name="maxTokens">Tokens that were allowed.</param>
    /// <param name="n">When it is the last one of its prompt: how many there are; otherwise 0.</param>
    /// <param name="longest">Tokens of the longest one of the prompt.</param>
    public void Finished(FinishReason reason, in RequestTimes times, int promptTokens, int generated, int maxTokens, int n, int longest)
    {
        lock (_gate)
        {
            _counts.Finished[(int)reason]++;
            _counts[Observed.EndToEnd].Observe(times.EndToEnd);
            _counts[Observed.Queue].Observe(times.Queue);
            _counts[Observed.Inference].Observe(times.Prefill + times.Decode);
            _counts[Observed.Prefill].Observe(times.Prefill);
            _counts[Observed.Decode].Observe(times.Decode);
            _counts[Observed.ModelTime].Observe((times.Prefill + times.Decode) * 1000);
            _counts[Observed.PromptTokens].Observe(promptTokens);
            _counts[Observed.GenerationTokens].Observe(generated);
            _counts[Observed.MaxTokens].Observe(maxTokens);
            if (generated > 1)
                _counts[Observed.TimePerOutputToken].Observe(times.Decode / (generated - 1));
            if (n == 0)
                return;
            _counts[Observed.N].Observe(n);
            _counts[Observed.MaxGenerationTokens].Observe(longest);
        }
    }
}
