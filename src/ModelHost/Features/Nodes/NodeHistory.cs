using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Nodes;
using ModelHost.Data;

namespace ModelHost.Features.Nodes;

/// <summary>
/// The figures that nodes had. Samples of the last two days stand as they were taken; older ones become means of half hours, and go when
/// <c>node_metrics_retention_hours</c> are over. <see cref="NodeHistoryWriter"/> alone writes it.
/// </summary>
internal sealed class NodeHistory(Database database, TimeProvider time)
{
    /// <summary>The longest history, in minutes: a year.</summary>
    public const int MostMinutes = 525_600;

    private const int MostPoints = 20_000, RowsAtOnce = 5000;
    private const double Gb = 1e9;

    /// <summary>How long samples stand as they were taken.</summary>
    public static readonly TimeSpan Whole = TimeSpan.FromHours(48);

    /// <summary>What older ones are the means of.</summary>
    public static readonly TimeSpan Span = TimeSpan.FromMinutes(30);

    /// <summary>The figures of the last minutes, oldest first, every step-th of them.</summary>
    public async Task<Result<NodeHistoryRead>> ReadAsync(int nodeId, int minutes, int step, CancellationToken cancellationToken)
    {
        var from = StoredFigures.KeyOf(nodeId, time.GetUtcNow() - TimeSpan.FromMinutes(minutes));
        var to = StoredFigures.FirstOf(nodeId + 1);
        await using var db = await database.OpenAsync(cancellationToken);
        if (!await db.Nodes.AnyAsync(n => n.Id == nodeId, cancellationToken))
            return NodeFailures.NotFound(nodeId);
        var summaries = db.NodeSummaries.AsNoTracking().Where(row => row.Key >= from && row.Key < to).OrderBy(row => row.Key);
        var samples = db.NodeSamples.AsNoTracking().Where(row => row.Key >= from && row.Key < to).OrderBy(row => row.Key);
        var points = new List<HistoryPoint>();
        var seen = 0;
        await foreach (var row in summaries.AsAsyncEnumerable<StoredFigures>().Concat(samples.AsAsyncEnumerable<StoredFigures>()).WithCancellation(cancellationToken))
        {
            if (seen++ % step != 0 || NodeFigures.FromBytes(row.Figures) is not { } figures)
                continue;
            if (points.Count == MostPoints)
                return Failure.Invalid("step", $"{step} leaves more than {MostPoints} points of these minutes; take a larger one");
            points.Add(Point(row, figures));
        }
        return new NodeHistoryRead(nodeId, points);
    }

