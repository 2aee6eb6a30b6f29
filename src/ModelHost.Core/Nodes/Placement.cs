namespace ModelHost.Core.Nodes;

/// <summary>A GPU as placement sees it.</summary>
/// <param name="Index">Index on its node.</param>
/// <param name="TotalBytes">Its memory; null when the node could not tell.</param>
/// <param name="UsedBytes">Memory in use now; null when the node could not tell.</param>
/// <param name="DeclaredFraction">Sum of the fractions of the active deployments on it.</param>
/// <param name="Cordoned">Whether it takes no new deployments.</param>
public sealed record GpuCapacity(int Index, long? TotalBytes, long? UsedBytes, double DeclaredFraction, bool Cordoned = false)
{
    /// <summary>Why its figures are old; null when they are current. Nothing is placed by old figures.</summary>
    public string? Stale { get; init; }

    /// <summary>Whether it is split into instances, of which nothing but the sum is known.</summary>
    public bool Split { get; init; }

    /// <summary>Whether its memory is the system's RAM: total is all of it, and free is what programs can still get.</summary>
    public bool Unified { get; init; }
}

/// <summary>What a deployment needs of a node's GPUs.</summary>
/// <param name="MemoryFraction">Share of each GPU's total memory.</param>
/// <param name="GpuIds">The GPUs asked for; null: chosen here.</param>
/// <param name="TensorParallelSize">Number of GPUs; null: as many as asked for, else 1.</param>
/// <param name="SkipMemoryCheck">Leaves out the memory check, and nothing else: no GPU whose figures are old is taken.</param>
public sealed record PlacementRequest(double MemoryFraction, IReadOnlyList<int>? GpuIds, int? TensorParallelSize, bool SkipMemoryCheck);

/// <summary>Which run gets which GPUs.</summary>
public static class Placement
{
    /// <summary>Rounding that sums of fractions may be over by.</summary>
    private const double Tolerance = 1e-6;

    /// <summary>Chooses the GPUs of a deployment on one node.</summary>
    /// <param name="gpus">The node's GPUs; empty: it has none, and the engine runs without.</param>
    /// <param name="request">What is needed.</param>
    /// <returns>The chosen indices in ascending order, or a refusal with a reason per GPU.</returns>
    public static Result<IReadOnlyList<int>> Choose(IReadOnlyList<GpuCapacity> gpus, PlacementRequest request)
    {
        if (request.GpuIds is { Count: > 0 } asked)
            return Asked(gpus, request, asked);
        if (gpus.Count == 0)
            return request.TensorParallelSize is > 1
                ? Failure.Invalid("tensor_parallel_size", "the node has no GPUs to split the model over")
                : Array.Empty<int>();

        var count = request.TensorParallelSize ?? 1;
        if (count > gpus.Count)
            return Failure.Invalid("tensor_parallel_size", $"the node has {Count(gpus.Count)}, not {count}");
        var refused = gpus.Select(gpu => (gpu.Index, Reason: Refusal(gpu, request))).ToDictionary(g => g.Index, g => g.Reason);
        var chosen = gpus.Where(gpu => refused[gpu.Index] is null)
            .OrderByDescending(Room).ThenBy(gpu => gpu.Index)
            .Take(count).Select(gpu => gpu.Index).Order().ToArray();
        if (chosen.Length == count)
            return chosen;
        var reasons = string.Join("; ", refused.Where(r => r.Value is not null).OrderBy(r => r.Key).Select(r => $"GPU {r.Key}: {r.Value}"));
        return new Failure(FailureKind.Conflict, "deployment.no_capacity",
            $"{Count(count)} needed with {request.MemoryFraction:0.##} of the memory free, {chosen.Length} found ({reasons})");
    }

    /// <summary>Why a GPU cannot take the deployment; null when it can.</summary>
    public static string? Refusal(GpuCapacity gpu, PlacementRequest request)
    {
        ArgumentNullException.ThrowIfNull(gpu);
        ArgumentNullException.ThrowIfNull(request);
        if (gpu.Cordoned)
            return "under maintenance";
        if (gpu.Stale is { } stale)
            return $"its figures are not current: {stale}";
        if (request.SkipMemoryCheck)
            return null;
        if (gpu.Split)
            return "it is split into MIG instances, and what is free in each is unknown";
        if (gpu.TotalBytes is not { } total || gpu.UsedBytes is not { } used)
            return "its memory is unknown";
        if (gpu.DeclaredFraction + request.MemoryFraction > 1 + Tolerance)
            return $"{gpu.DeclaredFraction:0.##} of its memory is promised to other deployments";
        var needed = request.MemoryFraction * total;
        return needed > total - used
            ? $"{Mib(needed)} MiB needed, {Mib(total - used)} MiB of {Mib(total)} MiB {(gpu.Unified ? "of system memory available" : "free")}"
            : null;
    }

    private static Result<IReadOnlyList<int>> Asked(IReadOnlyList<GpuCapacity> gpus, PlacementRequest request, IReadOnlyList<int> asked)
    {
        if (asked.Distinct().Count() != asked.Count)
            return Failure.Invalid("gpu_ids", "names a GPU twice");
        var known = gpus.ToDictionary(gpu => gpu.Index);
        if (asked.FirstOrDefault(id => !known.ContainsKey(id), -1) is var unknown && asked.Any(id => !known.ContainsKey(id)))
            return Failure.Invalid("gpu_ids", gpus.Count == 0
                ? $"the node has no GPU {unknown}: it has no GPUs"
                : $"the node has no GPU {unknown}; it has {string.Join(", ", known.Keys.Order())}");
        if (request.TensorParallelSize is { } size && asked.Count % size != 0)
            return Failure.Invalid("tensor_parallel_size", $"{size} does not divide the {asked.Count} GPUs asked for");
        var reasons = asked.Order().Select(id => (id, Reason: Refusal(known[id], request))).Where(r => r.Reason is not null).ToArray();
        return reasons.Length > 0
            ? new Failure(FailureKind.Conflict, "deployment.no_capacity",
                string.Join("; ", reasons.Select(r => $"GPU {r.id}: {r.Reason}")), "gpu_ids")
            : asked.Order().ToArray();
    }

    /// <summary>Bytes neither used nor promised; a GPU of which that is unknown comes last.</summary>
    private static double Room(GpuCapacity gpu) =>
        gpu is { Split: false, TotalBytes: { } total, UsedBytes: { } used } ? Math.Min(total - used, total * (1 - gpu.DeclaredFraction)) : double.MinValue;

    private static long Mib(double bytes) => (long)(bytes / (1024 * 1024));

    private static string Count(int gpus) => gpus == 1 ? "1 GPU" : $"{gpus} GPUs";
}
