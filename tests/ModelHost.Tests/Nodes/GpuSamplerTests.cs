using System.Diagnostics;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Agent.Gpus;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Nodes;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Nodes;

/// <summary>The sampler and a program that it runs: a script in place of nvidia-smi that answers as its folder says.</summary>
public sealed class GpuSamplerTests : IDisposable
{
    private const string H100 = "GPU-7c1f2b9e-3d5a-4e86-9b60-0000000000";

    private readonly string _folder = Directory.CreateTempSubdirectory("modelhost-smi-").FullName;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task Output_and_exit_code_are_the_answer()
    {
        var answer = await Command("echo \"$LC_ALL $1\"; echo careful >&2; exit 14").RunAsync(["-L"], Ct);

        answer.ShouldBe(new SmiAnswer(14, "C -L\n", "careful\n"));
    }

    [Fact]
    public async Task Settings_of_the_environment_which_may_be_passwords_are_not_handed_on()
    {
        Environment.SetEnvironmentVariable("MODELHOST_Test__Secret", "secret");

        (await Command("echo ${MODELHOST_Test__Secret:-none}").RunAsync([], Ct)).ShouldBe(new SmiAnswer(0, "none\n", ""));
    }

    [Fact]
    public async Task A_program_that_is_not_there_is_no_failure_and_one_that_may_not_be_run_is()
    {
        var missing = await new SmiCommand(Path.Combine(_folder, "none"), TimeSpan.FromMinutes(1), TimeProvider.System).RunAsync([], Ct);
        var plain = Path.Combine(_folder, "plain");
        await File.WriteAllTextAsync(plain, "", Ct);
        var forbidden = await new SmiCommand(plain, TimeSpan.FromMinutes(1), TimeProvider.System).RunAsync([], Ct);

        missing.NotInstalled.ShouldBeTrue();
        forbidden.NotInstalled.ShouldBeFalse();
        forbidden.Failure.ShouldNotBeNull().ShouldContain("could not be started");
    }

    [Fact]
    public async Task A_program_that_does_not_answer_is_killed_with_what_it_started()
    {
        var clock = new ManualTimeProvider();
        var asked = Command("sleep 1000 & echo $! >child; echo $$ >self; wait", clock).RunAsync([], Ct);
        foreach (var file in (string[])["child", "self"])
            await HasLineAsync(file);

        clock.Advance(TimeSpan.FromMinutes(1));
        // nor is it waited for at its end longer than this clock says
        await Deadline.UntilAsync(() =>
        {
            clock.Advance(TimeSpan.FromSeconds(1));
            return asked.IsCompleted;
        });

        (await asked).Failure.ShouldBe("nvidia-smi did not answer within 60 s");
        foreach (var file in (string[])["self", "child"])
            await Deadline.UntilAsync(() => Libc.StartTicks(int.Parse(File.ReadAllText(Path.Combine(_folder, file)))) is null, what: $"{file} to be gone");
    }

    [Fact]
    public async Task A_program_that_writes_without_end_is_cut_off()
    {
        var answer = await Command("exec yes").RunAsync([], Ct);

        answer.Failure.ShouldBe("nvidia-smi answered more than 1024 KiB");
    }

    [Fact]
    public async Task Its_end_is_not_waited_for_when_the_caller_leaves()
    {
        using var leaving = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        var asked = Command("echo $$ >self; exec sleep 1000").RunAsync([], leaving.Token);
        await HasLineAsync("self");

        await leaving.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(asked);
        await Deadline.UntilAsync(() => Libc.StartTicks(int.Parse(File.ReadAllText(Path.Combine(_folder, "self")))) is null);
    }

    [Fact]
    public async Task Failures_mark_the_gpus_and_the_next_answer_clears_them()
    {
        Plays("h100x8", apps: "h100x8.apps");
        await using var node = Start();
        await node.UntilAsync(sample => sample is { ProcessError: null, Processes.Count: 3, Inventory: { Error: null, Gpus.Count: 8 } });

        Fails("mismatch.18.txt", 18);
        var failed = await node.UntilAsync(sample => sample.Inventory.Error is not null && sample.ProcessError is not null);
        Plays("h100x8", apps: "h100x8.apps");
        var healed = await node.UntilAsync(sample => sample.Inventory.Error is null && sample.ProcessError is null);

        failed.Inventory.Gpus.Count.ShouldBe(8);
        failed.Inventory.Gpus.ShouldAllBe(gpu => gpu.Stale!.Contains("Driver/library version mismatch"));
        failed.Processes.Count.ShouldBe(3);
        failed.ProcessError.ShouldBe(failed.Inventory.Error);
        healed.Inventory.Gpus.ShouldAllBe(gpu => gpu.Stale == null);
        node.Changes.ShouldBeGreaterThanOrEqualTo(3);
    }

