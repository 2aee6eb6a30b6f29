using Microsoft.EntityFrameworkCore;
using ModelHost.Data;

namespace ModelHost.Features.ApiKeys;

/// <summary>What is left of an API key that was revoked or has ended: what nodes still have to tell of its use is booked on it.</summary>
internal sealed class FormerKey
{
    // longer than the journal of a node that is cut off is booked by its days
    private static readonly TimeSpan Kept = TimeSpan.FromDays(60);

    public int Id { get; set; }

    public required string Label { get; set; }

    /// <summary>As <see cref="ApiKey.Hash"/>.</summary>
    public required string Hash { get; set; }

    public DateTimeOffset EndedAt { get; set; }

    /// <summary>Notes keys that are about to be deleted, and what they have made; forgets what ended long ago.</summary>
    /// <param name="db">In a transaction that deletes them.</param>
    /// <param name="ids">They.</param>
    /// <param name="keys">All keys.</param>
    /// <param name="now">The moment.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async Task NoteAsync(ModelHostDbContext db, IEnumerable<int> ids, IEnumerable<ApiKey> keys, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var going = ids.ToHashSet();
        // a maker comes before what it made
        foreach (var key in keys.OrderBy(key => key.Id))
        {
            if (!going.Contains(key.Id) && !(key.MakerId is { } maker && going.Contains(maker)))
                continue;
            going.Add(key.Id);
            db.FormerKeys.Add(new FormerKey { Id = key.Id, Label = key.Label, Hash = key.Hash, EndedAt = now });
        }
        await db.SaveChangesAsync(cancellationToken);
        await db.FormerKeys.Where(key => key.EndedAt < now - Kept).ExecuteDeleteAsync(cancellationToken);
    }
}
