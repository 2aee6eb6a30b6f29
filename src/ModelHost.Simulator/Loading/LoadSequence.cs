using System.Globalization;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Server;

namespace ModelHost.Simulator.Loading;

/// <summary>Plays the start of an engine: its phases with their log lines, the memory it takes, and the failures on the way.</summary>
internal sealed class LoadSequence(ServerOptions options, ServerLog log, TimeProvider time)
{
    private const double Gib = 1L << 30;

    /// <summary>Shares of the whole load time; a download comes only with its own knob, for the weights are taken to be cached.</summary>
    private static readonly Dictionary<LoadPhase, double> Shares = new()
    {
        [LoadPhase.Platform] = 0.05,
        [LoadPhase.Config] = 0.05,
        [LoadPhase.Engine] = 0.1,
        [LoadPhase.Download] = 0,
        [LoadPhase.Weights] = 0.4,
        [LoadPhase.Compile] = 0.2,
        [LoadPhase.Profile] = 0.05,
        [LoadPhase.Graphs] = 0.15,
    };

    private readonly LoadCaches _caches = new(options);
    private GpuHold? _hold;

    /// <summary>Runs all phases.</summary>
    /// <returns>The memory of the ready server, and the hold on its GPUs, which the caller releases.</returns>
    /// <exception cref="LoadFailedException">The start failed, by a knob or by the arithmetic.</exception>
    public async Task<(MemoryPlan Plan, GpuHold? Hold)> RunAsync(CancellationToken cancellationToken)
    {
        try
        {
            await PlatformAsync(cancellationToken);
            await ConfigAsync(cancellationToken);
            var totalBytes = await EngineAsync(cancellationToken);
            await WeightsAsync(totalBytes, cancellationToken);
            return (await CacheAsync(totalBytes, cancellationToken), _hold);
        }
        catch
        {
            _hold?.Dispose();
            throw;
        }
    }

    private async Task PlatformAsync(CancellationToken cancellationToken)
    {
        if (options.Knobs.Failure != ScriptedFailure.NoGpu)
            log.Api("__init__.py:216", "Automatically detected platform cuda.");
        else
            log.Api("__init__.py:216", "No platform detected, vLLM is running on UnspecifiedPlatform");
        foreach (var line in options.ShowsLogo ? Wording.Logo : [Wording.Banner])
            log.Api("utils.py:302", line.Of(options.Release, options.Knobs.Version, options.Model));
        log.Api("utils.py:253", $"non-default args: {options.Flags}");
        Throw(LoadFailures.OfOptions(options));
        await SpendAsync(LoadPhase.Platform, cancellationToken);
    }

    private async Task ConfigAsync(CancellationToken cancellationToken)
    {
        await SpendAsync(LoadPhase.Config, cancellationToken);
        Throw(ScriptedFailures.OfHub(options, _caches.HasWeights));
        var asked = options.Flags.Integer("max_model_len");
        if (asked > options.Shape.MaxPositions && !options.AllowLongMaxModelLength)
            throw LoadFailures.TooLong(asked.Value, options.Shape.MaxPositions);
        log.Api("model.py:514", $"Resolved architecture: {(options.Pools ? "Qwen3ForTextEmbedding" : "Qwen3ForCausalLM")}");
        log.Api("model.py:1661", $"Using max model len {(asked > 0 ? asked : options.Shape.MaxPositions)}");
        log.Api("scheduler.py:229", $"Chunked prefill is enabled with max_num_batched_tokens={options.Flags.Integer("max_num_batched_tokens") ?? 8192}.");
    }

    private async Task<long> EngineAsync(CancellationToken cancellationToken)
    {
        log.Engine("core.py:772", "Waiting for init message from front-end.");
        log.Engine("core.py:93", $"Initializing a V1 LLM engine (v{options.Knobs.Version}) with config: model='{options.Model}', " +
            $"served_model_name={options.ServedNames[0]}, tensor_parallel_size={options.TensorParallel}, seed={options.Seed}");
        await SpendAsync(LoadPhase.Engine, cancellationToken);
        if (options.Knobs.GpuDirectory is not { } directory)
            return (options.Knobs.GpuMemoryMib ?? 81_559L) << 20;

        var wantedGpus = (int)options.Parallel.LocalGpus;
        var visible = GpuDevice.Visible(GpuDevice.ReadAll(directory), options.VisibleDevices);
        if (visible.Count == 0)
            throw LoadFailures.NoDevice();
        if (visible.Count < wantedGpus)
            throw LoadFailures.TooFewDevices(wantedGpus, visible.Count);
        _hold = GpuHold.Open(directory, [.. visible.Take(wantedGpus)], WorkerNames(), log.ProcessId);
        foreach (var device in _hold.Devices)
        {
            var (free, total) = (_hold.FreeMib(device) << 20, device.TotalMib << 20);
            var wanted = MemoryPlan.Budget(total, options.GpuMemoryUtilization);
            if (free < wanted && options.Flags.Integer("kv_cache_memory_bytes") is null)
                throw LoadFailures.NotEnoughFree(free / Gib, total / Gib, options.GpuMemoryUtilization, wanted / Gib);
        }
        _hold.Set(MemoryPlan.ContextBytes >> 20);
        return _hold.Devices.Min(device => device.TotalMib) << 20;
    }

