using ModelHost.Protocol;
using Told = ModelHost.Protocol.Backend.StatusResponse.Types.State;

namespace ModelHost.Features.Monitor;

/// <summary>What gRPC backends said last, in the words of the monitor.</summary>
internal static class BackendReadings
{
    // labels come from a closed set, whatever a backend calls its parts
    private static readonly string[] KnownParts = ["weights", "kv_cache"];

    /// <summary>The state of one that serves.</summary>
    /// <param name="reading">What it said; null: it has not been asked yet.</param>
    /// <param name="isBusy">Whether calls of ours are under way there.</param>
    public static Told State(BackendReading? reading, bool isBusy) => reading switch
    {
        null => isBusy ? Told.Busy : Told.Ready,
        // many answer nothing else while they work
        { Silence.Length: > 0 } => isBusy ? Told.Busy : Told.Error,
        { HasState: true, State: (int)Told.Error } => Told.Error,
        { HasState: true, State: (int)Told.Busy } => Told.Busy,
        // its model is loaded: many of LocalAI's own say "uninitialized" as long as they live
        _ => isBusy ? Told.Busy : Told.Ready,
    };

    /// <summary>Its memory as it told; null: it did not.</summary>
    public static BackendMemory? Memory(BackendReading? reading) => reading is not { HasMemoryBytes: true } || (reading.MemoryBytes == 0 && reading.MemoryBreakdown.Count == 0) ? null
        : new BackendMemory(Bytes(reading.MemoryBytes), reading.MemoryBreakdown.OrderByDescending(part => part.Key, StringComparer.Ordinal).ToDictionary(part => part.Key, part => Bytes(part.Value)));

    /// <summary>The parts of its memory for metrics: those that are known by name, and the rest together.</summary>
    public static IEnumerable<(string Part, long Bytes)> Parts(BackendReading? reading) => reading is null ? []
        : reading.MemoryBreakdown.GroupBy(part => KnownParts.Contains(part.Key) ? part.Key : "other", part => Bytes(part.Value)).Select(part => (part.Key, Sum(part)));

    private static long Bytes(ulong bytes) => (long)Math.Min(bytes, long.MaxValue);

    private static long Sum(IEnumerable<long> parts) => (long)Math.Min(parts.Sum(part => (decimal)part), long.MaxValue);
}
