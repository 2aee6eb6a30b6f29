using ModelHost.Core.Nodes;

namespace ModelHost.Tests.Nodes;

/// <summary>What is read of the answers that cards give, failures among them.</summary>
public sealed class GpuReadingTests
{
    private const long Mib = 1024 * 1024;
    private const string Ids = "GPU-7c1f2b9e-3d5a-4e86-9b60-0000000000";

    [Fact]
    public void One_gpu()
    {
        var reading = SmiAnswers.Read("h200");

        reading.Problem.ShouldBeNull();
        reading.Gpus.ShouldBe([new GpuFacts(0, Ids + "a1", "NVIDIA H200", 143771 * Mib, 1024 * Mib, 37, 41, 120.53) { MigEnabled = false, Driver = "580.159.03" }]);
    }

    [Fact]
    public void Eight_gpus()
    {
        var reading = SmiAnswers.Read("h100x8");

        reading.Problem.ShouldBeNull();
        reading.Gpus.Select(gpu => (gpu.Index, gpu.Uuid)).ShouldBe(Enumerable.Range(0, 8).Select(i => (i, $"{Ids}b{i}")));
        reading.Gpus.ShouldAllBe(gpu => gpu.Name == "NVIDIA H100 80GB HBM3" && gpu.TotalBytes == 81559 * Mib && gpu.Driver == "550.127.05" && !gpu.Unified);
        reading.Gpus.Select(gpu => gpu.UsedBytes / Mib).ShouldBe([73410, 73410, 4, 4, 4, 4, 4, 4]);
        reading.Gpus.Select(gpu => gpu.UtilizationPercent).ShouldBe([98, 98, 0, 0, 0, 0, 0, 0]);
        (reading.Gpus[0].PowerWatts, reading.Gpus[7].TemperatureCelsius).ShouldBe((653.1, 35));
    }

    [Theory]
    [InlineData("rtx-6000-ada", "NVIDIA RTX 6000 Ada Generation", 49140, 46867)]
    [InlineData("rtx-4090", "NVIDIA GeForce RTX 4090", 24564, 23859)]
    public void A_card_that_cannot_be_split(string card, string name, int total, int used)
    {
        var gpu = SmiAnswers.Read(card).Gpus.ShouldHaveSingleItem();

        (gpu.Name, gpu.TotalBytes, gpu.UsedBytes, gpu.MigEnabled).ShouldBe((name, total * Mib, used * Mib, null));
    }

    [Fact]
    public void A_split_card_shows_the_whole_of_it_and_no_utilization()
    {
        var reading = SmiAnswers.Read("a100-mig");

        reading.Problem.ShouldBeNull();
        reading.Gpus.Select(gpu => (gpu.MigEnabled, gpu.TotalBytes, gpu.UsedBytes, gpu.UtilizationPercent)).ShouldBe(
            [(true, 40960 * Mib, 19968 * Mib, null), (false, 40960 * Mib, 0, 0)]);
    }

    [Fact]
    public void The_instances_of_a_split_card_are_in_the_list() =>
        NvidiaSmi.ParseInstances(SmiAnswers.Text("a100-mig.list.txt")).ShouldBe(
        [
            new MigInstance("GPU-fcf41002-68b6-5900-d7d1-74026173bb44", 0, "3g.20gb", "MIG-e07a497d-1bb6-5a42-b670-1c33bf55ab6e"),
            new MigInstance("GPU-fcf41002-68b6-5900-d7d1-74026173bb44", 1, "2g.10gb", "MIG-9c4d5e6f-54b8-53b8-9016-95ef09bd78a6"),
        ]);

    [Fact]
    public void A_container_that_has_one_instance_may_not_read_the_memory_of_the_card()
    {
        var gpu = SmiAnswers.Read("h100-mig-container").Gpus.ShouldHaveSingleItem();

        (gpu.TotalBytes, gpu.UsedBytes, gpu.UtilizationPercent, gpu.TemperatureCelsius, gpu.PowerWatts, gpu.MigEnabled)
            .ShouldBe((null, null, null, 35, null, true));
    }

    [Fact]
    public void Words_in_place_of_figures_leave_the_others_known()
    {
        var reading = SmiAnswers.Read("l4-words");

        reading.Problem.ShouldBeNull();
        reading.Gpus.ShouldBe([new GpuFacts(0, Ids + "f1", "NVIDIA L4", 23034 * Mib, null, null, null, null) { Driver = "550.127.05" }]);
    }

