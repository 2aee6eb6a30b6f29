using System.Globalization;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Loading;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Server;

namespace ModelHost.Simulator.Sleep;

/// <summary>What requests in flight meet when the engine pauses.</summary>
internal enum PauseMode
{
    /// <summary>They end with finish reason abort.</summary>
    Abort,

    /// <summary>They are waited for.</summary>
    Wait,

    /// <summary>They stand still and go on afterwards.</summary>
    Keep,
}

/// <summary>
/// Sleep, wake and pause. One call at a time changes the state; the memory goes to the bench's hold file and the copy of the weights to
/// its <c>ram</c> folder.
/// </summary>
internal sealed class SleepMode(ServerOptions options, MemoryPlan plan, Engine engine, GpuHold? hold, ServerLog log, TimeProvider time) : IDisposable
{
    public const string Weights = "weights";

    public const string KvCache = "kv_cache";

    public const string Scheduling = "scheduling";

    private const double Gib = 1L << 30;

    private readonly SemaphoreSlim _turn = new(1);
    private readonly bool _enabled = options.Flags.Switch("enable_sleep_mode");
    private readonly bool _pauses = options.Release.Has(Traits.PausesInSleep);
    private readonly bool _waitsForAll = options.Release.Has(Traits.WaitsForAllMemory);
    private volatile bool _weightsAsleep;
    private volatile bool _kvAsleep;
    private bool _inRam;
    private bool _lost;
    private bool _leaked;

    /// <summary>What <c>vllm:engine_sleep_state</c> shows: the level of the last sleep, or null after any wake, even a partial one.</summary>
    public int? ShownLevel { get; private set; }

    /// <summary>True until all memory is back and requests run again.</summary>
    public bool IsSleeping => _weightsAsleep || _kvAsleep || engine.IsPaused;

