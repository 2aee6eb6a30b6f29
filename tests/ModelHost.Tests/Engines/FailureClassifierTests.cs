using ModelHost.Core.Backends;
using ModelHost.Core.Engines;

namespace ModelHost.Tests.Engines;

public sealed class FailureClassifierTests
{
    private static readonly BackendRecipe Vllm = BackendCatalogue.BuiltIn["vllm"];

    [Theory]
    [InlineData("gpu_oom", "(EngineCore_DP0 pid=123) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a total capacity of 79.65 GiB")]
    [InlineData("gpu_oom", "RuntimeError: CUDA error: out of memory")]
    [InlineData("gpu_memory_taken", "ValueError: Free memory on device (3.21/79.65 GiB) on startup is less than desired GPU memory utilization (0.9, 71.69 GiB).")]
    [InlineData("gpu_memory_taken", "ValueError: Free memory on device cuda:0 (3.21/79.65 GiB) on startup is less than desired GPU memory utilization (0.9, 71.69 GiB).")]
    [InlineData("gpu_memory_taken", "AssertionError: Error in memory profiling. Initial free memory 60.25 GiB, current free memory 71.5 GiB.")]
    [InlineData("kv_cache_too_small", "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.")]
    [InlineData("kv_cache_too_small", "The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV cache (31104).")]
    [InlineData("kv_cache_too_small", "(24.00 GiB KV cache is needed, which is larger than the available KV cache memory (3.18 GiB).")]
    [InlineData("no_gpu", "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`")]
    [InlineData("no_gpu", "RuntimeError: No CUDA runtime is found, using CUDA_HOME='/usr/local/cuda'")]
    [InlineData("no_gpu", "RuntimeError: 0 active driver(s) found")]
    [InlineData("hf_auth", "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/org/model/resolve/main/config.json")]
    [InlineData("hf_auth", "huggingface_hub.errors.GatedRepoError: 403 Forbidden")]
    [InlineData("hf_auth", "OSError: You are trying to access a gated repo.")]
    [InlineData("hf_auth", "Access to model meta-llama/Llama-3-8B is restricted. You must have access to it and be authenticated to access it.")]
    [InlineData("hf_auth", "Cannot access gated repo for url https://huggingface.co/org/model/resolve/main/config.json.")]
    [InlineData("model_not_found", "huggingface_hub.errors.RepositoryNotFoundError: 404")]
    [InlineData("model_not_found", "Repository Not Found for url: https://huggingface.co/org/model/resolve/main/config.json.")]
    [InlineData("model_not_found", "OSError: org/model does not appear to have a file named config.json.")]
    [InlineData("model_not_found", "ValueError: Invalid repository ID or local directory specified: 'org/model'.")]
    [InlineData("port_conflict", "OSError: [Errno 98] Address already in use")]
    [InlineData("context_too_long", "ValueError: User-specified max_model_len (99999) is greater than the derived max_model_len (max_position_embeddings=4096)")]
    [InlineData("bad_args", "vllm serve: error: unrecognized arguments: --swap-space 4")]
    [InlineData("bad_args", "api_server.py: error: argument --port: invalid int value: 'x'")]
    [InlineData("bad_args", "/usr/bin/python3: No module named vllm.entrypoints.openai")]
    [InlineData("bad_args", "KeyError: 'invalid tool call parser: nope (chose from { hermes,mistral })'")]
    public void Log_text_of_the_engine_names_the_cause(string code, string line)
    {
        var failure = FailureClassifier.Classify(Vllm, ["INFO 03-01 12:00:00 [api_server.py:1] starting", line, "RuntimeError: Engine core initialization failed."], 1);

        failure.Code.ShouldBe(code);
        failure.Message.ShouldStartWith(Vllm.Failures.First(rule => rule.Code == code).Message);
        failure.Message.ShouldContain(line);
    }

