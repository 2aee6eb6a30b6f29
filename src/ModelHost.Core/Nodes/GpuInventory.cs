namespace ModelHost.Core.Nodes;

/// <summary>A GPU, and how current its figures are.</summary>
/// <param name="Facts">The figures.</param>
/// <param name="ReadAt">When they were read.</param>
/// <param name="Stale">Why they could not be read again since; null: they are of the last attempt.</param>
public sealed record KnownGpu(GpuFacts Facts, DateTimeOffset ReadAt, string? Stale);

/// <summary>
/// What is known of a node's GPUs. Silence is not absence: what was seen once stays known, marked as old, when <c>nvidia-smi</c> fails, hangs,
/// or leaves it out.
/// </summary>
public sealed record GpuInventory
{
    /// <summary>Before the first answer.</summary>
    public static GpuInventory Unread { get; } = new() { Error = "the GPUs have not been read yet" };

    /// <summary>The GPUs by index; empty when there are none, or when none were ever seen.</summary>
    public IReadOnlyList<KnownGpu> Gpus { get; init; } = [];

    /// <summary>Why the list may not be what the machine has now; null when it is.</summary>
    public string? Error { get; init; }

    /// <summary>What comes of another reading.</summary>
    public GpuInventory After(GpuReading reading, DateTimeOffset now)
    {
        ArgumentNullException.ThrowIfNull(reading);
        var fresh = reading.Gpus.Select(gpu => new KnownGpu(gpu, now, null));
        var missing = Gpus.Where(known => !reading.Gpus.Any(gpu => IsSame(gpu, known.Facts))).ToArray();
        var error = reading.Problem ?? (missing.Length == 0 ? null
            : $"nvidia-smi does not list GPU {string.Join(", ", missing.Select(gpu => gpu.Facts.Index).Order())} any more");
        return this with { Gpus = [.. fresh.Concat(missing.Select(gpu => gpu with { Stale = error })).OrderBy(gpu => gpu.Facts.Index)], Error = error };
    }

    // a number that another card has now belongs to that one
    private static bool IsSame(GpuFacts now, GpuFacts before) => now.Index == before.Index || (now.Uuid.Length > 0 && now.Uuid == before.Uuid);
}