    [Fact]
    public async Task A_reading_that_breaks_off_is_tried_again()
    {
        Plays("dgx-spark", apps: null);
        var isBroken = false;
        await using var node = Start(memory: () => Volatile.Read(ref isBroken) ? throw new IOException("no more files") : SystemMemory.Parse(SmiAnswers.Text("dgx-spark.meminfo")));
        await node.UntilAsync(sample => sample.Inventory is { Error: null, Gpus.Count: 1 });

        Volatile.Write(ref isBroken, true);
        var broken = await node.UntilAsync(sample => sample.Inventory.Error?.Contains("no more files") is true);
        Volatile.Write(ref isBroken, false);
        var healed = await node.UntilAsync(sample => sample.Inventory.Error is null);

        broken.Inventory.Gpus.ShouldHaveSingleItem().Stale.ShouldBe("reading the GPUs broke off: no more files");
        healed.Inventory.Gpus.ShouldHaveSingleItem().Stale.ShouldBeNull();
    }

    [Fact]
    public async Task Processes_that_cannot_be_read_take_no_gpu_figures_away()
    {
        Plays("h100x8", apps: "kepler.apps");
        await using var node = Start();

        var sample = await node.UntilAsync(sample => sample.ProcessError?.Contains("[Not Supported]") is true);

        (sample.Inventory.Error, sample.Inventory.Gpus.Count).ShouldBe((null, 8));
        Report(sample).ShouldSatisfyAllConditions(
            report => report.GpuError.ShouldBe(""), report => report.GpuProcessError.ShouldBe(sample.ProcessError),
            report => report.Gpus.ShouldAllBe(gpu => gpu.HasMemoryUsedBytes && gpu.Stale == ""));
    }

    [Fact]
    public async Task Processes_are_reported_with_their_gpu_and_their_run()
    {
        Plays("h100x8", apps: "h100x8.apps");
        await using var node = Start(pid => pid == 4712 ? "run-1" : null);

        var report = Report(await node.UntilAsync(sample => sample.Processes.Count == 3));

        report.GpuDriver.ShouldBe("550.127.05");
        report.Gpus[0].Processes.Select(Told).ShouldBe([(4711, "VLLM::Worker_TP0", 73398L << 20, "")]);
        report.Gpus[1].Processes.Select(Told).ShouldBe([(4712, "VLLM::Worker_TP1", 73398L << 20, "run-1"), (990, "/opt/tool, two/bin/python3", 1200L << 20, "")]);
        report.Gpus.Skip(2).ShouldAllBe(gpu => gpu.Processes.Count == 0);
    }

    [Fact]
    public async Task The_parts_of_a_split_card_are_reported_with_it()
    {
        Plays("a100-mig", apps: null, list: "a100-mig.list.txt");
        File.WriteAllText(Path.Combine(_folder, "apps"), "MIG-9c4d5e6f-54b8-53b8-9016-95ef09bd78a6, 77, python, 1000\n");
        await using var node = Start();

        var report = Report(await node.UntilAsync(sample => sample.Processes.Count == 1));

        report.Gpus[0].MigEnabled.ShouldBeTrue();
        report.Gpus[0].MigInstances.Select(part => (part.Index, part.Profile, part.Uuid)).ShouldBe(
            [(0, "3g.20gb", "MIG-e07a497d-1bb6-5a42-b670-1c33bf55ab6e"), (1, "2g.10gb", "MIG-9c4d5e6f-54b8-53b8-9016-95ef09bd78a6")]);
        report.Gpus[0].Processes.Select(process => process.Pid).ShouldBe([77]);
        (report.Gpus[1].HasMigEnabled, report.Gpus[1].MigEnabled, report.Gpus[1].MigInstances.Count, report.Gpus[1].Processes.Count).ShouldBe((true, false, 0, 0));
    }

    [Fact]
    public async Task Unified_memory_is_reported_as_the_systems()
    {
        Plays("dgx-spark", apps: "dgx-spark.apps");
        await using var node = Start();

        var gpu = Report(await node.UntilAsync(sample => sample.Processes.Count == 1)).Gpus.ShouldHaveSingleItem();

        (gpu.Source, gpu.MemoryTotalBytes, gpu.MemoryUsedBytes).ShouldBe(("unified", 127600748L * 1024, (127600748L - 101330212L) * 1024));
        (gpu.UtilizationPercent, gpu.HasMigEnabled).ShouldBe((0, false));
        gpu.Processes.ShouldHaveSingleItem().MemoryUsedBytes.ShouldBe(19135L << 20);
    }

    [Fact]
    public async Task Processes_without_names_are_reported()
    {
        Plays("h100x8", apps: null);
        File.WriteAllText(Path.Combine(_folder, "apps"), $"{H100}b3, 203676, [Not Found], [N/A]\n");
        await using var node = Start();

        var process = Report(await node.UntilAsync(sample => sample.Processes.Count == 1)).Gpus[3].Processes.ShouldHaveSingleItem();

        (process.Pid, process.Name, process.HasMemoryUsedBytes, process.RunId).ShouldBe((203676, "", false, ""));
    }

