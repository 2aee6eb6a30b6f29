using System.Runtime.InteropServices;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

public sealed class SignalTests
{
    [Theory]
    [InlineData(PosixSignal.SIGTERM)]
    [InlineData(PosixSignal.SIGINT)]
    public async Task A_signal_stops_the_process_with_code_0(PosixSignal signal)
    {
        using var process = SimulatorProcess.Start([], "m");
        await process.ReadyAsync();

        process.Signal(signal);

        (await process.ExitCodeAsync()).ShouldBe(0);
        process.Output.ShouldContain("[shutdown] API server: shutdown triggered");
        process.Output.ShouldContain("Finished server process");
    }

    [Fact]
    public async Task A_signal_during_the_load_ends_it()
    {
        using var process = SimulatorProcess.Start(new() { ["VLLM_SIM_HANG"] = "load" }, "m");
        await Deadline.UntilAsync(() => process.Output.Contains("Using model weights format", StringComparison.Ordinal));

        process.Signal(PosixSignal.SIGTERM);
        process.Signal(PosixSignal.SIGTERM);

        (await process.ExitCodeAsync()).ShouldBe(0);
    }
}