    [Fact]
    public void A_header_and_units_are_read_over() =>
        SmiAnswers.Read("t4-units").ShouldSatisfyAllConditions(
            reading => reading.Problem.ShouldBeNull(),
            reading => reading.Gpus.ShouldBe([new GpuFacts(0, Ids + "f2", "Tesla T4", 15360 * Mib, 2048 * Mib, 12, 45, 27.41) { Driver = "535.104.05" }]));

    [Theory]
    [InlineData("dgx-spark", 0)]
    [InlineData("jetson-orin", null)]
    [InlineData("n1x", 3)]
    public void Unified_memory_is_the_systems(string card, int? utilization)
    {
        var gpu = SmiAnswers.Read(card, SystemMemory.Parse(SmiAnswers.Text("dgx-spark.meminfo"))).Gpus.ShouldHaveSingleItem();

        gpu.Unified.ShouldBeTrue();
        (gpu.TotalBytes, gpu.TotalBytes - gpu.UsedBytes).ShouldBe((127600748L * 1024, 101330212L * 1024));
        gpu.UtilizationPercent.ShouldBe(utilization);
    }

    [Theory]
    [InlineData("dgx-spark")]
    [InlineData("n1x")]
    public void Unified_memory_is_unknown_while_the_systems_is(string card)
    {
        var gpu = SmiAnswers.Read(card).Gpus.ShouldHaveSingleItem();

        (gpu.Unified, gpu.TotalBytes, gpu.UsedBytes).ShouldBe((true, null, null));
    }

    [Theory]
    [InlineData("NVIDIA GB100")]
    [InlineData("NVIDIA GB200")]
    [InlineData("NVIDIA GH200 480GB")]
    [InlineData("NVIDIA L4")]
    public void A_card_of_unknown_memory_that_is_no_unified_part_stays_unknown(string name)
    {
        var gpu = UnifiedMemory.Apply(new GpuFacts(0, "GPU-1", name, null, null, 0, 30, null), new SystemMemory(1 << 30, 1 << 20));

        (gpu.Unified, gpu.TotalBytes, gpu.UsedBytes).ShouldBe((false, null, null));
    }

    [Theory]
    [InlineData("")]
    [InlineData("MemTotal: 100 kB\n")]
    [InlineData("MemAvailable: 100 kB\n")]
    [InlineData("MemTotal: 100 kB\nMemAvailable: 200 kB\n")]
    [InlineData("MemTotal: 100\nMemAvailable: 50\n")]
    [InlineData("MemTotal: 99999999999999999 kB\nMemAvailable: 50 kB\n")]
    public void System_memory_that_makes_no_sense_is_unknown(string meminfo) => SystemMemory.Parse(meminfo).ShouldBeNull();

    [Fact]
    public void A_damaged_board_description_takes_nothing_away()
    {
        var reading = SmiAnswers.Read("v100-inforom");

        reading.Problem.ShouldBeNull();
        reading.Gpus.ShouldHaveSingleItem().UsedBytes.ShouldBe(15861 * Mib);
    }

    [Fact]
    public void A_lost_card_is_a_problem_and_the_others_are_read()
    {
        var reading = SmiAnswers.Read("h100-one-lost");

        reading.Gpus.Select(gpu => gpu.Index).ShouldBe([0, 2]);
        reading.Problem.ShouldBe("a card does not answer: Unable to determine the device handle for GPU0000:CB:00.0: Unknown Error");
    }

    [Theory]
    [InlineData("no-driver", "nvidia-smi ended with exit code 9: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")]
    [InlineData("mismatch", "nvidia-smi ended with exit code 18: Failed to initialize NVML: Driver/library version mismatch")]
    [InlineData("no-permission", "nvidia-smi ended with exit code 4: Failed to initialize NVML: Insufficient Permissions")]
    [InlineData("only-card-lost", "a card does not answer: Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error")]
    public void A_failure_is_no_absence(string answer, string problem)
    {
        var reading = SmiAnswers.Read(answer);

        reading.Gpus.ShouldBeEmpty();
        reading.Problem.ShouldNotBeNull().ShouldStartWith(problem);
    }

