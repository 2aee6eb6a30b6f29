using ModelHost.Simulator.Loading;

namespace ModelHost.Simulator.Options;

/// <summary>What the real server does not have: the settings of the simulation, all from <c>VLLM_SIM_*</c> variables.</summary>
internal sealed record Knobs
{
    /// <summary>The vLLM release to be. Default 0.28.0.</summary>
    public string Version { get; init; } = Release.Default;

    /// <summary>Length of the whole load, spread over its phases. Default 0.2 s.</summary>
    public TimeSpan LoadTime { get; init; } = TimeSpan.FromSeconds(0.2);

    /// <summary>Length of single phases, in place of their share of <see cref="LoadTime"/>.</summary>
    public IReadOnlyDictionary<LoadPhase, TimeSpan> PhaseTimes { get; init; } = new Dictionary<LoadPhase, TimeSpan>();

    /// <summary>Time from admission to the first token of a prompt that is wholly cached: the overhead of a prefill. Default 0.</summary>
    public TimeSpan TimeToFirstToken { get; init; }

    /// <summary>Standard deviation of <see cref="TimeToFirstToken"/>. Default 0; no sample is more than 70 % away from the mean.</summary>
    public TimeSpan TimeToFirstTokenDeviation { get; init; }

    /// <summary>What every token of the prompt that is not in the prefix cache adds. Default 0.</summary>
    public TimeSpan PrefillTimePerToken { get; init; }

    /// <summary>Time between tokens. Default 0.</summary>
    public TimeSpan InterTokenLatency { get; init; }

    /// <summary>Standard deviation of <see cref="InterTokenLatency"/>. Default 0; no sample is more than 70 % away from the mean.</summary>
    public TimeSpan InterTokenDeviation { get; init; }

    /// <summary>By how much a full batch is slower than a request alone; between them it grows evenly. Default 1.</summary>
    public double FactorUnderLoad { get; init; } = 1;

    /// <summary>What the deviations begin from: the same requests one after the other take the same times. Default 0.</summary>
    public int Seed { get; init; }

    /// <summary>Any of these times is set.</summary>
    public bool HasTimes => TimeToFirstToken > TimeSpan.Zero || PrefillTimePerToken > TimeSpan.Zero || InterTokenLatency > TimeSpan.Zero;

    /// <summary>Tokens of an answer that is not cut short; 0 (default) varies it from 16 to 63 with the prompt.</summary>
    public int OutputTokens { get; init; }

    public ScriptedFailure Failure { get; init; }

    /// <summary>The phase in which the start fails, in place of the failure's own; without a failure it is <c>oom</c>.</summary>
    public LoadPhase? FailurePhase { get; init; }

    /// <summary>Whether the model's repository needs a token. Default open.</summary>
    public HubAccess Hub { get; init; }

    /// <summary>
    /// Marks what was downloaded in <c>HF_HOME</c> and what was compiled in <c>VLLM_CACHE_ROOT</c>: a later start skips it. Default false:
    /// weights are taken to be there already, and are compiled every time.
    /// </summary>
    public bool KeepsCaches { get; init; }

    /// <summary>Speed of the download. Default 0: it takes the time of its phase, which is none unless told otherwise.</summary>
    public double DownloadMegabytesPerSecond { get; init; }

    public HangPoint Hang { get; init; }

    /// <summary>The engine dies after this many inference requests were answered; 0 (default) never.</summary>
    public int ExitAfter { get; init; }

    /// <summary>The folder in which the simulated GPUs are listed and held; null means no accounting.</summary>
    public string? GpuDirectory { get; init; }

    /// <summary>Memory of every GPU when there is no folder, in MiB. Null means an 80 GB card that always suffices.</summary>
    public int? GpuMemoryMib { get; init; }

    /// <summary>Weights of the model in MiB. Null guesses from the model's name.</summary>
    public int? WeightMib { get; init; }

    /// <summary>KV cache of one token on one GPU, in bytes. Null computes it from the model's name.</summary>
    public int? KvBytesPerToken { get; init; }

    /// <summary>Context length of the model itself. Null guesses from the model's name.</summary>
    public int? ModelMaxLength { get; init; }

    /// <summary>Speed at which sleep level 1 copies the weights of one GPU to RAM. Default 2.5 GB/s; 0 takes no time.</summary>
    public double SleepGigabytesPerSecond { get; init; } = 2.5;

    /// <summary>Speed at which waking from level 1 copies them back. Default 12 GB/s; 0 takes no time.</summary>
    public double WakeGigabytesPerSecond { get; init; } = 12;

    /// <summary>Memory that stays on every GPU during sleep. Default 1100 MiB.</summary>
    public int SleepResidueMib { get; init; } = 1100;

    /// <summary>Memory that sleep should have given back and did not. Default 0.</summary>
    public int SleepLeakMib { get; init; }

    /// <summary>RAM of the container in MiB; sleep level 1 with heavier weights ends the process with code 137. Null is no limit.</summary>
    public int? RamMib { get; init; }

    public WakeFailure Wake { get; init; }

    public NoMemory WakeWithoutMemory { get; init; }

    public RequestFailure RequestFailure { get; init; }

    /// <summary>Tokens of a stream that come before the failure. Default 3.</summary>
    public int RequestFailureAfter { get; init; } = 3;

    /// <summary>Share of requests that fail so, in percent. Default 100.</summary>
    public double RequestFailureRate { get; init; } = 100;

    /// <summary>Share of inference requests that are answered with 503, in percent. Default 0.</summary>
    public double BusyRate { get; init; }

    /// <summary>The exit code after the engine died. Default 1.</summary>
    public int ExitCode { get; init; } = 1;

    /// <summary>Time from the engine's death to the exit, in which <c>/health</c> answers 503. Default 1 s, at most 5.</summary>
    public TimeSpan DeathTime { get; init; } = TimeSpan.FromSeconds(1);

    public LoraLoading Lora { get; init; }

    /// <summary>Calls in an answer that calls tools; 0: with <c>tool_choice</c> auto the model never does. Default 1, at most 64.</summary>
    public int ToolCalls { get; init; } = 1;
}
