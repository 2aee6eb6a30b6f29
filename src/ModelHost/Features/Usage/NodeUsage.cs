using System.Runtime.CompilerServices;
using Microsoft.EntityFrameworkCore;
using ModelHost.Data;
using ModelHost.Features.ApiKeys;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Usage;

/// <summary>
/// Books what direct requests used on the nodes: asks a node for the batch that follows the one booked last, and stores what it says together with the mark
/// that it has been booked. Each batch is booked once, whichever answer is lost and whoever is restarted.
/// </summary>
internal sealed partial class NodeUsage(Database database, UsageBook book, ApiKeyRing ring, TimeProvider time, ILogger<NodeUsage> logger)
{
    /// <summary>Batches that are asked for in a row.</summary>
    private const int MostBatches = 16;

    /// <summary>Longest name of a journal.</summary>
    private const int LongestName = 64;

    // links whose nodes answer what cannot be: they are not asked again
    private readonly ConditionalWeakTable<NodeHandle, object> _senseless = [];

    /// <summary>Books what a node has.</summary>
    public async Task CollectAsync(NodeHandle node, CancellationToken cancellationToken)
    {
        for (var batches = 0; batches < MostBatches && !_senseless.TryGetValue(node, out _); batches++)
        {
            var mark = await MarkAsync(node, cancellationToken);
            var reply = await node.Link.UsageAsync(new UsageRequest { Journal = mark?.Journal ?? "", Booked = mark?.Sequence ?? 0 }, cancellationToken);
            if (reply.Batch is not { } batch)
                return;
            if (Fault(reply, batch, mark) is { } fault)
            {
                LogSenseless(node.Id, fault);
                _senseless.AddOrUpdate(node, node);
                return;
            }
            if (!await BookAsync(node, mark, reply.Journal, batch, cancellationToken) || !reply.More)
                return;
        }
    }

    private static string? Fault(UsageReply reply, UsageBatch batch, UsageMark? mark) =>
        reply.Journal.Length is 0 or > LongestName ? "its journal has no name, or one that is too long"
        : batch.Sequence <= 0 ? $"its batch has the number {batch.Sequence}"
        : reply.Journal == mark?.Journal && batch.Sequence <= mark.Sequence ? $"its batch {batch.Sequence} was booked before"
        : null;

    private async Task<UsageMark?> MarkAsync(NodeHandle node, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return await db.UsageMarks.AsNoTracking().FirstOrDefaultAsync(mark => mark.NodeUid == node.Uid, cancellationToken);
    }

    /// <returns>Whether it is booked; else it is to be asked for again.</returns>
    private async Task<bool> BookAsync(NodeHandle node, UsageMark? before, string journal, UsageBatch batch, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        // who else booked it meanwhile has moved the mark
        var mark = await db.UsageMarks.FirstOrDefaultAsync(mark => mark.NodeUid == node.Uid, cancellationToken);
        if ((mark?.Journal, mark?.Sequence) != (before?.Journal, before?.Sequence))
            return false;
        var judge = new UsageJudge(ring, time.GetUtcNow(), node, db);
        if (!await judge.TakeAsync(batch, cancellationToken))
            return false;
        if (mark is null)
            db.UsageMarks.Add(mark = new UsageMark { NodeUid = node.Uid, Journal = "" });
        (mark.Journal, mark.Sequence) = (journal, batch.Sequence);
        await UsageRows.AddAsync(db, judge.Booked, cancellationToken);
        // not given up: whether it has been stored would not be known
        await transaction.CommitAsync(CancellationToken.None);
        foreach (var entry in judge.Booked)
            book.AddDirect(entry.Slot.DeploymentUid, entry.Count);
        judge.NoteUse();
        if (judge.Refused > 0)
            LogRefused(node.Id, judge.Refused, batch.Sequence, judge.Reason);
        return true;
    }

    [LoggerMessage(1803, LogLevel.Warning, "Node {NodeId} told usage that is not booked: {Count} entries of batch {Sequence}, the first because {Reason}.")]
    private partial void LogRefused(int nodeId, int count, long sequence, string reason);

    [LoggerMessage(1804, LogLevel.Error, "Node {NodeId} tells usage in a way that makes no sense, and is not asked for it until it is linked anew: {Reason}.")]
    private partial void LogSenseless(int nodeId, string reason);
}