    /// <summary>Falls asleep.</summary>
    /// <param name="level">0 pauses only, 1 keeps the weights in RAM, 2 drops them.</param>
    /// <param name="mode">What happens to requests in flight.</param>
    /// <param name="tags">What is to go (weights, kv_cache), in place of the level; the weights are dropped then.</param>
    /// <param name="cancellationToken">Ends the wait for requests in flight.</param>
    public async Task SleepAsync(int level, PauseMode mode, IReadOnlyCollection<string> tags, CancellationToken cancellationToken)
    {
        await _turn.WaitAsync(cancellationToken);
        try
        {
            if (_pauses)
                await PauseEngineAsync(mode, cancellationToken);
            var started = time.GetTimestamp();
            var before = HeldBytes;
            var weights = _enabled && !_weightsAsleep && (tags.Count > 0 ? tags.Contains(Weights) : level >= 1);
            var copied = weights && tags.Count == 0 && level == 1;
            if (copied && options.Knobs.RamMib is { } ram && plan.WeightBytes * Gpus > (long)ram << 20)
            {
                // the kernel ends the process that asks for more than its container may have: no answer, no traceback
                engine.Kill(137);
                await Task.Delay(Timeout.InfiniteTimeSpan, time, cancellationToken);
            }
            if (copied)
                await Task.Delay(Transfer(options.Knobs.SleepGigabytesPerSecond), time, CancellationToken.None);
            if (level >= 1 || tags.Count > 0)
                engine.ForgetPrompts(force: true);
            _kvAsleep |= _enabled && (tags.Count > 0 ? tags.Contains(KvCache) : level >= 1);
            _weightsAsleep |= weights;
            _inRam |= copied;
            _lost |= weights && !copied;
            _leaked = _weightsAsleep || _kvAsleep;
            ShownLevel = level;
            Tell();
            if (level == 0 && tags.Count == 0)
                return;
            log.Engine("cumem.py:252", string.Create(CultureInfo.InvariantCulture,
                $"CuMemAllocator: sleep freed {(before - HeldBytes) / Gib:F2} GiB memory in total, of which " +
                $"{(copied ? plan.WeightBytes : 0) / Gib:F2} GiB is backed up in CPU and the rest " +
                $"{(before - HeldBytes - (copied ? plan.WeightBytes : 0)) / Gib:F2} GiB is discarded directly."));
            log.Engine("gpu_worker.py:145", string.Create(CultureInfo.InvariantCulture,
                $"Sleep mode freed {(before - HeldBytes) / Gib:F2} GiB memory, {HeldBytes / Gib:F2} GiB memory is still in use."));
            log.Engine("abstract.py:316", string.Create(CultureInfo.InvariantCulture,
                $"It took {time.GetElapsedTime(started).TotalSeconds:F6} seconds to fall asleep."));
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Takes memory back, and lets requests run once all of it is there.</summary>
    /// <exception cref="ApiException">There is too little free memory, or a knob refuses.</exception>
    public async Task WakeAsync(IReadOnlyCollection<string> tags, CancellationToken cancellationToken)
    {
        await _turn.WaitAsync(cancellationToken);
        try
        {
            if (options.Knobs.Wake == WakeFailure.Hang)
                await Task.Delay(Timeout.InfiniteTimeSpan, time, cancellationToken);
            if (options.Knobs.Wake == WakeFailure.Refuse)
                throw ApiException.Internal();
            var started = time.GetTimestamp();
            log.Engine("gpu_worker.py:160", $"wake up the engine with tags: {(tags.Count == 0 ? "None" : $"[{string.Join(", ", tags.Select(tag => $"'{tag}'"))}]")}");
            var weights = _weightsAsleep && (tags.Count == 0 || tags.Contains(Weights));
            var cache = _kvAsleep && (tags.Count == 0 || tags.Contains(KvCache));
            CheckFree((weights ? plan.WeightBytes : 0) + (cache ? plan.KvBytes : 0));
            if (weights && _inRam)
                await Task.Delay(Transfer(options.Knobs.WakeGigabytesPerSecond), time, CancellationToken.None);
            if (weights)
                (_weightsAsleep, _inRam) = (false, false);
            if (cache)
                _kvAsleep = false;
            _leaked &= _weightsAsleep || _kvAsleep;
            engine.Garbled = _lost || options.Knobs.Wake == WakeFailure.Garble;
            ShownLevel = null;
            Tell();
            log.Engine("abstract.py:334", string.Create(CultureInfo.InvariantCulture,
                $"It took {time.GetElapsedTime(started).TotalSeconds:F6} seconds to wake up tags {{{string.Join(", ", Awoken(tags).Select(tag => $"'{tag}'"))}}}."));
            if (!_waitsForAll || (!_weightsAsleep && !_kvAsleep))
                engine.Resume();
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Reads the weights from disk again, as the RPC <c>reload_weights</c> does in every worker.</summary>
    /// <exception cref="ApiException">The weights have no memory to go to.</exception>
    public async Task ReloadAsync(CancellationToken cancellationToken)
    {
        await _turn.WaitAsync(cancellationToken);
        try
        {
            if (_weightsAsleep)
                throw ApiException.Internal();
            await Task.Delay(LoadSequence.Duration(options.Knobs, LoadPhase.Weights), time, CancellationToken.None);
            log.Engine("gpu_model_runner.py:2480", "Reloading weights inplace...");
            _lost = false;
            engine.Garbled = options.Knobs.Wake == WakeFailure.Garble && engine.Garbled;
        }
        finally
        {
            _turn.Release();
        }
    }

    public async Task PauseAsync(PauseMode mode, bool clearCache, CancellationToken cancellationToken)
    {
        await _turn.WaitAsync(cancellationToken);
        try
        {
            await PauseEngineAsync(mode, cancellationToken);
            if (clearCache)
                engine.ForgetPrompts(force: false);
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Ends a pause; while memory is away, requests go on waiting for it.</summary>
    public async Task ResumeAsync(CancellationToken cancellationToken)
    {
        await _turn.WaitAsync(cancellationToken);
        if (!_weightsAsleep && !_kvAsleep)
            engine.Resume();
        _turn.Release();
    }

    public void Dispose() => _turn.Dispose();

    private long Gpus => options.Parallel.LocalGpus;

    private long HeldBytes => !_weightsAsleep && !_kvAsleep ? plan.HeldBytes
        : Math.Min(plan.HeldBytes, ((long)options.Knobs.SleepResidueMib << 20) + (_leaked ? (long)options.Knobs.SleepLeakMib << 20 : 0)
            + (_weightsAsleep ? 0 : plan.WeightBytes) + (_kvAsleep ? 0 : plan.KvBytes));

    private TimeSpan Transfer(double gigabytesPerSecond) =>
        gigabytesPerSecond > 0 ? TimeSpan.FromSeconds(plan.WeightBytes / 1e9 / gigabytesPerSecond) : TimeSpan.Zero;

    private static IEnumerable<string> Awoken(IReadOnlyCollection<string> tags) => tags.Count == 0 ? [KvCache, Weights] : tags;

    private async Task PauseEngineAsync(PauseMode mode, CancellationToken cancellationToken)
    {
        if (engine.IsPaused)
            return;
        engine.Pause(freeze: mode == PauseMode.Keep, onlyNew: mode == PauseMode.Wait);
        if (mode == PauseMode.Abort)
            engine.AbortAll();
        while (mode != PauseMode.Keep && engine.HasActive(mode == PauseMode.Wait) && !engine.IsDead)
            await Task.Delay(TimeSpan.FromMilliseconds(5), time, cancellationToken);
        engine.CloseGate();
    }

    private void CheckFree(long bytes)
    {
        if (hold is null || bytes == 0 || (hold.Devices.Min(hold.FreeMib) << 20) + HeldBytes >= Math.Min(plan.HeldBytes, HeldBytes + bytes))
            return;
        log.EngineError("Traceback (most recent call last):", "RuntimeError: CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:62");
        if (options.Knobs.WakeWithoutMemory == NoMemory.Die)
            engine.Die();
        throw ApiException.Internal();
    }

    private void Tell()
    {
        engine.MemoryAway = _weightsAsleep || _kvAsleep;
        if (engine.MemoryAway && !_pauses && engine.Running > 0)
            engine.Die();
        hold?.Set((HeldBytes + (1 << 20) - 1) >> 20);
        hold?.SetRam(_inRam ? plan.WeightBytes * Gpus >> 20 : 0);
    }
}
