using System.ComponentModel;
using System.Diagnostics;
using Microsoft.Extensions.Logging;
using ModelHost.Core.Nodes;

namespace ModelHost.Agent.Gpus;

/// <summary>What is known of the node's GPUs.</summary>
/// <param name="Gpus">The GPUs; empty when there are none.</param>
/// <param name="Error">Why the list is not to be trusted; null when it is.</param>
internal sealed record GpuInventory(IReadOnlyList<GpuFacts> Gpus, string? Error);

/// <summary>Asks <c>nvidia-smi</c> every two seconds, never twice at once, and keeps the last answer.</summary>
internal sealed partial class GpuSampler(string command, TimeProvider time, ILogger logger)
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan WithoutGpus = TimeSpan.FromSeconds(30);
    // with persistence mode off a card wakes for seconds; a hung driver never answers
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(15);

    private const int NoDevices = 6;
    private const int NoSuchFile = 2; // ENOENT

    private readonly TaskCompletionSource _read = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The last answer.</summary>
    public GpuInventory Current { get; private set; } = new([], "the GPUs have not been read yet");

    /// <summary>Completes with the first answer.</summary>
    public Task FirstRead => _read.Task;

    /// <summary>Reads until cancelled.</summary>
    /// <param name="changed">Called when the list of GPUs or the error changed, not for new figures.</param>
    /// <param name="cancellationToken">Ends the loop.</param>
    public async Task RunAsync(Action changed, CancellationToken cancellationToken)
    {
        while (!cancellationToken.IsCancellationRequested)
        {
            var before = Current;
            Current = await ReadAsync(cancellationToken);
            _read.TrySetResult();
            if (before.Error != Current.Error || before.Gpus.Count != Current.Gpus.Count)
            {
                if (Current.Error is { } error)
                    LogGpusUnknown(error);
                else
                    LogGpus(Current.Gpus.Count);
                changed();
            }
            await Task.Delay(Current is { Gpus.Count: 0, Error: null } ? WithoutGpus : Period, time, cancellationToken);
        }
    }

    private async Task<GpuInventory> ReadAsync(CancellationToken cancellationToken)
    {
        using var process = new Process { StartInfo = new ProcessStartInfo(command, NvidiaSmi.GpuQuery) { RedirectStandardOutput = true, RedirectStandardError = true } };
        try
        {
            process.Start();
        }
        catch (Win32Exception e) when (e.NativeErrorCode == NoSuchFile)
        {
            return new GpuInventory([], null); // no driver installed: a node without GPUs
        }
        catch (Win32Exception e)
        {
            return new GpuInventory([], $"{command} could not be started: {e.Message}");
        }
        using var deadline = new CancellationTokenSource(Deadline, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        try
        {
            var output = process.StandardOutput.ReadToEndAsync(linked.Token);
            var errors = process.StandardError.ReadToEndAsync(linked.Token);
            await process.WaitForExitAsync(linked.Token);
            var text = await output;
            if (process.ExitCode == 0)
                return new GpuInventory(NvidiaSmi.ParseGpus(text), null);
            if (process.ExitCode == NoDevices)
                return new GpuInventory([], null);
            var said = (text + await errors).Trim();
            return new GpuInventory([], $"nvidia-smi ended with exit code {process.ExitCode}: {said[..Math.Min(said.Length, 300)]}");
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return new GpuInventory([], $"nvidia-smi did not answer within {Deadline.TotalSeconds:0} s");
        }
        finally
        {
            if (!process.HasExited)
                process.Kill(entireProcessTree: true);
        }
    }

    [LoggerMessage(2001, LogLevel.Information, "This node has {GpuCount} GPUs.")]
    private partial void LogGpus(int gpuCount);

    [LoggerMessage(2002, LogLevel.Warning, "The GPUs of this node are unknown: {Reason}")]
    private partial void LogGpusUnknown(string reason);
}