    /// <summary>Stores one sample of each of several nodes, in one transaction. A node that is gone, or has one of that second already, is passed over.</summary>
    public async Task StoreAsync(DateTimeOffset at, IReadOnlyList<(int NodeId, NodeFigures Figures)> samples, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        var nodes = await db.Nodes.Select(n => n.Id).ToHashSetAsync(cancellationToken);
        var rows = samples.Where(sample => nodes.Contains(sample.NodeId))
            .Select(sample => new NodeSample { Key = StoredFigures.KeyOf(sample.NodeId, at), Figures = sample.Figures.ToBytes() }).ToArray();
        var keys = rows.Select(row => row.Key).ToArray();
        // the clock was set back
        var there = await db.NodeSamples.Where(row => keys.Contains(row.Key)).Select(row => row.Key).ToHashSetAsync(cancellationToken);
        db.NodeSamples.AddRange(rows.Where(row => !there.Contains(row.Key)));
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    /// <summary>Drops what is kept no longer, and makes means of what is older than two days.</summary>
    public async Task TidyAsync(TimeSpan retention, CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        int[] nodes;
        await using (var db = await database.OpenAsync(cancellationToken))
            nodes = await db.Nodes.Select(n => n.Id).ToArrayAsync(cancellationToken);
        foreach (var node in nodes)
        {
            await using var db = await database.OpenAsync(cancellationToken);
            await DeleteAsync(db, StoredFigures.FirstOf(node), StoredFigures.KeyOf(node, now - retention), cancellationToken);
            while (await SummariseAsync(node, now - Whole, cancellationToken))
            {
                // a few thousand rows at a time: other writes come in between
            }
        }
    }

    /// <summary>Deletes what is stored of a node, in the transaction of the caller.</summary>
    /// <param name="db">The transaction.</param>
    /// <param name="nodeId">Which; null: all.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The number of rows deleted.</returns>
    public static Task<int> ForgetAsync(ModelHostDbContext db, int? nodeId, CancellationToken cancellationToken) => nodeId is { } id
        ? DeleteAsync(db, StoredFigures.FirstOf(id), StoredFigures.FirstOf(id + 1), cancellationToken)
        : DeleteAsync(db, 0, long.MaxValue, cancellationToken);

    private static async Task<int> DeleteAsync(ModelHostDbContext db, long from, long to, CancellationToken cancellationToken) =>
        await db.NodeSamples.Where(row => row.Key >= from && row.Key < to).ExecuteDeleteAsync(cancellationToken)
        + await db.NodeSummaries.Where(row => row.Key >= from && row.Key < to).ExecuteDeleteAsync(cancellationToken);

    /// <returns>Whether there is more to do.</returns>
    private async Task<bool> SummariseAsync(int node, DateTimeOffset until, CancellationToken cancellationToken)
    {
        var (first, end) = (StoredFigures.FirstOf(node), StoredFigures.KeyOf(node, BeginOf(until)));
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        var rows = await db.NodeSamples.AsNoTracking().Where(row => row.Key >= first && row.Key < end).OrderBy(row => row.Key)
            .Take(RowsAtOnce).ToListAsync(cancellationToken);
        if (rows.Count == 0)
            return false;
        var spans = rows.GroupBy(row => StoredFigures.KeyOf(node, BeginOf(row.At))).ToList();
        // the last one may not be whole
        if (rows.Count == RowsAtOnce && spans.Count > 1)
            spans.RemoveAt(spans.Count - 1);
        var keys = spans.Select(span => span.Key).ToArray();
        var there = await db.NodeSummaries.Where(row => keys.Contains(row.Key)).Select(row => row.Key).ToHashSetAsync(cancellationToken);
        foreach (var span in spans.Where(span => !there.Contains(span.Key)))
        {
            var figures = span.Select(row => NodeFigures.FromBytes(row.Figures)).OfType<NodeFigures>().ToArray();
            if (figures.Length > 0)
                db.NodeSummaries.Add(new NodeSummary { Key = span.Key, Figures = NodeFigures.Mean(figures).ToBytes() });
        }
        await db.SaveChangesAsync(cancellationToken);
        var last = spans[^1].Max(row => row.Key);
        await db.NodeSamples.Where(row => row.Key >= first && row.Key <= last).ExecuteDeleteAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return rows.Count == RowsAtOnce;
    }

    private static DateTimeOffset BeginOf(DateTimeOffset at) => new(at.UtcTicks - (at.UtcTicks % Span.Ticks), TimeSpan.Zero);

    private static HistoryPoint Point(StoredFigures row, NodeFigures figures) => new()
    {
        RecordedAt = row.At,
        SpanSeconds = row is NodeSummary ? (int)Span.TotalSeconds : 0,
        CpuPercent = figures.CpuPercent,
        MemoryPercent = figures.MemoryPercent,
        DiskUsage = figures is { DiskTotalBytes: { } total, DiskFreeBytes: { } free }
            ? new DiskUsage(Math.Round(total / Gb, 1), Math.Round(free / Gb, 1), figures.HfCacheBytes is { } cache ? Math.Round(cache / Gb, 1) : null) : null,
        Gpus = [.. figures.Gpus.Select(gpu => new GpuPoint(
            gpu.Index, gpu.Utilization, gpu.MemoryUsedMb, gpu.MemoryTotalMb, gpu.TemperatureCelsius, gpu.PowerWatts))],
    };
}
