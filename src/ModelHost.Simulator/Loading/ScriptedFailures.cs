using ModelHost.Simulator.Flags;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Loading;

/// <summary>The failures that a knob can ask for, each with the phase of the start in which it comes.</summary>
internal static class ScriptedFailures
{
    private static readonly Dictionary<ScriptedFailure, (LoadPhase Phase, Func<ServerOptions, LoadFailedException> Make)> All = new()
    {
        [ScriptedFailure.NoGpu] = (LoadPhase.Platform, static _ => LoadFailures.NoDevice()),
        [ScriptedFailure.BadParser] = (LoadPhase.Platform, static _ => LoadFailures.BadParser("tool call", "unknown_parser", ParserNames.ToolCall)),
        [ScriptedFailure.NoSleep] = (LoadPhase.Platform, static _ => Config("ModelConfig", "Sleep mode is not supported on current platform.")),
        [ScriptedFailure.Gated] = (LoadPhase.Config, Gated),
        [ScriptedFailure.Licence] = (LoadPhase.Config, static options => Front(
            $"huggingface_hub.errors.GatedRepoError: 403 Client Error.\nCannot access gated repo for url {Url(options)}.\n" +
            $"Access to model {options.Model} is restricted and you are not in the authorized list. Visit https://huggingface.co/{options.Model} to ask for access.")),
        [ScriptedFailure.NotFound] = (LoadPhase.Config, static options => Front(
            $"OSError: {options.Model} is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\n" +
            $"Repository Not Found for url: {Url(options)}.\nValueError: Invalid repository ID or local directory specified: '{options.Model}'.")),
        [ScriptedFailure.Revision] = (LoadPhase.Config, static options => Front(
            $"huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.\nRevision Not Found for url: {Url(options)}.\n" +
            $"Invalid rev id: {options.Flags.Text("revision") ?? "main"}")),
        [ScriptedFailure.Offline] = (LoadPhase.Config, Offline),
        [ScriptedFailure.Unsupported] = (LoadPhase.Config, static _ => Config("ModelConfig", "Model architectures ['UnheardOfForCausalLM'] are not supported for now.")),
        [ScriptedFailure.Inspect] = (LoadPhase.Config, static _ => Config(
            "ModelConfig", "Model architectures ['UnheardOfForCausalLM'] failed to be inspected. Please check the logs for more details.")),
        [ScriptedFailure.RemoteCode] = (LoadPhase.Config, static options => Front(
            $"ValueError: The repository {options.Model} contains custom code which must be executed to correctly load the model.\n" +
            "Please pass the argument `trust_remote_code=True` to allow custom code to be run.")),
        [ScriptedFailure.Runner] = (LoadPhase.Config, static _ => WrongRunner()),
        [ScriptedFailure.FreeMemory] = (LoadPhase.Engine, static options =>
            LoadFailures.NotEnoughFree(12.5, 79.65, options.GpuMemoryUtilization, 79.65 * options.GpuMemoryUtilization)),
        [ScriptedFailure.Nccl] = (LoadPhase.Engine, static _ => new(
            "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled system error " +
            "(run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5\nncclSystemError: System call (e.g. socket, malloc) or external library " +
            "call failed or device error.\nLast error:\nError while creating shared memory segment /dev/shm/nccl-Gx4zmi (size 9637888)", inEngine: true)),
        [ScriptedFailure.Oom] = (LoadPhase.Weights, static _ => LoadFailures.OutOfMemory(79.65, 0.02, 0.5)),
        [ScriptedFailure.Killed] = (LoadPhase.Weights, static _ => new("", inEngine: true, exitCode: 137)),
        [ScriptedFailure.Profiling] = (LoadPhase.Profile, static _ => new(
            "AssertionError: Error in memory profiling. Initial free memory 60.25 GiB, current free memory 71.5 GiB. This happens when other " +
            "processes sharing the same container release GPU memory while vLLM is profiling during initialization.", inEngine: true)),
        [ScriptedFailure.CacheBlocks] = (LoadPhase.Profile, static _ => LoadFailures.NoCacheBlocks()),
        [ScriptedFailure.KvCache] = (LoadPhase.Profile, static _ => LoadFailures.KvCacheTooSmall(262_144, 24, 3.18, 34_736)),
    };

    /// <summary>The failure that a knob asks for in this phase; null when there is none.</summary>
    public static LoadFailedException? In(LoadPhase phase, ServerOptions options)
    {
        var asked = options.Knobs.Failure;
        if (asked == ScriptedFailure.None && options.Knobs.FailurePhase is not null)
            asked = ScriptedFailure.Oom;
        return All.TryGetValue(asked, out var failure) && phase == (options.Knobs.FailurePhase ?? failure.Phase) ? failure.Make(options) : null;
    }

    /// <summary>What the hub says to this server; null when it gives the model out.</summary>
    public static LoadFailedException? OfHub(ServerOptions options, bool cached)
    {
        if (options.Caches.Offline)
            return cached ? null : Offline(options);
        return options.Knobs.Hub switch
        {
            HubAccess.Open => null,
            HubAccess.Gated => options.HasToken ? null : Gated(options),
            HubAccess.Closed => options.HasToken ? All[ScriptedFailure.Licence].Make(options) : Gated(options),
        };
    }

    public static LoadFailedException WrongRunner() => Config("ModelConfig", "Embedding models do not support `--runner generate`.");

    private static LoadFailedException Gated(ServerOptions options) => Front(
        $"OSError: You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/{options.Model}.\n" +
        $"401 Client Error. Cannot access gated repo for url {Url(options)}. Access to model {options.Model} is restricted. " +
        "You must have access to it and be authenticated to access it. Please log in.");

    private static LoadFailedException Offline(ServerOptions options) => Front(
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified revision on the local disk " +
        $"and outgoing traffic has been disabled.\nOSError: We couldn't connect to 'https://huggingface.co' to load the files of {options.Model}, " +
        "and couldn't find them in the cached files.");

    private static string Url(ServerOptions options) => $"https://huggingface.co/{options.Model}/resolve/{options.Flags.Text("revision") ?? "main"}/config.json";

    private static LoadFailedException Front(string error) => new(error, inEngine: false);

    private static LoadFailedException Config(string kind, string error) =>
        Front($"pydantic_core._pydantic_core.ValidationError: 1 validation error for {kind}\n  Value error, {error}");
}
