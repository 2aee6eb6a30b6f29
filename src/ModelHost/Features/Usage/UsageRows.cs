using Microsoft.EntityFrameworkCore;
using ModelHost.Data;

namespace ModelHost.Features.Usage;

/// <summary>How use is stored.</summary>
internal static class UsageRows
{
    /// <summary>Adds use to what is stored; the caller has a transaction that writes, and ends it.</summary>
    public static async Task AddAsync(ModelHostDbContext db, IEnumerable<UsageEntry> entries, CancellationToken cancellationToken)
    {
        foreach (var (slot, names, count) in entries)
        {
            var stored = await db.Usage.Where(row => row.KeyId == slot.KeyId && row.DeploymentUid == slot.DeploymentUid && row.Day == slot.Day)
                .ExecuteUpdateAsync(row => row
                    .SetProperty(r => r.Requests, r => r.Requests + count.Requests)
                    .SetProperty(r => r.Aborted, r => r.Aborted + count.Aborted)
                    .SetProperty(r => r.Failed, r => r.Failed + count.Failed)
                    .SetProperty(r => r.PromptTokens, r => r.PromptTokens + count.PromptTokens)
                    .SetProperty(r => r.CompletionTokens, r => r.CompletionTokens + count.CompletionTokens)
                    .SetProperty(r => r.KeyLabel, names.KeyLabel)
                    .SetProperty(r => r.DeploymentId, names.DeploymentId)
                    .SetProperty(r => r.Model, names.Model)
                    .SetProperty(r => r.Owner, names.Owner), cancellationToken);
            if (stored > 0)
                continue;
            db.Usage.Add(new UsageRow
            {
                KeyId = slot.KeyId,
                DeploymentUid = slot.DeploymentUid,
                Day = slot.Day,
                KeyLabel = names.KeyLabel,
                DeploymentId = names.DeploymentId,
                Model = names.Model,
                Owner = names.Owner,
                Requests = count.Requests,
                Aborted = count.Aborted,
                Failed = count.Failed,
                PromptTokens = count.PromptTokens,
                CompletionTokens = count.CompletionTokens,
            });
        }
        await db.SaveChangesAsync(cancellationToken);
    }
}
