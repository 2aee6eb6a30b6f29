using System.Diagnostics;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

public sealed class GpuTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("modelhost-gpus-").FullName;

    public GpuTests() => File.WriteAllText(Path.Combine(_directory, "gpus.csv"), "0,GPU-a,NVIDIA L4,24576\n1,GPU-b,NVIDIA L4,24576\n");

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public async Task The_budget_is_held_on_the_visible_gpu_until_the_exit()
    {
        var simulator = await RunningSimulator.StartWithAsync(Environment("1"), "Qwen/Qwen3-0.6B", "--gpu-memory-utilization", "0.5");

        Holds().ShouldBe([$"GPU-b,{System.Environment.ProcessId},VLLM::EngineCore,12288"]);
        (await Smi("--query-gpu=index,memory.total,memory.used,memory.free", "--format=csv,noheader,nounits"))
            .ShouldBe("0, 24576, 4, 24572\n1, 24576, 12292, 12284\n");
        (await Smi("--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits"))
            .ShouldBe($"GPU-b, {System.Environment.ProcessId}, VLLM::EngineCore, 12288\n");

        await simulator.DisposeAsync();

        Holds().ShouldBeEmpty();
        (await Smi("--query-gpu=memory.used", "--format=csv,noheader,nounits")).ShouldBe("4\n4\n");
    }

    [Fact]
    public async Task Tensor_parallel_ranks_hold_one_gpu_each()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Environment("GPU-b,GPU-a"), "Qwen/Qwen3-8B", "-tp", "2");

        Holds().Select(line => line.Split(',')[0]).ShouldBe(["GPU-b", "GPU-a"]);
        Holds().Select(line => line.Split(',')[2]).ShouldBe(["VLLM::Worker_TP0", "VLLM::Worker_TP1"]);
    }

    [Fact]
    public async Task A_second_server_finds_too_little_free_memory()
    {
        await using var first = await RunningSimulator.StartWithAsync(Environment("0"), "Qwen/Qwen3-0.6B", "--gpu-memory-utilization", "0.5");

        var (code, output, error) = await RunningSimulator.RunAsync(Environment("0"), "Qwen/Qwen3-0.6B", "--gpu-memory-utilization", "0.6");

        code.ShouldBe(1);
        error.ShouldContain("ValueError: Free memory on device (12.00/24.00 GiB) on startup is less than desired GPU memory utilization (0.6, 14.40 GiB).");
        output.ShouldNotContain("Loading weights took");
        Holds().Length.ShouldBe(1);
    }

    [Theory]
    [InlineData("meta/Llama-70B", "0.9", "CUDA out of memory")]
    [InlineData("Qwen/Qwen3-8B", "0.6", "No available memory for the cache blocks")]
    [InlineData("Qwen/Qwen3-8B", "0.8", "To serve at least one request with the models's max seq len (40960), (5.00 GiB KV cache is needed")]
    public async Task A_model_that_does_not_fit_fails_as_the_arithmetic_says(string model, string utilization, string text)
    {
        var (code, _, error) = await RunningSimulator.RunAsync(Environment("0"), model, "--gpu-memory-utilization", utilization);

        code.ShouldBe(1);
        error.ShouldContain(text);
        Holds().ShouldBeEmpty();
    }

    [Fact]
    public async Task Fewer_gpus_than_ranks_stop_the_start()
    {
        var (code, _, error) = await RunningSimulator.RunAsync(Environment("1"), "Qwen/Qwen3-0.6B", "-tp", "2");

        code.ShouldBe(1);
        error.ShouldContain("World size (2) is larger than the number of available GPUs (1)");
    }

    [Fact]
    public async Task The_holds_of_a_killed_process_no_longer_count()
    {
        using var process = SimulatorProcess.Start(Environment("0"), "Qwen/Qwen3-0.6B", "--gpu-memory-utilization", "0.5");
        await process.ReadyAsync();
        (await Smi("--query-gpu=memory.used", "--format=csv,noheader,nounits")).ShouldBe("12292\n4\n");

        process.Kill();

        Holds().Length.ShouldBe(1);
        (await Smi("--query-gpu=memory.used", "--format=csv,noheader,nounits")).ShouldBe("4\n4\n");
        await using var next = await RunningSimulator.StartWithAsync(Environment("0"), "Qwen/Qwen3-0.6B", "--gpu-memory-utilization", "0.9");
    }

    [Theory]
    [InlineData("-L", "GPU 0: NVIDIA L4 (UUID: GPU-a)\nGPU 1: NVIDIA L4 (UUID: GPU-b)\n")]
    [InlineData("--query-gpu=name,mig.mode.current,driver_version,memory.total --format=csv,noheader -i 1", "NVIDIA L4, Disabled, 580.95.05, 24576 MiB\n")]
    [InlineData("--query-gpu=index,utilization.gpu,temperature.gpu,power.draw --format=csv,nounits -i GPU-a",
        "index, utilization.gpu, temperature.gpu, power.draw\n0, 0, 31, 68.50\n")]
    [InlineData("--query-compute-apps=gpu_uuid,pid,process_name,used_memory --format=csv,noheader,nounits", "")]
    public async Task The_stand_in_for_nvidia_smi_answers_queries(string arguments, string answer) =>
        (await Smi(arguments.Split(' '))).ShouldBe(answer);

    private Dictionary<string, string> Environment(string visible) =>
        new() { ["VLLM_SIM_GPU_DIR"] = _directory, ["NVIDIA_VISIBLE_DEVICES"] = visible };

    private string[] Holds() => !Directory.Exists(Path.Combine(_directory, "holds")) ? [] :
    [
        .. Directory.GetFiles(Path.Combine(_directory, "holds"))
            .SelectMany(path =>
            {
                using var reader = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
                return reader.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries);
            }),
    ];

    private async Task<string> Smi(params string[] arguments)
    {
        var start = new ProcessStartInfo(Path.Combine(RealDocker.RepositoryRoot, "tests", "bench", "nvidia-smi"), arguments) { RedirectStandardOutput = true };
        start.Environment["MODELHOST_BENCH_GPU_DIR"] = _directory;
        using var process = Process.Start(start)!;
        var output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        process.ExitCode.ShouldBe(0, output);
        return output;
    }
}