    [Theory]
    [InlineData("12:memory:/docker/{0}\n1:name=systemd:/docker/{0}\n")]
    [InlineData("0::/system.slice/docker-{0}.scope\n")]
    [InlineData("0::/machine.slice/libpod-{0}.scope/container\n")]
    [InlineData("0::/kubepods/burstable/pod1/{0}\n")]
    public void A_process_in_a_container_shows_it_in_its_control_group(string cgroup)
    {
        var id = string.Concat(Enumerable.Repeat("0123456789abcdef", 4));

        ProcessOrigin.Parse("", cgroup.Replace("{0}", id, StringComparison.Ordinal)).Containers.ShouldBe([id]);
    }

    [Theory]
    [InlineData("", null)]
    [InlineData("77 (a) b (c)) S 1 77 42 0 -1", 42)]
    [InlineData("77 (kthreadd) S 0 0 0 0 -1", null)]
    [InlineData("77 (x) S", null)]
    public void The_session_stands_behind_the_name(string stat, int? session) =>
        ProcessOrigin.Parse(stat, "0::/user.slice\n").ShouldSatisfyAllConditions(
            origin => origin.Session.ShouldBe(session), origin => origin.Containers.ShouldBeEmpty());

    [Fact]
    public void A_process_that_is_gone_comes_from_nowhere() => ProcessOrigin.Of(int.MaxValue).Session.ShouldBeNull();

    [Fact]
    public async Task A_process_of_another_session_belongs_to_its_leader()
    {
        // the leader starts a child, which is what would hold the GPU
        using var leader = Process.Start(new ProcessStartInfo("setsid", ["sh", "-c", "sleep 1000 & echo $!; wait"]) { RedirectStandardOutput = true })!;
        var child = int.Parse((await leader.StandardOutput.ReadLineAsync(Ct))!);

        var (session, own) = (ProcessOrigin.Of(child).Session, ProcessOrigin.Of(Environment.ProcessId).Session);
        Libc.SignalGroup(leader.Id, Libc.SigKill);

        session.ShouldBe(leader.Id);
        own.ShouldNotBe(leader.Id);
    }

    private static (int, string, long, string) Told(GpuProcess process) => (process.Pid, process.Name, process.MemoryUsedBytes, process.RunId);

    private static NodeReport Report(GpuSample sample)
    {
        var report = new NodeReport();
        GpuReport.Write(sample, report);
        return report;
    }

    /// <summary>Lets the script answer the queries with recorded answers.</summary>
    private void Plays(string card, string? apps, string? list = null)
    {
        Put("gpus", SmiAnswers.Answer(card).Output);
        Put("apps", apps is null ? "" : SmiAnswers.Answer(apps).Output);
        Put("list", list is null ? "" : SmiAnswers.Text(list));
        Put("code", "0");
    }

    private void Fails(string file, int code)
    {
        Put("gpus", SmiAnswers.Text(file));
        Put("code", $"{code}");
    }

    /// <summary>Replaces a file whole: the script may be reading it.</summary>
    private void Put(string file, string text)
    {
        var path = Path.Combine(_folder, file);
        File.WriteAllText(path + ".new", text);
        File.Move(path + ".new", path, overwrite: true);
    }

    /// <summary>Waits until the script has written a line.</summary>
    private Task HasLineAsync(string file) =>
        Deadline.UntilAsync(() => File.Exists(Path.Combine(_folder, file)) && File.ReadAllText(Path.Combine(_folder, file)).EndsWith('\n'), what: $"{file} to be written");

    private SmiCommand Command(string script, TimeProvider? time = null)
    {
        var path = Path.Combine(_folder, "nvidia-smi");
        File.WriteAllText(path + ".sh", $"cd '{_folder}'\n{script}\n");
        File.CreateSymbolicLink(path, Path.Combine(SmiAnswers.Folder(), "play"));
        return new SmiCommand(path, TimeSpan.FromMinutes(1), time ?? TimeProvider.System);
    }

    private RunningSampler Start(Func<int, string?>? runOf = null, Func<SystemMemory?>? memory = null) => new(new GpuSampler(
        Command("case $1 in --query-gpu*) cat gpus; exit $(cat code) ;; -L) cat list ;; *) cat apps ;; esac"),
        memory ?? (() => SystemMemory.Parse(SmiAnswers.Text("dgx-spark.meminfo"))), runOf ?? (_ => null), TimeProvider.System, NullLogger.Instance));

    private sealed class RunningSampler : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly GpuSampler _sampler;
        private readonly Task _task;
        private int _changes;

        public RunningSampler(GpuSampler sampler)
        {
            _sampler = sampler;
            _task = sampler.RunAsync(() => Interlocked.Increment(ref _changes), _stop.Token);
        }

        public int Changes => _changes;

        public Task<GpuSample> UntilAsync(Func<GpuSample, bool> holds) =>
            Deadline.UntilAsync(() => Task.FromResult(_sampler.Current), holds, Deadline.Allowed(30).TotalSeconds);

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _task.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _stop.Dispose();
        }
    }
}