    /// <summary>The processes that hold the GPUs: the engine itself when it needs one only, otherwise its workers.</summary>
    private string[] WorkerNames()
    {
        var perEngine = (int)options.Parallel.LocalGpus / options.Parallel.LocalEngines;
        var first = options.Parallel.Headless || options.Parallel.Engines.Count == 1 ? options.Parallel.Engines[0] : 0;
        return [.. Enumerable.Range(0, (int)options.Parallel.LocalGpus).Select(i =>
        {
            var (engine, worker) = (first + (i / perEngine), i % perEngine);
            return options.Parallel.Data == 1
                ? perEngine == 1 ? "VLLM::EngineCore" : $"VLLM::Worker_TP{worker}"
                : perEngine == 1 ? $"VLLM::EngineCore_DP{engine}" : $"VLLM::Worker_DP{engine}_TP{worker}";
        })];
    }

    private async Task WeightsAsync(long totalBytes, CancellationToken cancellationToken)
    {
        var bytes = options.Shape.WeightBytes / options.Parallel.Ranks;
        var started = time.GetTimestamp();
        log.Engine("gpu_model_runner.py:2338", $"Starting to load model {options.Model}...");
        var downloading = DownloadTime();
        Throw(ScriptedFailures.In(LoadPhase.Download, options));
        await Task.Delay(downloading, time, cancellationToken);
        _caches.KeepWeights();
        log.Engine("weight_utils.py:392", "Using model weights format ['*.safetensors']");
        if (downloading > TimeSpan.FromSeconds(0.5))
            log.Engine("weight_utils.py:413", $"Time spent downloading weights for {options.Model}: {Seconds(downloading)} seconds");
        if (_hold is not null && _hold.Devices.Min(_hold.FreeMib) << 20 is var free && free < bytes)
            throw LoadFailures.OutOfMemory(totalBytes / Gib, free / Gib, bytes / Gib);

        var reading = time.GetTimestamp();
        var shards = (int)Math.Clamp((options.Shape.WeightBytes + (5L << 30) - 1) / (5L << 30), 1, 64);
        Progress(0);
        Throw(ScriptedFailures.In(LoadPhase.Weights, options));
        if (options.Knobs.Hang == HangPoint.Load)
            await Task.Delay(Timeout.InfiniteTimeSpan, time, cancellationToken);
        for (var shard = 1; shard <= shards; shard++)
        {
            await Task.Delay(Duration(LoadPhase.Weights) / shards, time, cancellationToken);
            _hold?.Set((MemoryPlan.ContextBytes + (bytes / shards * shard)) >> 20);
            Progress(shard);
        }
        log.Engine("default_loader.py:267", $"Loading weights took {Seconds(time.GetElapsedTime(reading))} seconds");
        log.Engine("gpu_model_runner.py:2392",
            Wording.ModelLoaded.Of(options.Release, (bytes / Gib).ToString("F2", CultureInfo.InvariantCulture), Seconds(time.GetElapsedTime(started), 6)));

        void Progress(int done) => log.Progress(
            $"Loading safetensors checkpoint shards: {100 * done / shards,3}% Completed | {done}/{shards}", done == 0, done == shards);
    }

