using System.Globalization;
using System.Text;
using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Data;

namespace ModelHost.Features.Usage;

/// <summary>Which use is asked for.</summary>
/// <param name="From">The first day; null: 29 days before the last.</param>
/// <param name="To">The last day; null: today (UTC).</param>
/// <param name="GroupBy">key, deployment, owner and day, separated by commas; null: key and deployment.</param>
/// <param name="KeyId">Only that of this key.</param>
/// <param name="DeploymentId">Only that of the deployment that has, or last had, this id.</param>
/// <param name="Owner">Only that of deployments of this owner.</param>
internal sealed record UsageQuery(string? From, string? To, string? GroupBy, int? KeyId, int? DeploymentId, string? Owner);

/// <summary>Tells what was used.</summary>
internal sealed class UsageService(Database database, UsageWriter writer, TimeProvider time)
{
    /// <summary>More rows than this are refused.</summary>
    internal const int MostGroups = 20_000;
    private const int DefaultDays = 30;
    private static readonly string[] Groups = ["key", "deployment", "owner", "day"];

    /// <summary>Reads what was used, up to now.</summary>
    public async Task<Result<UsageRead>> ReadAsync(UsageQuery query, CancellationToken cancellationToken)
    {
        if (Day(query.To, DateOnly.FromDateTime(time.GetUtcNow().UtcDateTime)) is not { } to)
            return NoDay("to", query.To);
        if (Day(query.From, to.DayNumber < DefaultDays ? DateOnly.MinValue : to.AddDays(1 - DefaultDays)) is not { } from)
            return NoDay("from", query.From);
        if (from > to)
            return Failure.Invalid("from", "must not be after 'to'.");
        var groups = (query.GroupBy ?? "key,deployment").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        if (groups.FirstOrDefault(group => !Groups.Contains(group)) is { } unknown)
            return Failure.Invalid("group_by", $"'{(unknown.Length > 64 ? unknown[..64] + "…" : unknown)}' is not one of {string.Join(", ", Groups)}.");
        groups = [.. Groups.Where(groups.Contains)];

        await writer.FlushAsync(cancellationToken);
        var rows = await GroupAsync(query, from, to, groups, cancellationToken);
        if (rows.Count > MostGroups)
            return Failure.Invalid("from", $"these are more than {MostGroups} rows: ask for fewer days, or group by less.");
        var total = rows.Aggregate(new UsageSum(), (sum, row) => new UsageSum
        {
            Requests = sum.Requests + row.Requests,
            AbortedRequests = sum.AbortedRequests + row.AbortedRequests,
            FailedRequests = sum.FailedRequests + row.FailedRequests,
            PromptTokens = sum.PromptTokens + row.PromptTokens,
            CompletionTokens = sum.CompletionTokens + row.CompletionTokens,
        });
        return new UsageRead(from, to, groups, [.. rows.OrderBy(row => row.Day).ThenByDescending(row => row.TotalTokens).ThenBy(row => row.KeyId).ThenBy(row => row.DeploymentId)], total);
    }

