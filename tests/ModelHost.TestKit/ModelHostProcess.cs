using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text.RegularExpressions;

namespace ModelHost.TestKit;

/// <summary>The built <c>modelhost</c> as a process of its own, so that its plug can be pulled.</summary>
public sealed partial class ModelHostProcess : IAsyncDisposable
{
    private readonly Process _process;
    private readonly ConcurrentQueue<string> _output = new();

    private ModelHostProcess(Process process)
    {
        _process = process;
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    /// <summary>Where the executable lies.</summary>
    public static string Executable => Path.Combine(AppContext.BaseDirectory, "modelhost");

    /// <summary>All lines printed so far.</summary>
    public IReadOnlyList<string> Output => [.. _output];

    /// <summary>Process number.</summary>
    public int Id => _process.Id;

    /// <summary>Where it listens, once <see cref="ListeningAsync"/> has returned.</summary>
    public Uri Url { get; private set; } = new("http://127.0.0.1");

    /// <summary>Starts it with arguments.</summary>
    public static ModelHostProcess Start(params string[] arguments) => StartProgram(Executable, arguments);

    /// <summary>Starts it in a network namespace of its own, where it may listen on every address and nobody reaches it.</summary>
    public static ModelHostProcess StartUnreachable(params string[] arguments) => StartProgram("unshare", ["--map-root-user", "--net", Executable, .. arguments]);

    /// <summary>Starts it on a node that <c>tests/bench/node-lab</c> has made.</summary>
    public static ModelHostProcess StartOn(string node, params string[] arguments) => StartProgram("nsenter", [$"--net=/run/netns/{node}", "--", Executable, .. arguments]);

    private static ModelHostProcess StartProgram(string program, string[] arguments, IReadOnlyDictionary<string, string>? environment = null)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in environment ?? new Dictionary<string, string>())
            start.Environment[name] = value;
        return new(Process.Start(start)!);
    }

    /// <summary>Starts <c>serve</c> on a node's surroundings and a port, and waits until it listens.</summary>
    public static Task<ModelHostProcess> ServeAsync(TestNode node, int port, params string[] more) => ServeAsync(node, port, new Dictionary<string, string>(), more);

    /// <summary>Starts <c>serve</c> with variables of the environment besides.</summary>
    public static async Task<ModelHostProcess> ServeAsync(TestNode node, int port, IReadOnlyDictionary<string, string> environment, params string[] more)
    {
        var process = StartProgram(Executable, ["serve", "--data", node.Data, "--urls", $"http://127.0.0.1:{port}", "Galleries:Patience=00:01:00", .. more, .. node.Configuration], environment);
        await process.ListeningAsync();
        return process;
    }

    /// <summary>Waits until it says where it listens.</summary>
    public async Task ListeningAsync()
    {
        await Deadline.UntilAsync(() => _process.HasExited || _output.Any(line => Listening().IsMatch(line)), seconds: 120, what: "modelhost to listen");
        var line = _output.FirstOrDefault(line => Listening().IsMatch(line))
            ?? throw new InvalidOperationException($"modelhost ended with {_process.ExitCode}: {string.Join('\n', _output)}");
        Url = new Uri(Listening().Match(line).Groups["url"].Value);
    }

    /// <summary>Pulls the plug.</summary>
    public async Task KillAsync()
    {
        _process.Kill(); // SIGKILL, this process only
        await _process.WaitForExitAsync();
    }

    /// <summary>Asks it to end.</summary>
    /// <returns>The exit code.</returns>
    public async Task<int> StopAsync()
    {
        Signal("TERM");
        return await ExitAsync();
    }

    /// <summary>Sends it a signal: <c>STOP</c> lets it stand still, <c>CONT</c> go on.</summary>
    public void Signal(string name)
    {
        using var kill = Process.Start("kill", [$"-{name}", $"{_process.Id}"]);
        kill.WaitForExit();
    }

    /// <summary>Waits for its end.</summary>
    /// <returns>The exit code.</returns>
    public async Task<int> ExitAsync()
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(180));
        await _process.WaitForExitAsync(deadline.Token);
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            await KillAsync();
        _process.Dispose();
    }

    private void Keep(string? line)
    {
        if (line is not null)
            _output.Enqueue(line);
    }

    [GeneratedRegex(@"Listening on (?<url>https?://[^, ]+?)[.,]?( |$)")]
    private static partial Regex Listening();
}
