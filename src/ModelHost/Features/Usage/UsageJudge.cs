using System.Buffers;
using Microsoft.EntityFrameworkCore;
using ModelHost.Agent.Metering;
using ModelHost.Agent.Service;
using ModelHost.Core.Access;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.ApiKeys;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Usage;

/// <summary>Judges the entries of a batch: a node tells of its own deployments, of keys that there are or were, and figures that can be.</summary>
internal sealed class UsageJudge(ApiKeyRing ring, DateTimeOffset now, NodeHandle node, ModelHostDbContext db)
{
    /// <summary>Days back to which use is booked; what is told of others is of a clock that is wrong, and booked today.</summary>
    internal const int MostDays = 40;

    private static readonly SearchValues<char> s_uid = SearchValues.Create("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-");
    private static readonly int s_epoch = DateOnly.FromDateTime(DateTime.UnixEpoch).DayNumber;

    private readonly Dictionary<UsageSlot, UsageEntry> _booked = [];
    // with what is stored
    private readonly Dictionary<UsageSlot, UsageCount> _sums = [];
    private readonly List<(LastUse Use, DateTimeOffset At)> _uses = [];

    /// <summary>What is to be booked.</summary>
    public IReadOnlyCollection<UsageEntry> Booked => _booked.Values;

    /// <summary>How many entries are not.</summary>
    public int Refused { get; private set; }

    /// <summary>Why the first of them is not.</summary>
    public string Reason { get; private set; } = "";

    /// <summary>Takes a batch.</summary>
    /// <returns>False: a deployment in it is not known yet, and will be.</returns>
    public async Task<bool> TakeAsync(UsageBatch batch, CancellationToken cancellationToken)
    {
        if (batch.Entries.Count > NodeMethods.MaxUsageEntries)
        {
            (Refused, Reason) = (batch.Entries.Count, "there are too many in one batch");
            return true;
        }
        var uids = batch.Entries.Select(entry => entry.DeploymentUid).Where(IsUid).Distinct().ToArray();
        var deployments = await DeploymentsAsync(uids, cancellationToken);
        if (await IsAnyComingAsync([.. uids.Where(uid => !deployments.ContainsKey(uid))], cancellationToken))
            return false;
        var former = await FormerAsync([.. batch.Entries.Select(entry => entry.KeyId).Distinct()], cancellationToken);
        foreach (var entry in batch.Entries)
        {
            if (await WhyNotAsync(entry, deployments, former, cancellationToken) is not { } reason)
                continue;
            Reason = Refused++ == 0 ? reason : Reason;
        }
        return true;
    }

    /// <summary>Notes when keys were used.</summary>
    public void NoteUse()
    {
        foreach (var (use, at) in _uses)
            use.Note(at);
    }

    private async Task<string?> WhyNotAsync(
        DirectUsage entry, Dictionary<string, Named> deployments, Dictionary<int, FormerKey> former, CancellationToken cancellationToken)
    {
        var count = new UsageCount(entry.Requests, entry.Aborted, entry.Failed, entry.PromptTokens, entry.CompletionTokens);
        if (!count.IsBelievable)
            return "its figures cannot be";
        if (!deployments.TryGetValue(entry.DeploymentUid, out var deployment))
            return "it is of a deployment that is none of the node's";
        if (Label(entry, former) is not { } label)
            return "it is of an API key that there is not";
        var slot = new UsageSlot(entry.KeyId, entry.DeploymentUid, Day(entry.Day));
        var names = new UsageNames(label, deployment.Id, deployment.Model, deployment.Owner);
        if (!_sums.TryGetValue(slot, out var sum))
        {
            var stored = await db.Usage.AsNoTracking().Where(row => row.KeyId == slot.KeyId && row.DeploymentUid == slot.DeploymentUid && row.Day == slot.Day)
                .Select(row => new { row.Requests, row.PromptTokens, row.CompletionTokens }).FirstOrDefaultAsync(cancellationToken);
            sum = stored is null ? default : new UsageCount(stored.Requests, 0, 0, stored.PromptTokens, stored.CompletionTokens);
        }
        if (!(sum + count).IsBelievable)
            return "the sum of the day cannot be";
        _sums[slot] = sum + count;
        _booked[slot] = new UsageEntry(slot, names, count + (_booked.GetValueOrDefault(slot)?.Count ?? default));
        return null;
    }

