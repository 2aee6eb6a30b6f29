using System.Globalization;
using System.Net;
using System.Net.Sockets;
using ModelHost.Simulator.Flags;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Loading;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Server;
using ModelHost.Simulator.Sleep;

namespace ModelHost.Simulator;

/// <summary>One life of a simulated server, from its command line to its exit code. All that it touches of the outside comes in here.</summary>
/// <param name="arguments">The command line after <c>vllm serve</c>.</param>
/// <param name="environment">All environment variables.</param>
/// <param name="output">Standard output.</param>
/// <param name="error">Standard error.</param>
/// <param name="time">The clock of the log, the load and the tokens.</param>
internal sealed class SimulatedServer(
    IReadOnlyList<string> arguments, IReadOnlyDictionary<string, string> environment, TextWriter output, TextWriter error, TimeProvider time)
{
    /// <summary>Time for answers that are on their way when the engine has stopped, also on a machine that has much else to do.</summary>
    private static readonly TimeSpan StopGrace = TimeSpan.FromSeconds(5);

    private readonly TaskCompletionSource<IPEndPoint> _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Ends when the server answers, with the address it listens on; cancelled when it ends before.</summary>
    public Task<IPEndPoint> Ready => _ready.Task;

    /// <summary>Lives until told to stop, or until it fails.</summary>
    /// <param name="stop">The signal to stop.</param>
    /// <returns>0 after a stop or help, 1 after a failure, 2 when the command line or a knob is wrong.</returns>
    public async Task<int> RunAsync(CancellationToken stop)
    {
        try
        {
            if (ReadOptions() is not { } options)
                return 2;
            await using var log = new ServerLog(output, error, time, Environment.ProcessId, Wording.EngineProcess.Of(options.Release)!);
            return await ServeAsync(options, log, stop);
        }
        catch (InformationRequestedException e)
        {
            var version = environment.GetValueOrDefault("VLLM_SIM_VERSION", Release.Default);
            await output.WriteLineAsync(e.Version ? version : Usage(new FlagTable(new Release(version))));
            await output.FlushAsync(CancellationToken.None);
            return 0;
        }
        finally
        {
            _ready.TrySetCanceled(CancellationToken.None);
        }
    }

    private ServerOptions? ReadOptions()
    {
        try
        {
            return ServerOptions.Read(arguments, environment);
        }
        catch (UsageException e)
        {
            error.Write($"usage: vllm serve [model_tag] [options]\nvllm serve: error: {e.Message}\n");
        }
        catch (KnobException e)
        {
            error.Write($"vllm simulator: {e.Message}\n");
        }
        error.Flush();
        return null;
    }

    private async Task<int> ServeAsync(ServerOptions options, ServerLog log, CancellationToken stop)
    {
        try
        {
            if (options.Parallel.Headless)
                return await ComputeAsync(options, log, stop);
            if (options.Port is < 0 or > IPEndPoint.MaxPort)
                throw new LoadFailedException("OverflowError: bind(): port must be 0-65535.", inEngine: false);
            await using var http = HttpServer.Bind(options.Host, (int)options.Port);
            var (plan, hold) = await new LoadSequence(options, log, time).RunAsync(stop);
            using (hold)
                return await AnswerAsync(options, log, http, plan, hold, stop);
        }
        catch (SocketException e)
        {
            // the error numbers of Linux, in Python's words
            var reason = e.SocketErrorCode switch
            {
                SocketError.AddressAlreadyInUse => "OSError: [Errno 98] Address already in use",
                SocketError.HostNotFound => "socket.gaierror: [Errno -2] Name or service not known",
                _ => string.Create(CultureInfo.InvariantCulture, $"OSError: [Errno {e.NativeErrorCode}] {e.Message}"),
            };
            log.ApiError("Traceback (most recent call last):", "    sock.bind(addr)", reason);
            return 1;
        }
        catch (LoadFailedException e)
        {
            if (e.Message.Length > 0)
                FailureReport.Write(log, e, options.Parallel.Ranks);
            return e.ExitCode;
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            log.Api("launcher.py:112", Wording.StopAsked.Of(options.Release));
            return 0;
        }
    }

    /// <summary>Loads and holds its GPUs for a front end on another node, which is not asked whether it is there.</summary>
    private async Task<int> ComputeAsync(ServerOptions options, ServerLog log, CancellationToken stop)
    {
        var (_, hold) = await new LoadSequence(options, log, time).RunAsync(stop);
        using (hold)
        {
            log.Api("serve.py:142", $"Running {options.Parallel.LocalEngines} engine(s) in headless mode.");
            await Task.Delay(Timeout.InfiniteTimeSpan, time, stop);
        }
        return 0;
    }

    private async Task<int> AnswerAsync(ServerOptions options, ServerLog log, HttpServer http, MemoryPlan plan, GpuHold? hold, CancellationToken stop)
    {
        using var engine = new Engine(options, plan, new Adapters(options, time), time);
        using var sleep = new SleepMode(options, plan, engine, hold, log, time);
        var counts = new HttpCounts();
        var routes = RouteTable.Make(options, plan, engine, sleep, new MetricsPage(options, plan, engine, sleep, counts, time), log, time);
        log.Api("api_server.py:1346", Wording.ServerStarts.Of(options.Release, options.Host, http.EndPoint.Port));
        log.Api("launcher.py:38", "Available routes are:");
        foreach (var route in routes)
            log.Api("launcher.py:46", $"Route: {route.Path}, Methods: {string.Join(", ", route.Methods)}");
        log.Uvicorn($"Started server process [{log.ProcessId}]");
        log.Uvicorn("Waiting for application startup.");
        await http.StartAsync(new Router(options, routes, counts, log, time), options.KeepAlive);
        log.Uvicorn("Application startup complete.");
        _ready.TrySetResult(http.EndPoint);

        await using var throughput = options.Flags.Switch("disable_log_stats") ? null : new ThroughputLog(log, engine, options.LogStatsPeriod, time);
        var stopped = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var registration = stop.Register(() => stopped.TrySetResult());
        await Task.WhenAny(stopped.Task, engine.Died);
        if (engine.KilledWith != 0)
            return engine.KilledWith;
        var stopsEngineFirst = options.Release.Has(Traits.StopsEngineFirst);
        if (engine.IsDead)
            await MournAsync(options, log, stopped.Task);
        else if (stopsEngineFirst)
            await StopEngineAsync(options, log, engine);
        else
            log.Uvicorn("Shutting down");
        await http.StopAsync(time, engine.IsDead || stopsEngineFirst ? StopGrace : TimeSpan.Zero);
        log.Uvicorn("Application shutdown complete.");
        log.Uvicorn($"Finished server process [{log.ProcessId}]");
        return engine.IsDead ? options.Knobs.ExitCode : 0;
    }

    /// <summary>The front end notices within five seconds; until then, or for good when it is told to, it answers without an engine.</summary>
    private async Task MournAsync(ServerOptions options, ServerLog log, Task stopped)
    {
        log.Engine("core.py:1112", "EngineCore encountered a fatal error.", "ERROR");
        log.Engine("core.py:1112", "RuntimeError: CUDA error: an illegal memory access was encountered", "ERROR");
        log.Api("async_llm.py:708", "AsyncLLM output_handler failed.", "ERROR");
        log.Api("async_llm.py:708", "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. " +
            "See stack trace (above) for the root cause.", "ERROR");
        await Task.WhenAny(stopped, options.OutlivesEngine ? stopped : Task.Delay(options.Knobs.DeathTime, time));
        log.Uvicorn("Shutting down");
    }

    private async Task StopEngineAsync(ServerOptions options, ServerLog log, Engine engine)
    {
        var drain = options.ShutdownTimeout > TimeSpan.Zero;
        var (mode, seconds) = (drain ? "drain" : "abort", (int)options.ShutdownTimeout.TotalSeconds);
        // before the log says so: who reads it there finds it so
        if (drain)
            engine.StopAdmitting();
        log.Api("launcher.py:112", Wording.StopAsked.Of(options.Release));
        log.Api("launcher.py:120", $"[shutdown] API server: stopping engine client mode={mode} timeout={seconds}");
        log.Engine("core.py:1240", $"[shutdown] EngineCore: start mode={mode} timeout={seconds}");
        if (drain)
        {
            var started = time.GetTimestamp();
            while (engine.InFlight > 0 && time.GetElapsedTime(started) < options.ShutdownTimeout && !engine.IsDead)
                await Task.Delay(TimeSpan.FromMilliseconds(20), time, CancellationToken.None);
        }
        engine.StopNow();
        log.Api("launcher.py:124", "[shutdown] API server: engine client stopped");
        log.Api("launcher.py:128", "[shutdown] API server: signalling HTTP server shutdown");
        log.Uvicorn("Shutting down");
        log.Uvicorn("Waiting for application shutdown.");
    }

    private static string Usage(FlagTable flags) => "usage: vllm serve [model_tag] [options]\n\noptions:\n" +
        string.Join('\n', flags.All.Select(flag => "  " + flag.Shown.Replace("/", ", ", StringComparison.Ordinal)));
}
