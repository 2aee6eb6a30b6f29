using System.Globalization;
using ModelHost.Simulator.Loading;

namespace ModelHost.Simulator.Options;

/// <summary>A start-up failure the simulator can be told to act out.</summary>
internal enum ScriptedFailure
{
    None,
    Oom,
    Gated,
    KvCache,
    NoGpu,
    NotFound,
    BadParser,
    Unsupported,
    Nccl,
    Profiling,
    CacheBlocks,
}

/// <summary>Where the simulator stops making progress.</summary>
internal enum HangPoint
{
    None,

    /// <summary>While the weights are read: it never becomes ready.</summary>
    Load,

    /// <summary>In every inference request: it is accepted and never answered.</summary>
    Request,
}

/// <summary>How waking goes wrong.</summary>
internal enum WakeFailure
{
    None,

    /// <summary>It answers 500 and stays asleep.</summary>
    Refuse,

    /// <summary>It wakes, and answers nonsense from then on.</summary>
    Garble,

    /// <summary>The call is never answered.</summary>
    Hang,
}

/// <summary>What follows when there is too little free memory to wake.</summary>
internal enum NoMemory
{
    /// <summary>The call answers 500, and the server stays asleep.</summary>
    Refuse,

    /// <summary>The engine dies.</summary>
    Die,
}

/// <summary>How an inference request goes wrong after it was accepted.</summary>
internal enum RequestFailure
{
    None,

    /// <summary>The connection is reset.</summary>
    Cut,

    /// <summary>The engine fails: an error event in a stream, 500 elsewhere.</summary>
    Error,

    /// <summary>Nothing more comes until the client leaves.</summary>
    Stall,
}

/// <summary>What becomes of an adapter that is loaded at run time.</summary>
internal enum LoraLoading
{
    /// <summary>An absolute path must be a folder on this machine.</summary>
    Check,

    /// <summary>Every path is taken.</summary>
    Trust,

    /// <summary>The engine refuses it.</summary>
    Refuse,
}

/// <summary>A knob is unknown or has a value that cannot be used; the process does not start.</summary>
internal sealed class KnobException(string message) : Exception(message);

/// <summary>What the real server does not have: the settings of the simulation, all from <c>VLLM_SIM_*</c> variables.</summary>
internal sealed record Knobs
{
    private const string Prefix = "VLLM_SIM_";

    /// <summary>The vLLM release to be. Default 0.28.0.</summary>
    public string Version { get; init; } = "0.28.0";

    /// <summary>Length of the whole load, spread over its phases. Default 0.2 s.</summary>
    public TimeSpan LoadTime { get; init; } = TimeSpan.FromSeconds(0.2);

    /// <summary>Length of single phases, in place of their share of <see cref="LoadTime"/>.</summary>
    public IReadOnlyDictionary<LoadPhase, TimeSpan> PhaseTimes { get; init; } = new Dictionary<LoadPhase, TimeSpan>();

    /// <summary>Time from admission to the first token. Default 0.</summary>
    public TimeSpan TimeToFirstToken { get; init; }

    /// <summary>Time between tokens. Default 0.</summary>
    public TimeSpan InterTokenLatency { get; init; }

    /// <summary>Tokens of an answer that is not cut short; 0 (default) varies it from 16 to 63 with the prompt.</summary>
    public int OutputTokens { get; init; }

    public ScriptedFailure Failure { get; init; }

    public HangPoint Hang { get; init; }

    /// <summary>The engine dies after this many inference requests were answered; 0 (default) never.</summary>
    public int ExitAfter { get; init; }

    /// <summary>The folder in which the simulated GPUs are listed and held; null means no accounting.</summary>
    public string? GpuDirectory { get; init; }

    /// <summary>Memory of every GPU when there is no folder, in MiB. Null means an 80 GB card that always suffices.</summary>
    public int? GpuMemoryMib { get; init; }

    /// <summary>Weights of the model in MiB. Null guesses from the model's name.</summary>
    public int? WeightMib { get; init; }

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

    /// <summary>With <c>tool_choice</c> auto the model calls the first tool, unless the last message is a tool's answer. Default true.</summary>
    public bool CallsTools { get; init; } = true;

