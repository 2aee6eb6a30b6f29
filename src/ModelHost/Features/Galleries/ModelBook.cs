using Microsoft.EntityFrameworkCore;
using ModelHost.Data;

namespace ModelHost.Features.Galleries;

/// <summary>The models that are installed.</summary>
internal sealed class ModelBook(Database database)
{
    /// <summary>What tells names apart: not their letter case.</summary>
    public static string Key(string name) => name.ToLowerInvariant();

    /// <summary>All of them by name.</summary>
    public async Task<IReadOnlyList<InstalledModel>> ListAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        return await db.InstalledModels.AsNoTracking().OrderBy(model => model.NameKey).ToListAsync(cancellationToken);
    }

    /// <summary>One of them; null: there is none of the name.</summary>
    public async Task<InstalledModel?> FindAsync(string name, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var key = Key(name);
        return await db.InstalledModels.AsNoTracking().FirstOrDefaultAsync(model => model.NameKey == key, cancellationToken);
    }

    /// <summary>Stores one, in the place of what had its name.</summary>
    public async Task StoreAsync(InstalledModel model, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        await db.InstalledModels.Where(other => other.NameKey == model.NameKey).ExecuteDeleteAsync(cancellationToken);
        db.InstalledModels.Add(model);
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    /// <summary>Forgets one.</summary>
    public async Task RemoveAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        await db.InstalledModels.Where(model => model.Id == id).ExecuteDeleteAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }
}
