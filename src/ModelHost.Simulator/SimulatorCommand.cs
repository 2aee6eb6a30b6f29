namespace ModelHost.Simulator;

/// <summary>The role <c>modelhost simulate</c>: a stand-in for a vLLM server.</summary>
public static class SimulatorCommand
{
    /// <summary>Runs the simulator until it is told to stop.</summary>
    /// <param name="arguments">What follows <c>simulate</c> on the command line, in vLLM's own flags.</param>
    /// <returns>The exit code of the process.</returns>
    public static Task<int> RunAsync(string[] arguments) => Task.FromResult(arguments.Length);
}
