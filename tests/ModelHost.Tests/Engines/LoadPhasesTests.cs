using ModelHost.Core.Backends;
using ModelHost.Core.Engines;

namespace ModelHost.Tests.Engines;

public sealed class LoadPhasesTests
{
    private static readonly BackendRecipe Vllm = BackendCatalogue.BuiltIn["vllm"];

    [Theory]
    [InlineData("INFO 03-01 12:00:00 [weight_utils.py:296] Using model weights format ['*.safetensors']", "downloading")]
    [InlineData("Downloading shards:  50%|█████     | 1/2", "downloading")]
    [InlineData("(EngineCore_DP0 pid=7) INFO 03-01 12:00:00 [gpu_model_runner.py:2602] Starting to load model Qwen/Qwen3-8B...", "loading_weights")]
    [InlineData("Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:00<00:02,  1.24it/s]", "loading_weights")]
    [InlineData("INFO 03-01 12:00:00 [default_loader.py:268] Loading weights took 2.20 seconds", "loading_weights")]
    [InlineData("INFO 03-01 12:00:00 [backends.py:559] Dynamo bytecode transform time: 3.45 s", "compiling")]
    [InlineData("INFO 03-01 12:00:00 [backends.py:218] Compiling a graph for dynamic shape takes 14.3 s", "compiling")]
    [InlineData("INFO 03-01 12:00:00 [monitor.py:34] torch.compile takes 17.80 s in total", "compiling")]
    [InlineData("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  60%|██████", "compiling")]
    [InlineData("INFO 03-01 12:00:00 [gpu_model_runner.py:2507] Graph capturing finished in 9 secs, took 0.84 GiB", "compiling")]
    [InlineData("INFO 03-01 12:00:00 [kv_cache_utils.py:864] GPU KV cache size: 400,096 tokens", null)]
    [InlineData("INFO:     Application startup complete.", null)]
    [InlineData("", null)]
    public void A_line_of_the_log_announces_its_phase(string line, string? phase) => LoadPhases.Detect(Vllm, line).ShouldBe(phase);

    [Theory]
    [InlineData("INFO:     Application startup complete.", true)]
    [InlineData("(APIServer pid=1) INFO:     Application startup complete.", true)]
    [InlineData("INFO 03-01 12:00:00 [core.py:77] init engine (profile, create kv cache, warmup model) took 31.12 seconds", false)]
    [InlineData("INFO:     Waiting for application startup.", false)]
    public void Only_the_last_line_of_the_start_says_ready(string line, bool ready) => LoadPhases.IsReady(Vllm, line).ShouldBe(ready);
}