    public static TheoryData<string, SmiAnswer, string> Silence => new()
    {
        { "late", new SmiAnswer(null, Failure: "nvidia-smi did not answer within 15 s"), "nvidia-smi did not answer within 15 s" },
        { "nothing", new SmiAnswer(0), "nvidia-smi answered nothing" },
        { "garbage", new SmiAnswer(0, "�PNG\n\u001a"), "nvidia-smi answered 2 lines that are not understood, the first: �PNG" },
        { "killed", new SmiAnswer(139), "nvidia-smi ended with exit code 139: (it said nothing)" },
        { "library", new SmiAnswer(12, "", "NVIDIA-SMI couldn't find libnvidia-ml.so"), "nvidia-smi ended with exit code 12: NVIDIA-SMI couldn't find libnvidia-ml.so" },
        { "six", new SmiAnswer(6, "Invalid combination of input arguments."), "nvidia-smi ended with exit code 6: Invalid combination of input arguments." },
    };

    [Theory]
    [MemberData(nameof(Silence))]
    public void Silence_is_no_absence(string what, SmiAnswer answer, string problem) =>
        GpuReading.Of(answer, null).ShouldSatisfyAllConditions(
            what, reading => reading.Gpus.ShouldBeEmpty(), reading => reading.Problem.ShouldBe(problem));

    [Fact]
    public void A_node_without_cards_or_without_a_driver_has_none()
    {
        SmiAnswers.Read("no-devices").ShouldSatisfyAllConditions(r => r.Gpus.ShouldBeEmpty(), r => r.Problem.ShouldBeNull());
        GpuReading.Of(new SmiAnswer(null, NotInstalled: true), null).ShouldSatisfyAllConditions(r => r.Gpus.ShouldBeEmpty(), r => r.Problem.ShouldBeNull());
    }

    [Fact]
    public void A_truncated_answer_is_a_problem_and_whole_lines_are_read()
    {
        var answer = SmiAnswers.Answer("h100x8");

        var reading = GpuReading.Of(answer with { Output = answer.Output[..^40] }, null);

        reading.Gpus.Select(gpu => gpu.Index).ShouldBe(Enumerable.Range(0, 7));
        reading.Problem.ShouldNotBeNull().ShouldStartWith("nvidia-smi answered 1 lines that are not understood, the first: 7, GPU-");
    }

    [Fact]
    public void Figures_before_a_failing_end_are_read()
    {
        var reading = GpuReading.Of(SmiAnswers.Answer("h200") with { ExitCode = 255 }, null);

        reading.Gpus.ShouldHaveSingleItem();
        reading.Problem.ShouldNotBeNull().ShouldStartWith("nvidia-smi ended with exit code 255: ");
    }

    [Fact]
    public void Processes_are_read_with_their_memory()
    {
        var (processes, problem) = GpuReading.Processes(SmiAnswers.Answer("h100x8.apps"));

        problem.ShouldBeNull();
        processes.ShouldBe(
        [
            new GpuProcessFacts(Ids + "b0", 4711, "VLLM::Worker_TP0", 73398 * Mib),
            new GpuProcessFacts(Ids + "b1", 4712, "VLLM::Worker_TP1", 73398 * Mib),
            new GpuProcessFacts(Ids + "b1", 990, "/opt/tool, two/bin/python3", 1200 * Mib),
        ]);
    }

    [Fact]
    public void A_unified_part_tells_what_its_processes_hold() =>
        GpuReading.Processes(SmiAnswers.Answer("dgx-spark.apps")).Processes
            .ShouldBe([new GpuProcessFacts(Ids + "e1", 114687, "/usr/local/bin/python", 19135 * Mib)]);

    [Fact]
    public void Processes_without_a_name_or_without_memory_are_processes()
    {
        GpuReading.Processes(SmiAnswers.Answer("wsl.apps")).Processes.ShouldBe([new GpuProcessFacts(Ids + "f4", 203676, null, null)]);
        GpuReading.Processes(SmiAnswers.Answer("restricted.apps")).Processes.ShouldBe(
            [new GpuProcessFacts(Ids + "f5", 524, null, null), new GpuProcessFacts(Ids + "f5", 525, null, 1200 * Mib)]);
    }

    [Fact]
    public void No_process_is_an_answer_and_a_refusal_is_none()
    {
        GpuReading.Processes(new SmiAnswer(0)).Problem.ShouldBeNull();
        GpuReading.Processes(SmiAnswers.Answer("kepler.apps")).Problem.ShouldBe("nvidia-smi answered 1 lines that are not understood, the first: [Not Supported]");
        GpuReading.Processes(SmiAnswers.Answer("mismatch")).Problem.ShouldNotBeNull().ShouldStartWith("nvidia-smi ended with exit code 18");
    }
}
