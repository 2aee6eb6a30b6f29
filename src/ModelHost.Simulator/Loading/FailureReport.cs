using ModelHost.Simulator.Server;

namespace ModelHost.Simulator.Loading;

/// <summary>Prints a failed start the way Python does: the cause, then the lines that only wrap it.</summary>
internal static class FailureReport
{
    private const string Packages = "/usr/local/lib/python3.12/dist-packages/vllm/";

    public static void Write(ServerLog log, LoadFailedException failure, int workers)
    {
        var cause = failure.Message.Split('\n');
        if (!failure.InEngine)
        {
            log.ApiError(
                "Traceback (most recent call last):",
                "  File \"/usr/local/bin/vllm\", line 10, in <module>",
                "    sys.exit(main())",
                $"  File \"{Packages}entrypoints/cli/serve.py\", line 118, in cmd",
                "    uvloop.run(run_server(args))",
                $"  File \"{Packages}engine/arg_utils.py\", line 1543, in create_engine_config",
                "    model_config = self.create_model_config()");
            log.ApiError(cause);
            return;
        }
        if (failure.Hint is { } hint)
            log.Engine("gpu_model_runner.py:4012", hint, "ERROR");
        string[] trace =
        [
            "Traceback (most recent call last):",
            $"  File \"{Packages}v1/engine/core.py\", line 1078, in run_engine_core",
            "    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)",
            $"  File \"{Packages}v1/engine/core.py\", line 112, in __init__",
            "    self.model_executor = executor_class(vllm_config)",
            $"  File \"{Packages}v1/worker/gpu_worker.py\", line 214, in init_device",
            .. cause,
        ];
        // logged with the cause first, as workers do, so that a reader finds it above the wrapper
        foreach (var line in trace)
            log.Engine("core.py:1103", line, "ERROR");
        if (workers > 1)
            log.Engine("core.py:1103", "Exception: WorkerProc initialization failed due to an exception in a background process. " +
                "See stack trace for root cause.", "ERROR");
        log.Engine("core.py:1104", "EngineCore failed to start.", "ERROR");
        log.EngineError(["Process EngineCore:", .. trace]);
        log.ApiError(
            "Traceback (most recent call last):",
            "  File \"/usr/local/bin/vllm\", line 10, in <module>",
            "    sys.exit(main())",
            $"  File \"{Packages}v1/engine/utils.py\", line 981, in wait_for_engine_startup",
            "    raise RuntimeError(",
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}");
    }
}
