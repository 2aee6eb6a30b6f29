namespace ModelHost.Core.Nodes;

/// <summary>The figures of a node at one moment, or their means over some time; null where they were unknown.</summary>
public sealed record NodeFigures
{
    // a sample with more cannot be right
    private const int MaxGpus = 1024;
    private const byte Version = 1;
    private const double TenthGb = 1e8;

    /// <summary>Share of the processors that was busy, to a tenth.</summary>
    public double? CpuPercent { get; init; }

    /// <summary>Share of the memory that programs cannot get, to a tenth.</summary>
    public double? MemoryPercent { get; init; }

    /// <summary>The disk of the model cache in bytes, to 0.1 GB; so are the next two.</summary>
    public double? DiskTotalBytes { get; init; }

    /// <summary>Free bytes on it.</summary>
    public double? DiskFreeBytes { get; init; }

    /// <summary>Bytes of the model cache.</summary>
    public double? HfCacheBytes { get; init; }

    /// <summary>The GPUs by index.</summary>
    public IReadOnlyList<GpuFigures> Gpus { get; init; } = [];

    /// <summary>The means of figures, each over those that are known.</summary>
    public static NodeFigures Mean(IReadOnlyCollection<NodeFigures> figures)
    {
        ArgumentNullException.ThrowIfNull(figures);
        return new NodeFigures
        {
            CpuPercent = figures.Average(f => f.CpuPercent),
            MemoryPercent = figures.Average(f => f.MemoryPercent),
            DiskTotalBytes = figures.Average(f => f.DiskTotalBytes),
            DiskFreeBytes = figures.Average(f => f.DiskFreeBytes),
            HfCacheBytes = figures.Average(f => f.HfCacheBytes),
            Gpus = [.. figures.SelectMany(f => f.Gpus).GroupBy(gpu => gpu.Index).OrderBy(gpu => gpu.Key).Select(gpu => new GpuFigures(gpu.Key)
            {
                Utilization = gpu.Average(g => g.Utilization),
                MemoryUsedMb = gpu.Average(g => g.MemoryUsedMb),
                MemoryTotalMb = gpu.Average(g => g.MemoryTotalMb),
                TemperatureCelsius = gpu.Average(g => g.TemperatureCelsius),
                PowerWatts = gpu.Average(g => g.PowerWatts),
            })],
        };
    }

    /// <summary>The figures in the form in which they are stored: one to three bytes each.</summary>
    public byte[] ToBytes()
    {
        using var bytes = new MemoryStream(128);
        using var writer = new BinaryWriter(bytes);
        writer.Write(Version);
        Write(writer, CpuPercent * 10);
        Write(writer, MemoryPercent * 10);
        Write(writer, DiskTotalBytes / TenthGb);
        Write(writer, DiskFreeBytes / TenthGb);
        Write(writer, HfCacheBytes / TenthGb);
        writer.Write7BitEncodedInt(Gpus.Count);
        foreach (var gpu in Gpus)
        {
            writer.Write7BitEncodedInt(gpu.Index);
            Write(writer, gpu.Utilization);
            Write(writer, gpu.MemoryUsedMb);
            Write(writer, gpu.MemoryTotalMb);
            Write(writer, gpu.TemperatureCelsius);
            Write(writer, gpu.PowerWatts);
        }
        writer.Flush();
        return bytes.ToArray();
    }

    /// <summary>Reads what <see cref="ToBytes"/> wrote.</summary>
    /// <returns>Null: another version wrote it, or it is damaged.</returns>
    public static NodeFigures? FromBytes(byte[] bytes)
    {
        ArgumentNullException.ThrowIfNull(bytes);
        using var reader = new BinaryReader(new MemoryStream(bytes));
        try
        {
            if (reader.ReadByte() != Version)
                return null;
            var (cpu, memory, total, free, cache) = (Read(reader), Read(reader), Read(reader), Read(reader), Read(reader));
            var count = reader.Read7BitEncodedInt();
            if (count is < 0 or > MaxGpus)
                return null;
            var gpus = new GpuFigures[count];
            for (var i = 0; i < count; i++)
            {
                gpus[i] = new GpuFigures(reader.Read7BitEncodedInt())
                {
                    Utilization = Read(reader),
                    MemoryUsedMb = Read(reader),
                    MemoryTotalMb = Read(reader),
                    TemperatureCelsius = Read(reader),
                    PowerWatts = Read(reader),
                };
            }
            return new NodeFigures
            {
                CpuPercent = cpu / 10,
                MemoryPercent = memory / 10,
                DiskTotalBytes = total * TenthGb,
                DiskFreeBytes = free * TenthGb,
                HfCacheBytes = cache * TenthGb,
                Gpus = gpus,
            };
        }
        catch (Exception e) when (e is EndOfStreamException or FormatException)
        {
            return null;
        }
    }

    // 0 is the unknown, so that it costs no more than a value
    private static void Write(BinaryWriter writer, double? value) =>
        writer.Write7BitEncodedInt64(value is { } known && double.IsFinite(known) ? (long)Math.Round(Math.Clamp(known, 0, uint.MaxValue)) + 1 : 0);

    private static double? Read(BinaryReader reader) => reader.Read7BitEncodedInt64() is > 0 and var value ? value - 1 : null;
}

/// <summary>The figures of a GPU, in whole units; null where they were unknown or not current.</summary>
/// <param name="Index">Its index on the node.</param>
public sealed record GpuFigures(int Index)
{
    /// <summary>Share of the time in which it computed, in percent.</summary>
    public double? Utilization { get; init; }

    /// <summary>Memory in use in MiB.</summary>
    public double? MemoryUsedMb { get; init; }

    /// <summary>All its memory in MiB.</summary>
    public double? MemoryTotalMb { get; init; }

    /// <summary>Its temperature.</summary>
    public double? TemperatureCelsius { get; init; }

    /// <summary>What it draws.</summary>
    public double? PowerWatts { get; init; }
}
