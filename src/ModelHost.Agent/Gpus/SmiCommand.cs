using System.ComponentModel;
using System.Diagnostics;
using ModelHost.Core.Nodes;

namespace ModelHost.Agent.Gpus;

/// <summary>
/// Runs <c>nvidia-smi</c>: within a time, with bounded output, and never twice at once, not even when one of them hangs in the driver
/// and cannot be killed. For one caller at a time.
/// </summary>
internal sealed class SmiCommand(string command, TimeSpan limit, TimeProvider time)
{
    private const string Settings = "MODELHOST_";
    // a line of eight cards is 200 bytes each; a node full of processes has some 10 KiB
    private const int MaxOutput = 1024 * 1024;
    private const int NoSuchFile = 2; // ENOENT
    private static readonly TimeSpan EndDeadline = TimeSpan.FromSeconds(1);

    private Process? _left;

    /// <summary>Asks one question.</summary>
    public async Task<SmiAnswer> RunAsync(IReadOnlyList<string> arguments, CancellationToken cancellationToken)
    {
        if (_left is { HasExited: false })
            return new SmiAnswer(null, Failure: "nvidia-smi hangs in the driver and cannot be killed; it is not asked again before it ends");
        _left?.Dispose();
        _left = null;
        var start = new ProcessStartInfo(command, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        // logins of registries and of a proxy may be among them
        foreach (var setting in start.Environment.Keys.Where(name => name.StartsWith(Settings, StringComparison.Ordinal)).ToArray())
            start.Environment.Remove(setting);
        start.Environment["LC_ALL"] = "C"; // numbers and words as they are read
        var process = new Process { StartInfo = start };
        try
        {
            process.Start();
        }
        catch (Win32Exception e)
        {
            process.Dispose();
            return e.NativeErrorCode == NoSuchFile ? new SmiAnswer(null, NotInstalled: true)
                : new SmiAnswer(null, Failure: $"{command} could not be started: {e.Message}");
        }
        try
        {
            return await AnswerAsync(process, cancellationToken);
        }
        finally
        {
            await EndAsync(process);
        }
    }

    private async Task<SmiAnswer> AnswerAsync(Process process, CancellationToken cancellationToken)
    {
        using var deadline = new CancellationTokenSource(limit, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        try
        {
            var tooLong = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            var output = ReadAsync(process.StandardOutput, tooLong);
            var errors = ReadAsync(process.StandardError, tooLong);
            var ended = Task.WhenAll(output, errors, process.WaitForExitAsync(linked.Token));
            if (await Task.WhenAny(ended, tooLong.Task).WaitAsync(linked.Token) == tooLong.Task)
                return new SmiAnswer(null, Failure: $"nvidia-smi answered more than {MaxOutput / 1024} KiB");
            await ended;
            return new SmiAnswer(process.ExitCode, await output, await errors);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return new SmiAnswer(null, Failure: $"nvidia-smi did not answer within {limit.TotalSeconds:0} s");
        }
    }

    /// <summary>Kills what still runs; one that the driver holds is kept in mind.</summary>
    private async Task EndAsync(Process process)
    {
        if (!process.HasExited)
        {
            _left = process;
            process.Kill(entireProcessTree: true);
            using var deadline = new CancellationTokenSource(EndDeadline, time);
            await process.WaitForExitAsync(deadline.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        if (process.HasExited)
        {
            process.Dispose();
            _left = null;
        }
    }

    private static async Task<string> ReadAsync(StreamReader reader, TaskCompletionSource tooLong)
    {
        var text = new char[4096];
        var all = new System.Text.StringBuilder();
        // ends with the process: it is killed at its deadline, and this is not waited for then
        while (await reader.ReadAsync(text) is > 0 and var read)
        {
            if (all.Length + read > MaxOutput)
            {
                tooLong.TrySetResult();
                break;
            }
            all.Append(text, 0, read);
        }
        return all.ToString();
    }
}
