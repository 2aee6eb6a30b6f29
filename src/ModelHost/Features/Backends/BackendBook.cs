using Microsoft.EntityFrameworkCore;
using ModelHost.Data;
using ModelHost.Features.Events;
using ModelHost.Features.Galleries;

namespace ModelHost.Features.Backends;

/// <summary>What was installed on nodes, as it was asked for.</summary>
internal sealed class BackendBook(Database database, ChangeFeed feed)
{
    /// <summary>All of it, by name.</summary>
    public async Task<ILookup<int, InstalledBackend>> ListAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return (await db.InstalledBackends.AsNoTracking().OrderBy(row => row.Name).ToListAsync(cancellationToken)).ToLookup(row => row.NodeId);
    }

    /// <summary>Stores what a node has now, in the place of what has the same names there. A node that is gone has nothing.</summary>
    public async Task StoreAsync(int nodeId, IReadOnlyList<InstalledBackend> installed, CancellationToken cancellationToken)
    {
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            if (!await db.Nodes.AnyAsync(node => node.Id == nodeId, cancellationToken))
                return;
            var names = installed.Select(row => row.Name).ToArray();
            await db.InstalledBackends.Where(row => row.NodeId == nodeId && names.Contains(row.Name)).ExecuteDeleteAsync(cancellationToken);
            foreach (var row in installed)
            {
                row.NodeId = nodeId;
                db.InstalledBackends.Add(row);
            }
            await db.SaveChangesAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        feed.Publish(Change.Jobs);
    }

    /// <summary>Forgets backends of a node.</summary>
    public async Task RemoveAsync(int nodeId, IReadOnlyCollection<string> names, CancellationToken cancellationToken)
    {
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            await db.InstalledBackends.Where(row => row.NodeId == nodeId && names.Contains(row.Name)).ExecuteDeleteAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        feed.Publish(Change.Jobs);
    }
}
