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

/// <summary>The times of one finished request, in seconds.</summary>
internal readonly record struct RequestTimes(double Queue, double Prefill, double Decode, double EndToEnd);

/// <summary>Everything the engine counts. One lock covers it: a request takes it a few times, for less than a microsecond each.</summary>
internal sealed class EngineMetrics
{
    private readonly Lock _gate = new();
    private readonly long[] _finished = new long[Enum.GetValues<FinishReason>().Length];
    private readonly Histogram _timeToFirstToken = new("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", Buckets.TimeToFirstToken);
    private readonly Histogram _interToken = new("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", Buckets.TokenGap);
    private readonly Histogram _perToken = new("vllm:request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", Buckets.TokenGap);
    private readonly Histogram _endToEnd = new("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", Buckets.Latency);
    private readonly Histogram _queue = new("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", Buckets.Latency);
    private readonly Histogram _inference = new("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", Buckets.Latency);
    private readonly Histogram _prefill = new("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", Buckets.Latency);
    private readonly Histogram _decode = new("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", Buckets.Latency);
    private readonly Histogram _iteration = new("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", Buckets.Iteration);
    private readonly Histogram _n = new("vllm:request_params_n", "Histogram of the n request parameter.", Buckets.N);
    private readonly Histogram _promptTokens;
    private readonly Histogram _generationTokens;
    private readonly Histogram _maxGenerationTokens;
    private readonly Histogram _maxTokens;
    private readonly Histogram _prefillComputed;

    public EngineMetrics(long maxModelLength)
    {
        var bounds = Buckets.OneTwoFive(maxModelLength);
        _promptTokens = new("vllm:request_prompt_tokens", "Number of prefill tokens processed.", bounds);
        _generationTokens = new("vllm:request_generation_tokens", "Number of generation tokens processed.", bounds);
        _maxGenerationTokens = new("vllm:request_max_num_generation_tokens", "Histogram of maximum number of requested generation tokens.", bounds);
        _maxTokens = new("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", bounds);
        _prefillComputed = new("vllm:request_prefill_kv_computed_tokens", "Histogram of new KV tokens computed during prefill (excluding cached tokens).", bounds);
    }

    public long PromptTokens { get; private set; }

    public long GenerationTokens { get; private set; }

    public long PrefixCacheQueries { get; private set; }

    public long PrefixCacheHits { get; private set; }

    public void FirstToken(double seconds, int promptTokens, int cachedTokens, bool caching, int sequences)
    {
        lock (_gate)
        {
            _timeToFirstToken.Observe(seconds, sequences);
            PromptTokens += promptTokens;
            PrefixCacheQueries += caching ? promptTokens : 0;
            PrefixCacheHits += cachedTokens;
            _prefillComputed.Observe(promptTokens - cachedTokens);
            _iteration.Observe(promptTokens);
        }
    }

    /// <summary>Tokens were generated; <paramref name="gaps"/> of them came this long after the one before.</summary>
    public void Tokens(int tokens, double gapSeconds, int gaps)
    {
        lock (_gate)
        {
            GenerationTokens += tokens;
            _interToken.Observe(gapSeconds, gaps);
            _iteration.Observe(1, tokens);
        }
    }

    public void Finished(FinishReason reason, in RequestTimes times, int promptTokens, int generated, int maxTokens, int n)
    {
        lock (_gate)
        {
            _finished[(int)reason]++;
            _endToEnd.Observe(times.EndToEnd);
            _queue.Observe(times.Queue);
            _inference.Observe(times.Prefill + times.Decode);
            _prefill.Observe(times.Prefill);
            _decode.Observe(times.Decode);
            _promptTokens.Observe(promptTokens);
            _generationTokens.Observe(generated);
            _maxGenerationTokens.Observe(generated);
            _maxTokens.Observe(maxTokens);
            _n.Observe(n);
            if (generated > 1)
                _perToken.Observe(times.Decode / (generated - 1));
        }
    }

    /// <summary>Shows all values of one moment to a page that writes them.</summary>
    public void Read(Action<IReadOnlyList<long>, IReadOnlyList<Histogram>> page)
    {
        lock (_gate)
            page(_finished,
            [
                _timeToFirstToken, _interToken, _perToken, _endToEnd, _queue, _inference, _prefill, _decode, _iteration, _n,
                _promptTokens, _generationTokens, _maxGenerationTokens, _maxTokens, _prefillComputed,
            ]);
    }
}
