using ModelHost.Core.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Agent;

/// <summary>Reads every two seconds how busy the machine's processors are, and its memory. What the system does not tell stays unknown.</summary>
internal sealed class SystemSampler(TimeProvider time)
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(2);

    /// <summary>The processors; null: unknown.</summary>
    public Cpu? Cpu { get; private set; }

    /// <summary>The memory; null: unknown.</summary>
    public Memory? Memory { get; private set; }

    /// <summary>Reads until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        await Task.Yield();
        CpuTimes? before = null;
        while (!cancellationToken.IsCancellationRequested)
        {
            var now = Read("/proc/stat") is { } stat ? CpuTimes.Parse(stat) : null;
            Cpu = now is null ? null : Describe(now, before);
            Memory = ReadMemory() is { } ram ? new Memory { TotalBytes = ram.TotalBytes, AvailableBytes = ram.AvailableBytes } : null;
            before = now;
            await Task.Delay(Period, time, cancellationToken);
        }
    }

    /// <summary>The system's memory now; null: it does not tell.</summary>
    public static SystemMemory? ReadMemory() => Read("/proc/meminfo") is { } text ? SystemMemory.Parse(text) : null;

    private static Cpu Describe(CpuTimes now, CpuTimes? before)
    {
        var cpu = new Cpu { Count = now.Count };
        if (before is not null && now.PercentSince(before) is { } percent)
            cpu.Percent = percent;
        return cpu;
    }

    private static string? Read(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null; // not Linux, or hidden from this process
        }
    }
}
