using Microsoft.Extensions.Logging;
using ModelHost.Core.Nodes;

namespace ModelHost.Agent.Gpus;

/// <summary>A process that computes on a GPU, and whose it is.</summary>
/// <param name="Facts">What the driver tells of it.</param>
/// <param name="RunId">The run whose engine it belongs to; null: it is none of ours.</param>
internal sealed record OwnedProcess(GpuProcessFacts Facts, string? RunId);

/// <summary>Everything that is known of the node's GPUs.</summary>
internal sealed record GpuSample(GpuInventory Inventory)
{
    /// <summary>The parts of split cards.</summary>
    public IReadOnlyList<MigInstance> Instances { get; init; } = [];

    /// <summary>What computes on them.</summary>
    public IReadOnlyList<OwnedProcess> Processes { get; init; } = [];

    /// <summary>Why that may not be what runs now; null when it is.</summary>
    public string? ProcessError { get; init; }

    /// <summary>What computes on a GPU or on a part of it.</summary>
    public IEnumerable<OwnedProcess> ProcessesOf(GpuFacts gpu) => gpu.Uuid.Length == 0 ? [] : Processes.Where(process =>
        process.Facts.GpuUuid == gpu.Uuid || Instances.Any(part => part.GpuUuid == gpu.Uuid && part.Uuid == process.Facts.GpuUuid));
}

/// <summary>Asks <c>nvidia-smi</c> every two seconds, never twice at once, and keeps what it told. A failure takes nothing away.</summary>
/// <param name="smi">How it is asked.</param>
/// <param name="systemMemory">Reads the system's RAM; null: it is unknown.</param>
/// <param name="runOf">The run that a process belongs to; null: none.</param>
/// <param name="time">The clock.</param>
/// <param name="logger">Hears when the list of GPUs changes.</param>
internal sealed partial class GpuSampler(
    SmiCommand smi, Func<SystemMemory?> systemMemory, Func<int, string?> runOf, TimeProvider time, ILogger logger)
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan WithoutGpus = TimeSpan.FromSeconds(30);

    private readonly TaskCompletionSource _read = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile GpuSample _current = new(GpuInventory.Unread) { ProcessError = GpuInventory.Unread.Error };

    /// <summary>What is known now.</summary>
    public GpuSample Current => _current;

    /// <summary>Completes with the first answer.</summary>
    public Task FirstRead => _read.Task;

    /// <summary>Reads until cancelled.</summary>
    /// <param name="changed">Called when the list of GPUs changed, or whether it is to be trusted; not for new figures.</param>
    /// <param name="cancellationToken">Ends the loop.</param>
    public async Task RunAsync(Action changed, CancellationToken cancellationToken)
    {
        await Task.Yield();
        while (!cancellationToken.IsCancellationRequested)
        {
            try
            {
                var answer = await smi.RunAsync(NvidiaSmi.GpuQuery, cancellationToken);
                // told at once: the next questions may take as long
                Publish(GpuReading.Of(answer, systemMemory()), changed);
                _current = await WithProcessesAsync(_current, cancellationToken);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                return;
            }
#pragma warning disable CA1031 // the one catch-all of the loop: whatever it is, the figures are old now, and are asked for again
            catch (Exception e)
#pragma warning restore CA1031
            {
                Publish(new GpuReading([], $"reading the GPUs broke off: {e.Message}"), changed);
            }
            await Task.Delay(_current.Inventory is { Gpus.Count: 0, Error: null } ? WithoutGpus : Period, time, cancellationToken);
        }
    }

    private void Publish(GpuReading reading, Action changed)
    {
        var before = _current.Inventory;
        var inventory = before.After(reading, time.GetUtcNow());
        _current = _current with { Inventory = inventory };
        _read.TrySetResult();
        // the words of an error may be others every time
        if ((before.Error is null) == (inventory.Error is null) && before.Gpus.Count == inventory.Gpus.Count && Stale(before) == Stale(inventory))
            return;
        Log(inventory);
        changed();
    }

    private async Task<GpuSample> WithProcessesAsync(GpuSample sample, CancellationToken cancellationToken)
    {
        var gpus = sample.Inventory.Gpus;
        if (gpus.All(gpu => gpu.Stale is not null))
            return sample with { ProcessError = sample.Inventory.Error };
        if (gpus.Any(gpu => gpu.Facts.MigEnabled is true)
            && await smi.RunAsync(NvidiaSmi.ListQuery, cancellationToken) is { ExitCode: 0, Output: var list })
            sample = sample with { Instances = NvidiaSmi.ParseInstances(list) };
        var (processes, problem) = GpuReading.Processes(await smi.RunAsync(NvidiaSmi.ProcessQuery, cancellationToken));
        return problem is not null && processes.Count == 0
            ? sample with { ProcessError = problem } // what was there before may still be
            : sample with { Processes = [.. processes.Select(process => new OwnedProcess(process, runOf(process.Pid)))], ProcessError = problem };
    }

    private void Log(GpuInventory inventory)
    {
        if (inventory.Error is not { } error)
            LogGpus(inventory.Gpus.Count);
        else if (inventory.Gpus.Count == 0)
            LogGpusUnknown(error);
        else
            LogGpusStale(Stale(inventory), inventory.Gpus.Count, error);
    }

    private static int Stale(GpuInventory inventory) => inventory.Gpus.Count(gpu => gpu.Stale is not null);

    [LoggerMessage(2001, LogLevel.Information, "This node has {GpuCount} GPUs.")]
    private partial void LogGpus(int gpuCount);

    [LoggerMessage(2002, LogLevel.Warning, "The GPUs of this node are unknown: {Reason}")]
    private partial void LogGpusUnknown(string reason);

    [LoggerMessage(2003, LogLevel.Warning, "{StaleCount} of this node's {GpuCount} GPUs have old figures, and nothing new is placed on those: {Reason}")]
    private partial void LogGpusStale(int staleCount, int gpuCount, string reason);
}