    [Fact]
    public void Every_rule_has_a_line_above() => // so that a new rule comes with its text
        Vllm.Failures.Select(rule => rule.Code).ShouldBe(
            ["gpu_oom", "gpu_memory_taken", "kv_cache_too_small", "no_gpu", "hf_auth", "model_not_found", "port_conflict", "context_too_long", "bad_args"]);

    [Fact]
    public void The_first_rule_that_matches_wins_wherever_its_line_is() =>
        FailureClassifier.Classify(Vllm, ["Address already in use", "No module named x", "CUDA out of memory"], 1).Code.ShouldBe("gpu_oom");

    [Fact]
    public void Advice_on_memory_is_no_failure() =>
        FailureClassifier.Classify(Vllm, ["Free memory on device (70.1/79.6 GiB) on startup. Desired GPU memory utilization is (0.9, 71.69 GiB)."], 1).Code.ShouldBe("engine_exited");

    [Theory]
    [InlineData(137, false, "killed")]
    [InlineData(null, true, "killed")]
    [InlineData(1, true, "killed")]
    [InlineData(1, false, "engine_exited")]
    [InlineData(0, false, "engine_exited")]
    [InlineData(null, false, "engine_exited")]
    public void Without_a_known_line_the_exit_tells(int? exitCode, bool oomKilled, string code) =>
        FailureClassifier.Classify(Vllm, ["nothing to see"], exitCode, oomKilled).Code.ShouldBe(code);

    [Fact]
    public void The_exit_code_is_said() => FailureClassifier.Classify(Vllm, [], 3).Message.ShouldBe("The engine ended with exit code 3.");

    [Fact]
    public void Only_the_last_lines_are_searched()
    {
        var later = Enumerable.Repeat("fine", FailureClassifier.SearchedLines).ToArray();

        FailureClassifier.Classify(Vllm, ["CUDA out of memory", .. later[1..]], 1).Code.ShouldBe("gpu_oom");
        FailureClassifier.Classify(Vllm, ["CUDA out of memory", .. later], 1).Code.ShouldBe("engine_exited");
    }

    [Fact]
    public void The_tail_is_shown_without_blank_lines_and_bounded()
    {
        string[] lines = [.. Enumerable.Range(0, 100).Select(i => $"line {i}"), "", "   ", new string('x', 100_000)];

        var message = FailureClassifier.Classify(Vllm, lines, 1).Message;

        message.ShouldStartWith("The engine ended with exit code 1. Last log lines:\nline 93\nline 94\n");
        message.ShouldEndWith("xxx…");
        message.Length.ShouldBeLessThan(600);
    }

    [Theory]
    [InlineData(7, "CUDA out of memory\ntrace 0\ntrace 1\ntrace 2\ntrace 3\ntrace 4\ntrace 5\ntrace 6")]
    [InlineData(8, "CUDA out of memory\n…\ntrace 0\ntrace 1\ntrace 2\ntrace 3\ntrace 4\ntrace 5\ntrace 6\ntrace 7")]
    [InlineData(200, "CUDA out of memory\n…\ntrace 192\ntrace 193\ntrace 194\ntrace 195\ntrace 196\ntrace 197\ntrace 198\ntrace 199")]
    public void The_line_that_tells_the_cause_is_shown_however_much_follows_it(int more, string shown)
    {
        string[] lines = ["CUDA out of memory", "", .. Enumerable.Range(0, more).Select(i => $"trace {i}")];

        FailureClassifier.Classify(Vllm, lines, 1).Message.ShouldEndWith(" Last log lines:\n" + shown);
    }

    [Theory]
    [InlineData("could not select device driver \"nvidia\" with capabilities: [[gpu]]", "no_gpu")]
    [InlineData("driver failed: listen tcp 127.0.0.1:41000: bind: address already in use", "port_conflict")]
    [InlineData("no such image: vllm/vllm-openai:v0.9.1", "launch_failed")]
    public void What_the_runtime_says_at_launch_is_classified_and_shown(string message, string code)
    {
        var failure = FailureClassifier.ClassifyLaunch(Vllm, message);

        failure.Code.ShouldBe(code);
        failure.Message.ShouldContain(message);
    }
}