    /// <summary>The same as a table for spreadsheets (RFC 4180).</summary>
    public static string ToCsv(UsageRead usage)
    {
        var columns = new List<(string Name, Func<UsageGroup, object?> Read)>();
        if (usage.GroupBy.Contains("day"))
            columns.Add(("day", row => row.Day?.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture)));
        if (usage.GroupBy.Contains("key"))
            columns.AddRange([("key_id", row => row.KeyId), ("key_label", row => row.KeyLabel)]);
        if (usage.GroupBy.Contains("deployment"))
            columns.AddRange([("deployment_id", row => row.DeploymentId), ("deployment_uid", row => row.DeploymentUid), ("model", row => row.Model)]);
        if (usage.GroupBy.Contains("owner"))
            columns.Add(("owner", row => row.Owner));
        columns.AddRange(
        [
            ("requests", row => row.Requests), ("aborted_requests", row => row.AbortedRequests), ("failed_requests", row => row.FailedRequests),
            ("prompt_tokens", row => row.PromptTokens), ("completion_tokens", row => row.CompletionTokens), ("total_tokens", row => row.TotalTokens),
        ]);
        var text = new StringBuilder().AppendJoin(',', columns.Select(column => column.Name)).Append("\r\n");
        foreach (var row in usage.Data)
            text.AppendJoin(',', columns.Select(column => Cell(column.Read(row)))).Append("\r\n");
        return text.ToString();
    }

    private async Task<List<UsageGroup>> GroupAsync(UsageQuery query, DateOnly from, DateOnly to, string[] groups, CancellationToken cancellationToken)
    {
        var (byKey, byDeployment, byOwner, byDay) = (groups.Contains("key"), groups.Contains("deployment"), groups.Contains("owner"), groups.Contains("day"));
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Usage.AsNoTracking()
            .Where(row => row.Day >= from && row.Day <= to)
            .Where(row => query.KeyId == null || row.KeyId == query.KeyId)
            .Where(row => query.DeploymentId == null || row.DeploymentId == query.DeploymentId)
            .Where(row => query.Owner == null || row.Owner == query.Owner)
            .GroupBy(row => new
            {
                KeyId = byKey ? row.KeyId : 0,
                Uid = byDeployment ? row.DeploymentUid : "",
                Owner = byOwner ? row.Owner : "",
                Day = byDay ? row.Day : from,
            })
            .Select(group => new
            {
                group.Key,
                Requests = group.Sum(row => row.Requests),
                Aborted = group.Sum(row => row.Aborted),
                Failed = group.Sum(row => row.Failed),
                Prompt = group.Sum(row => row.PromptTokens),
                Completion = group.Sum(row => row.CompletionTokens),
            })
            .OrderBy(row => row.Key.Day).ThenBy(row => row.Key.KeyId).ThenBy(row => row.Key.Uid).ThenBy(row => row.Key.Owner)
            .Take(MostGroups + 1)
            .ToListAsync(cancellationToken);
        var labels = byKey ? await NamesAsync(db.Usage, row => row.KeyId, row => row.KeyLabel) : [];
        var deployments = byDeployment ? await NamesAsync(db.Usage, row => row.DeploymentUid, row => new Named(row.DeploymentId, row.Model)) : [];
        return [.. rows.Select(row => new UsageGroup
        {
            Day = byDay ? row.Key.Day : null,
            KeyId = byKey ? row.Key.KeyId : null,
            KeyLabel = byKey ? labels[row.Key.KeyId] : null,
            DeploymentUid = byDeployment ? row.Key.Uid : null,
            DeploymentId = byDeployment ? deployments[row.Key.Uid].DeploymentId : null,
            Model = byDeployment ? deployments[row.Key.Uid].Model : null,
            Owner = byOwner ? row.Key.Owner : null,
            Requests = row.Requests,
            AbortedRequests = row.Aborted,
            FailedRequests = row.Failed,
            PromptTokens = row.Prompt,
            CompletionTokens = row.Completion,
        })];

        // a name can change: that of the last day holds
        async Task<Dictionary<TKey, TName>> NamesAsync<TKey, TName>(
            IQueryable<UsageRow> from, System.Linq.Expressions.Expression<Func<UsageRow, TKey>> key, Func<UsageRow, TName> name) where TKey : notnull
        {
            var last = await from.AsNoTracking().GroupBy(key).Select(group => group.OrderByDescending(row => row.Day).First()).ToListAsync(cancellationToken);
            return last.ToDictionary(key.Compile(), name);
        }
    }

    private sealed record Named(int DeploymentId, string Model);

    private static DateOnly? Day(string? text, DateOnly otherwise) =>
        text is null ? otherwise : DateOnly.TryParseExact(text, "yyyy-MM-dd", CultureInfo.InvariantCulture, DateTimeStyles.None, out var day) ? day : null;

    private static Failure NoDay(string field, string? text) =>
        Failure.Invalid(field, $"'{(text!.Length > 64 ? text[..64] + "…" : text)}' is no day such as 2026-01-31.");

    private static string Cell(object? value)
    {
        if (value is not string text)
            return Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
        // a spreadsheet takes these for the beginning of a formula
        if (text.Length > 0 && text[0] is '=' or '+' or '-' or '@' or '\t' or '\r')
            text = "'" + text;
        return text.AsSpan().IndexOfAny(",\"\r\n") < 0 ? text : $"\"{text.Replace("\"", "\"\"", StringComparison.Ordinal)}\"";
    }
}
