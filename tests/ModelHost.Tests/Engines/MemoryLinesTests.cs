using ModelHost.Core.Backends;
using ModelHost.Core.Engines;

namespace ModelHost.Tests.Engines;

public sealed class MemoryLinesTests
{
    [Theory]
    [InlineData("INFO 08-22 10:00:00 [gpu_model_runner.py:2007] Model loading took 14.2488 GiB and 5.312 seconds", "weights", 15299532501)]
    [InlineData("(EngineCore_DP0 pid=97) (Worker_TP1 pid=101) INFO [gpu_model_runner.py:3000] Model loading took 7.12 GiB memory and 12.5 seconds", "weights", 7645041786)]
    [InlineData("(Worker pid=97) INFO 08-22 10:00:03 [gpu_worker.py:298] Available KV cache memory: 50.06 GiB", "kv_cache", 53751515709)]
    [InlineData("INFO Available KV cache memory: 3 GiB", "kv_cache", 3221225472)]
    public void A_line_tells_what_memory_is_for(string line, string part, long bytes) =>
        MemoryLines.Read(BackendCatalogue.BuiltIn["vllm"], line).ShouldBe((part, bytes));

    [Theory]
    [InlineData("INFO Available KV cache memory: -1.30 GiB")]
    [InlineData("INFO Model loading took 99999999999999999999 GiB and 1 seconds")]
    [InlineData("INFO GPU KV cache size: 12,345 tokens")]
    [InlineData("")]
    public void Other_lines_tell_nothing(string line) => MemoryLines.Read(BackendCatalogue.BuiltIn["simulator"], line).ShouldBeNull();
}
