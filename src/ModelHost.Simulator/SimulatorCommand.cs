using System.Collections;
using System.Runtime.InteropServices;
using System.Text;

namespace ModelHost.Simulator;

/// <summary>The role <c>modelhost simulate</c>: a stand-in for a vLLM server.</summary>
public static class SimulatorCommand
{
    /// <summary>Runs the simulator until it is told to stop.</summary>
    /// <param name="arguments">What follows <c>simulate</c> on the command line, in vLLM's own flags.</param>
    /// <returns>The exit code of the process.</returns>
    public static async Task<int> RunAsync(string[] arguments)
    {
        using var stop = new CancellationTokenSource();
        // Cancel: the signal must not end the process before the engine has stopped. A second one finds it already asked to.
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
        // Console.Out flushes every write, which the access log cannot afford
        await using var output = new StreamWriter(Console.OpenStandardOutput(), new UTF8Encoding(false), 16_384);
        await using var error = new StreamWriter(Console.OpenStandardError(), new UTF8Encoding(false), 1024);
        return await new SimulatedServer(arguments, ReadEnvironment(), output, error, TimeProvider.System).RunAsync(stop.Token);

        void Stop(PosixSignalContext signal)
        {
            signal.Cancel = true;
            stop.Cancel();
        }
    }

    private static Dictionary<string, string> ReadEnvironment() =>
#pragma warning disable RS0030 // the one place where this role reads its environment: the rest gets it as an argument
        Environment.GetEnvironmentVariables().Cast<DictionaryEntry>()
#pragma warning restore RS0030
            .ToDictionary(entry => (string)entry.Key, entry => (string)entry.Value!);
}