    private async Task<MemoryPlan> CacheAsync(long totalBytes, CancellationToken cancellationToken)
    {
        var started = time.GetTimestamp();
        var compiling = await CompileAsync(cancellationToken);
        await SpendAsync(LoadPhase.Profile, cancellationToken);
        log.Engine("monitor.py:48", Wording.Profiled.Of(options.Release, Seconds(Duration(LoadPhase.Profile))));
        var plan = MemoryPlan.Make(options, totalBytes, options.Knobs.GpuDirectory is not null || options.Knobs.GpuMemoryMib is not null);
        log.Engine("gpu_worker.py:298", string.Create(CultureInfo.InvariantCulture, $"Available KV cache memory: {plan.KvBytes / Gib:F2} GiB"));
        log.Engine("kv_cache_utils.py:1087", string.Create(CultureInfo.InvariantCulture, $"GPU KV cache size: {plan.KvTokens:N0} tokens"));
        log.Engine("kv_cache_utils.py:1091", string.Create(CultureInfo.InvariantCulture,
            $"Maximum concurrency for {plan.MaxModelLength:N0} tokens per request: {plan.MaxConcurrency:F2}x"));
        if (_hold is { } hold)
        {
            if (hold.Devices.Min(hold.FreeMib) << 20 is var free && free < plan.HeldBytes - plan.WeightBytes - MemoryPlan.ContextBytes)
                throw LoadFailures.OutOfMemory(totalBytes / Gib, free / Gib, plan.KvBytes / Gib);
            // a little more than the budget's last MiB is lost by rounding up, as on a real card
            hold.Set((plan.HeldBytes + (1 << 20) - 1) >> 20);
        }
        if (!options.EnforceEager)
        {
            await SpendAsync(LoadPhase.Graphs, cancellationToken);
            log.Engine("gpu_model_runner.py:3118", string.Create(CultureInfo.InvariantCulture,
                $"Graph capturing finished in {Math.Round(Duration(LoadPhase.Graphs).TotalSeconds)} secs, took {plan.GraphBytes / Gib:F2} GiB"));
        }
        log.Engine("gpu_worker.py:391", string.Create(CultureInfo.InvariantCulture,
            $"Free memory on device ({totalBytes / Gib:F2}/{totalBytes / Gib:F2} GiB) on startup. Desired GPU memory utilization is " +
            $"({options.GpuMemoryUtilization:0.0###}, {plan.BudgetBytes / Gib:F2} GiB)."));
        log.Engine("core.py:218", Wording.EngineReady.Of(options.Release, Seconds(time.GetElapsedTime(started)), Seconds(compiling)));
        log.Api("api_server.py:1020", Wording.Tasks.Of(options.Release, string.Join("', '", ModelTasks.Of(options).Names)));
        return plan;
    }

    /// <summary>Compiles, or finds what a former start has compiled.</summary>
    /// <returns>The time it took.</returns>
    private async Task<TimeSpan> CompileAsync(CancellationToken cancellationToken)
    {
        if (options.EnforceEager)
            return TimeSpan.Zero;
        Throw(ScriptedFailures.In(LoadPhase.Compile, options));
        var found = _caches.HasCompiled;
        var length = found ? TimeSpan.Zero : Duration(LoadPhase.Compile);
        log.Engine("backends.py:548", $"Using cache directory: {_caches.CompiledFolder} for vLLM's torch.compile");
        log.Engine("backends.py:559", $"Dynamo bytecode transform time: {Seconds(length)} s");
        await Task.Delay(length, time, cancellationToken);
        log.Engine("backends.py:215", (found ? Wording.CompiledBefore : Wording.Compiled).Of(options.Release, Seconds(length)));
        log.Engine("monitor.py:34", Wording.CompileTotal.Of(options.Release, Seconds(length)));
        _caches.KeepCompiled();
        return length;
    }

    private TimeSpan DownloadTime()
    {
        if (options.Knobs.KeepsCaches && _caches.HasWeights)
            return TimeSpan.Zero;
        return options.Knobs.PhaseTimes.ContainsKey(LoadPhase.Download) || options.Knobs.DownloadMegabytesPerSecond == 0 ? Duration(LoadPhase.Download)
            : TimeSpan.FromSeconds(Math.Min(KnobText.MostSeconds, options.Shape.WeightBytes / 1e6 / options.Knobs.DownloadMegabytesPerSecond));
    }

    private async Task SpendAsync(LoadPhase phase, CancellationToken cancellationToken)
    {
        Throw(ScriptedFailures.In(phase, options));
        if (Duration(phase) is { Ticks: > 0 } duration)
            await Task.Delay(duration, time, cancellationToken);
    }

    /// <summary>Length of one phase.</summary>
    public static TimeSpan Duration(Knobs knobs, LoadPhase phase) => knobs.PhaseTimes.GetValueOrDefault(phase, knobs.LoadTime * Shares[phase]);

    private TimeSpan Duration(LoadPhase phase) => Duration(options.Knobs, phase);

    private static string Seconds(TimeSpan time, int digits = 2) => Math.Round(time.TotalSeconds, digits).ToString("F" + digits, CultureInfo.InvariantCulture);

    private static void Throw(LoadFailedException? failure)
    {
        if (failure is not null)
            throw failure;
    }
}
