namespace ModelHost.Simulator.Loading;

/// <summary>The start failed the way a real one does.</summary>
/// <param name="error">The last line of the Python traceback, such as <c>ValueError: …</c>.</param>
/// <param name="inEngine">True when the engine process failed, so that the wrapper lines follow; false for the API server itself.</param>
/// <param name="hint">A log line that the engine prints before it gives up.</param>
/// <param name="exitCode">What the process ends with.</param>
internal sealed class LoadFailedException(string error, bool inEngine, string? hint = null, int exitCode = 1) : Exception(error)
{
    public bool InEngine { get; } = inEngine;

    public string? Hint { get; } = hint;

    public int ExitCode { get; } = exitCode;
}
