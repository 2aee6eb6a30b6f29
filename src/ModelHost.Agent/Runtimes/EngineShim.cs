namespace ModelHost.Agent.Runtimes;

/// <summary>
/// The hidden role <c>modelhost engine-shim SIDECAR ATTEMPT</c>: notes its own process in the sidecar and then becomes the engine named
/// there, in a session of its own and with its output in a file. So there is no moment at which an engine runs and nobody knows.
/// </summary>
public static class EngineShim
{
    /// <summary>The word on the command line.</summary>
    public const string Role = "engine-shim";

    /// <summary>Becomes the engine; returns an exit code only if that failed.</summary>
    public static int Run(string sidecarPath, string attempt)
    {
        var sidecar = ProcessSidecar.Read(sidecarPath);
        if (sidecar is null || sidecar.Attempt != attempt || Libc.StartTicks(Environment.ProcessId) is not { } ticks)
            return 125; // stopped, or overtaken by another attempt, before it began
        (sidecar with { Pid = Environment.ProcessId, StartTicks = ticks }).Write(sidecarPath);
        var error = Libc.BecomeDetached(sidecar.OutputFile, sidecar.Command);
        Console.Error.WriteLine($"{sidecar.Command[0]} could not be started: error {error}");
        return 126;
    }
}