    /// <summary>The label of its key; null: there is none such.</summary>
    private string? Label(DirectUsage entry, Dictionary<int, FormerKey> former)
    {
        if (entry.KeyId == 0)
            return "";
        if (ring.Keys.TryGetValue(entry.KeyId, out var key))
        {
            if (KeyHash.Mark(key.Hash) != entry.KeyMark)
                return null;
            if (At(entry.LastAt) is { } at)
                _uses.Add((key.LastUse, at));
            return key.Row.Label;
        }
        return former.TryGetValue(entry.KeyId, out var gone) && KeyHash.Mark(Convert.FromHexString(gone.Hash)) == entry.KeyMark ? gone.Label : null;
    }

    // no later than now, whatever the node's clock says
    private DateTimeOffset? At(double seconds) =>
        seconds > 0 ? DateTimeOffset.UnixEpoch.AddSeconds(Math.Min(seconds, (now - DateTimeOffset.UnixEpoch).TotalSeconds)) : null;

    private DateOnly Day(int day)
    {
        var today = DateOnly.FromDateTime(now.UtcDateTime);
        var told = (long)s_epoch + day;
        return told > today.DayNumber - MostDays && told <= today.DayNumber ? DateOnly.FromDayNumber((int)told) : today;
    }

    /// <summary>The node's deployments among these, those that were deleted as well.</summary>
    private async Task<Dictionary<string, Named>> DeploymentsAsync(string[] uids, CancellationToken cancellationToken)
    {
        var gone = await db.Tombstones.AsNoTracking().Where(t => t.NodeId == node.Id && EF.Constant(uids).Contains(t.Uid)).ToListAsync(cancellationToken);
        var found = gone.ToDictionary(t => t.Uid, t => new Named(t.DeploymentId, t.Model, t.Owner));
        foreach (var row in await db.Deployments.AsNoTracking().Where(d => d.NodeId == node.Id && EF.Constant(uids).Contains(d.Uid)).ToListAsync(cancellationToken))
        {
            var spec = row.ReadSpec();
            found[row.Uid] = new Named(row.Id, spec.PublicName, spec.Owner);
        }
        return found;
    }

    /// <summary>Whether one that is not known to be the node's will be: after the database was lost it is found again by its engine.</summary>
    private async Task<bool> IsAnyComingAsync(string[] strange, CancellationToken cancellationToken)
    {
        // one whose spec cannot be read never will be: what is known of the others is not to wait for it
        var reported = node.LastReport?.Engines.Where(engine => engine.Phase != EnginePhase.Stopping && LaunchSpec.FromJson(engine.LaunchSpec) is not null).Select(engine => engine.DeploymentUid).Intersect(strange).ToArray() ?? [];
        foreach (var uid in reported)
        {
            if (!await db.Deployments.AnyAsync(d => d.Uid == uid, cancellationToken) && !await db.Tombstones.AnyAsync(t => t.Uid == uid, cancellationToken))
                return true;
        }
        return false;
    }

    // what else it may be is not looked for
    private static bool IsUid(string text) => text.Length is > 0 and <= 64 && !text.AsSpan().ContainsAnyExcept(s_uid);

    private async Task<Dictionary<int, FormerKey>> FormerAsync(int[] ids, CancellationToken cancellationToken) =>
        await db.FormerKeys.AsNoTracking().Where(key => EF.Constant(ids).Contains(key.Id)).ToDictionaryAsync(key => key.Id, cancellationToken);

    private sealed record Named(int Id, string Model, string Owner);
}
