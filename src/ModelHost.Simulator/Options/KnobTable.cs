using ModelHost.Simulator.Loading;

namespace ModelHost.Simulator.Options;

/// <summary>All variables that set a knob, by their name without <c>VLLM_SIM_</c>.</summary>
internal static class KnobTable
{
    private const string Prefix = "VLLM_SIM_";

    private static readonly Dictionary<string, Func<Knobs, KnobText, Knobs>> All = new()
    {
        ["VERSION"] = static (knobs, value) => knobs with { Version = value.Text },
        ["LOAD_SECONDS"] = static (knobs, value) => knobs with { LoadTime = value.Seconds() },
        ["TTFT_MS"] = static (knobs, value) => knobs with { TimeToFirstToken = value.Milliseconds() },
        ["ITL_MS"] = static (knobs, value) => knobs with { InterTokenLatency = value.Milliseconds() },
        ["TTFT_DEVIATION_MS"] = static (knobs, value) => knobs with { TimeToFirstTokenDeviation = value.Milliseconds() },
        ["ITL_DEVIATION_MS"] = static (knobs, value) => knobs with { InterTokenDeviation = value.Milliseconds() },
        ["PREFILL_TOKEN_MS"] = static (knobs, value) => knobs with { PrefillTimePerToken = value.Milliseconds() },
        ["LOAD_FACTOR"] = static (knobs, value) => knobs with { FactorUnderLoad = value.Number() },
        ["SEED"] = static (knobs, value) => knobs with { Seed = value.Integer() },
        ["OUTPUT_TOKENS"] = static (knobs, value) => knobs with { OutputTokens = value.Integer() },
        ["FAIL"] = static (knobs, value) => knobs with { Failure = value.Named<ScriptedFailure>() },
        ["FAIL_PHASE"] = static (knobs, value) => knobs with { FailurePhase = value.Text.Length == 0 ? null : value.Named<LoadPhase>() },
        ["HUB"] = static (knobs, value) => knobs with { Hub = value.Named<HubAccess>() },
        ["CACHES"] = static (knobs, value) => knobs with { KeepsCaches = value.Integer() != 0 },
        ["DOWNLOAD_MBPS"] = static (knobs, value) => knobs with { DownloadMegabytesPerSecond = value.Number() },
        ["HANG"] = static (knobs, value) => knobs with { Hang = value.Named<HangPoint>() },
        ["EXIT_AFTER"] = static (knobs, value) => knobs with { ExitAfter = value.Integer() },
        ["GPU_DIR"] = static (knobs, value) => knobs with { GpuDirectory = value.GpuFolder() },
        ["GPU_MEMORY_MIB"] = static (knobs, value) => knobs with { GpuMemoryMib = value.Integer() },
        ["WEIGHT_MIB"] = static (knobs, value) => knobs with { WeightMib = value.Integer() },
        ["KV_BYTES_PER_TOKEN"] = static (knobs, value) => knobs with { KvBytesPerToken = Math.Max(1, value.Integer()) },
        ["MODEL_MAX_LEN"] = static (knobs, value) => knobs with { ModelMaxLength = value.Integer() },
        ["SLEEP_GBPS"] = static (knobs, value) => knobs with { SleepGigabytesPerSecond = value.Number() },
        ["WAKE_GBPS"] = static (knobs, value) => knobs with { WakeGigabytesPerSecond = value.Number() },
        ["SLEEP_RESIDUE_MIB"] = static (knobs, value) => knobs with { SleepResidueMib = value.Integer() },
        ["SLEEP_LEAK_MIB"] = static (knobs, value) => knobs with { SleepLeakMib = value.Integer() },
        ["RAM_MIB"] = static (knobs, value) => knobs with { RamMib = value.Integer() },
        ["WAKE"] = static (knobs, value) => knobs with { Wake = value.Named<WakeFailure>() },
        ["WAKE_WITHOUT_MEMORY"] = static (knobs, value) => knobs with { WakeWithoutMemory = value.Named<NoMemory>() },
        ["REQUEST_FAIL"] = static (knobs, value) => knobs with { RequestFailure = value.Named<RequestFailure>() },
        ["REQUEST_FAIL_AFTER"] = static (knobs, value) => knobs with { RequestFailureAfter = value.Integer() },
        ["REQUEST_FAIL_RATE"] = static (knobs, value) => knobs with { RequestFailureRate = value.Number(100) },
        ["BUSY_RATE"] = static (knobs, value) => knobs with { BusyRate = value.Number(100) },
        ["EXIT_CODE"] = static (knobs, value) => knobs with { ExitCode = value.Integer(255) },
        ["DEATH_MS"] = static (knobs, value) => knobs with { DeathTime = value.Milliseconds(5000) },
        ["LORA"] = static (knobs, value) => knobs with { Lora = value.Named<LoraLoading>() },
        ["TOOL_CALLS"] = static (knobs, value) => knobs with { ToolCalls = value.Integer(64) },
    };

    /// <exception cref="KnobException">A variable is unknown, or its value cannot be used.</exception>
    public static Knobs Read(IReadOnlyDictionary<string, string> environment)
    {
        var knobs = new Knobs();
        var phases = new Dictionary<LoadPhase, TimeSpan>();
        foreach (var (name, text) in environment.Where(pair => pair.Key.StartsWith(Prefix, StringComparison.Ordinal)))
        {
            var value = new KnobText(name, text);
            if (All.TryGetValue(name[Prefix.Length..], out var set))
                knobs = set(knobs, value);
            else if (Phase(name[Prefix.Length..]) is not { } phase || !phases.TryAdd(phase, value.Seconds()))
                throw new KnobException($"unknown variable {name}");
        }
        return knobs with { PhaseTimes = phases };
    }

    private static LoadPhase? Phase(string name) =>
        name.StartsWith("PHASE_", StringComparison.Ordinal) && name.EndsWith("_SECONDS", StringComparison.Ordinal) && name.Length > 14
            && Enum.TryParse<LoadPhase>(name[6..^8], ignoreCase: true, out var phase) ? phase : null;
}
