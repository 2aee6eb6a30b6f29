using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;

namespace ModelHost.Tests.Simulator;

/// <summary>The simulator as a process of its own, for what only a process has: signals and a violent death.</summary>
internal sealed partial class SimulatorProcess : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private SimulatorProcess(ProcessStartInfo start)
    {
        _process = new Process { StartInfo = start };
        _process.OutputDataReceived += (_, line) =>
        {
            lock (_output)
                _output.Append(line.Data).Append('\n');
            if (line.Data?.EndsWith("Application startup complete.", StringComparison.Ordinal) == true)
                _ready.TrySetResult();
        };
        _process.Start();
        _process.BeginOutputReadLine();
        // read and dropped: a full pipe would stop the process
        _process.BeginErrorReadLine();
    }

    /// <summary>Where it listens, once it is ready.</summary>
    public Uri Url => new(Listening().Match(Output).Groups["url"].Value);

    public string Output
    {
        get
        {
            lock (_output)
                return _output.ToString();
        }
    }

    public static SimulatorProcess Start(Dictionary<string, string> environment, params string[] flags)
    {
        // a shell ignores SIGINT for what it starts in the background, the tests with it, and whoever is started inherits that
        var start = new ProcessStartInfo("env",
            ["--default-signal=INT", Path.Combine(AppContext.BaseDirectory, "modelhost"), "simulate", .. flags, "--host", "127.0.0.1", "--port", "0"])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["VLLM_SIM_LOAD_SECONDS"] = "0";
        foreach (var (name, value) in environment)
            start.Environment[name] = value;
        return new(start);
    }

    public Task ReadyAsync() => _ready.Task.WaitAsync(Patience);

    /// <summary>Sends a signal, unless the process has ended of an earlier one.</summary>
    public void Signal(PosixSignal signal) => (kill(_process.Id, signal == PosixSignal.SIGTERM ? 15 : 2) == 0 || _process.HasExited).ShouldBeTrue();

    public void Kill()
    {
        _process.Kill();
        _process.WaitForExit();
    }

    public async Task<int> ExitCodeAsync()
    {
        using var limit = new CancellationTokenSource(Patience);
        await _process.WaitForExitAsync(limit.Token);
        return _process.ExitCode;
    }

    public void Dispose()
    {
        if (!_process.HasExited)
            Kill();
        _process.Dispose();
    }

    [GeneratedRegex(@"Starting vLLM server on (?<url>http://\S+)")]
    private static partial Regex Listening();

    // .NET has no way to send a signal other than SIGKILL
    [LibraryImport("libc")]
    private static partial int kill(int processId, int signal);
}