    public static Knobs Read(IReadOnlyDictionary<string, string> environment)
    {
        var knobs = new Knobs();
        var phases = new Dictionary<LoadPhase, TimeSpan>();
        foreach (var (name, value) in environment.Where(pair => pair.Key.StartsWith(Prefix, StringComparison.Ordinal)))
            knobs = name[Prefix.Length..] switch
            {
                "VERSION" => knobs with { Version = value },
                "LOAD_SECONDS" => knobs with { LoadTime = TimeSpan.FromSeconds(Number(name, value)) },
                "TTFT_MS" => knobs with { TimeToFirstToken = TimeSpan.FromMilliseconds(Number(name, value)) },
                "ITL_MS" => knobs with { InterTokenLatency = TimeSpan.FromMilliseconds(Number(name, value)) },
                "OUTPUT_TOKENS" => knobs with { OutputTokens = Integer(name, value) },
                "FAIL" => knobs with { Failure = Named<ScriptedFailure>(name, value) },
                "HANG" => knobs with { Hang = Named<HangPoint>(name, value) },
                "EXIT_AFTER" => knobs with { ExitAfter = Integer(name, value) },
                "GPU_DIR" => knobs with { GpuDirectory = GpuFolder(name, value) },
                "GPU_MEMORY_MIB" => knobs with { GpuMemoryMib = Integer(name, value) },
                "WEIGHT_MIB" => knobs with { WeightMib = Integer(name, value) },
                "MODEL_MAX_LEN" => knobs with { ModelMaxLength = Integer(name, value) },
                "SLEEP_GBPS" => knobs with { SleepGigabytesPerSecond = Number(name, value) },
                "WAKE_GBPS" => knobs with { WakeGigabytesPerSecond = Number(name, value) },
                "SLEEP_RESIDUE_MIB" => knobs with { SleepResidueMib = Integer(name, value) },
                "SLEEP_LEAK_MIB" => knobs with { SleepLeakMib = Integer(name, value) },
                "RAM_MIB" => knobs with { RamMib = Integer(name, value) },
                "WAKE" => knobs with { Wake = Named<WakeFailure>(name, value) },
                "WAKE_WITHOUT_MEMORY" => knobs with { WakeWithoutMemory = Named<NoMemory>(name, value) },
                "REQUEST_FAIL" => knobs with { RequestFailure = Named<RequestFailure>(name, value) },
                "REQUEST_FAIL_AFTER" => knobs with { RequestFailureAfter = Integer(name, value) },
                "REQUEST_FAIL_RATE" => knobs with { RequestFailureRate = AtMost(name, Number(name, value), 100) },
                "BUSY_RATE" => knobs with { BusyRate = AtMost(name, Number(name, value), 100) },
                "EXIT_CODE" => knobs with { ExitCode = (int)AtMost(name, Integer(name, value), 255) },
                "DEATH_MS" => knobs with { DeathTime = TimeSpan.FromMilliseconds(AtMost(name, Number(name, value), 5000)) },
                "LORA" => knobs with { Lora = Named<LoraLoading>(name, value) },
                "TOOL_CALLS" => knobs with { CallsTools = Integer(name, value) != 0 },
                var other when Phase(other) is { } phase && phases.TryAdd(phase, TimeSpan.FromSeconds(Number(name, value))) => knobs,
                _ => throw new KnobException($"unknown variable {name}"),
            };
        return knobs with { PhaseTimes = phases };
    }

    private static LoadPhase? Phase(string name) =>
        name.StartsWith("PHASE_", StringComparison.Ordinal) && name.EndsWith("_SECONDS", StringComparison.Ordinal) && name.Length > 14
            && Enum.TryParse<LoadPhase>(name[6..^8], ignoreCase: true, out var phase) ? phase : null;

    /// <summary>Checked here, because a container without host IPC is the usual reason for its absence.</summary>
    private static string? GpuFolder(string name, string value) => value.Length == 0 ? null
        : File.Exists(Path.Combine(value, "gpus.csv")) ? value : throw new KnobException($"{name}: there is no gpus.csv in {value}");

    private static double Number(string name, string value) =>
        double.TryParse(value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number) && number < 1e9
            ? number : throw new KnobException($"{name}: '{value}' is not a number from 0 on");

    private static double AtMost(string name, double value, double limit) =>
        value <= limit ? value : throw new KnobException($"{name}: at most {limit.ToString(CultureInfo.InvariantCulture)}");

    private static int Integer(string name, string value) =>
        int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number : throw new KnobException($"{name}: '{value}' is not a whole number from 0 on");

    private static T Named<T>(string name, string value) where T : struct, Enum =>
        value.Length == 0 ? default
        : Enum.TryParse<T>(value.Replace("_", "", StringComparison.Ordinal), ignoreCase: true, out var parsed) && !char.IsAsciiDigit(value[0]) ? parsed
        : throw new KnobException($"{name}: '{value}' is none of {string.Join(", ", Enum.GetNames<T>()).ToLowerInvariant()}");
}
