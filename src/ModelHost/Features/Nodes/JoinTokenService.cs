using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using Microsoft.EntityFrameworkCore;
using ModelHost.Cluster;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Events;

namespace ModelHost.Features.Nodes;

/// <summary>Asks for a join token.</summary>
public sealed record JoinTokenCreate
{
    /// <summary>The only node that may use it, by the name that it gives itself; null: any.</summary>
    [StringLength(64, MinimumLength = 1)]
    [RegularExpression("[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", ErrorMessage = "must be a host name of up to 64 letters, digits, '.', '_' and '-'")]
    public string? NodeName { get; init; }

    /// <summary>Minutes until it expires. Default 60; 1 minute to 7 days.</summary>
    [Range(1, 7 * 24 * 60)]
    public int TtlMinutes { get; init; } = 60;
}

/// <summary>A join token; what it is used with is shown once, when it is made.</summary>
internal record JoinTokenRead
{
    public required int Id { get; init; }
    public string? NodeName { get; init; }

    [Description("active, used or expired.")]
    public required string Status { get; init; }
    public required DateTimeOffset CreatedAt { get; init; }
    public required DateTimeOffset ExpiresAt { get; init; }
    public DateTimeOffset? UsedAt { get; init; }

    [Description("Name of the node that joined with it.")]
    public string? UsedBy { get; init; }
}

/// <summary>A join token that was just made.</summary>
internal sealed record JoinTokenCreated : JoinTokenRead
{
    [Description("The token. It is not shown again.")]
    public required string Token { get; init; }

    [Description("SHA-256 of the cluster's certificate authority, which the token pins.")]
    public required string CaSha256 { get; init; }

    [Description("Port on which the control plane takes joining nodes.")]
    public required int ClusterPort { get; init; }
}

/// <summary>Makes and uses the tokens by which nodes join.</summary>
internal sealed class JoinTokenService(Database database, Lazy<ClusterAuthority> authority, ClusterListener listener, ChangeFeed feed, TimeProvider time)
{
    // what is over is kept this long, to be seen
    private static readonly TimeSpan Kept = TimeSpan.FromDays(30);

    /// <summary>Makes a token, and opens the cluster listener if it is not open.</summary>
    public async Task<Result<JoinTokenCreated>> CreateAsync(JoinTokenCreate request, CancellationToken cancellationToken)
    {
        if (await listener.OpenAsync(cancellationToken) is { } fault)
            return new Failure(FailureKind.Unavailable, "cluster.not_listening", fault);
        var (ticket, now) = (JoinTicket.Make(authority.Value.Fingerprint), time.GetUtcNow());
        var row = new JoinToken
        {
            Hash = JoinTicket.Hash(ticket.Secret),
            NodeName = request.NodeName,
            CreatedAt = now,
            ExpiresAt = now.AddMinutes(request.TtlMinutes),
        };
        await using var db = await database.OpenAsync(cancellationToken);
        await db.JoinTokens.Where(token => token.ExpiresAt < now - Kept).ExecuteDeleteAsync(cancellationToken);
        db.JoinTokens.Add(row);
        await database.SaveAsync(db, cancellationToken);
        feed.Publish(Change.JoinTokens);
        return new JoinTokenCreated
        {
            Id = row.Id,
            NodeName = row.NodeName,
            Status = Status(row),
            CreatedAt = row.CreatedAt,
            ExpiresAt = row.ExpiresAt,
            Token = ticket.ToToken(),
            CaSha256 = Convert.ToHexStringLower(ticket.Authority),
            ClusterPort = listener.Port,
        };
    }

    /// <summary>All tokens, the newest first.</summary>
    public async Task<IReadOnlyList<JoinTokenRead>> ListAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.JoinTokens.AsNoTracking().OrderByDescending(token => token.Id).ToListAsync(cancellationToken);
        return [.. rows.Select(row => new JoinTokenRead
        {
            Id = row.Id,
            NodeName = row.NodeName,
            Status = Status(row),
            CreatedAt = row.CreatedAt,
            ExpiresAt = row.ExpiresAt,
            UsedAt = row.UsedAt,
            UsedBy = row.UsedBy,
        })];
    }

    /// <summary>Deletes a token; a node that joined with it stays.</summary>
    /// <returns>Whether there was one.</returns>
    public async Task<bool> DeleteAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        if (await db.JoinTokens.Where(token => token.Id == id).ExecuteDeleteAsync(cancellationToken) == 0)
            return false;
        feed.Publish(Change.JoinTokens);
        return true;
    }

    /// <summary>Whether any token could be used now.</summary>
    public static async Task<bool> AnyAsync(ModelHostDbContext db, DateTimeOffset now, CancellationToken cancellationToken) =>
        await db.JoinTokens.AnyAsync(token => token.UsedAt == null && token.ExpiresAt > now, cancellationToken);

    /// <summary>Finds the token of a secret.</summary>
    /// <returns>It, or why it cannot be used.</returns>
    public static async Task<Result<JoinToken>> FindAsync(
        ModelHostDbContext db, string secret, string nodeName, DateTimeOffset now, CancellationToken cancellationToken)
    {
        static Failure Refused(string code, string detail) => new(FailureKind.Conflict, code, detail);
        var hash = JoinTicket.Hash(secret);
        var row = await db.JoinTokens.AsNoTracking().FirstOrDefaultAsync(token => token.Hash == hash, cancellationToken);
        return row switch
        {
            null => Refused("join.token_unknown", "There is no such join token."),
            { UsedAt: not null } => Refused("join.token_used", "The join token was used before; each lets one node join, once."),
            _ when row.ExpiresAt <= now => Refused("join.token_expired", $"The join token expired at {row.ExpiresAt:u}."),
            { NodeName: { } name } when !name.Equals(nodeName, StringComparison.OrdinalIgnoreCase) => Refused("join.wrong_node", "The join token is for a node of another name."),
            _ => row,
        };
    }

    /// <summary>Uses a token up.</summary>
    /// <returns>Whether nobody else was faster.</returns>
    public static async Task<bool> UseAsync(ModelHostDbContext db, JoinToken token, string nodeName, DateTimeOffset now, CancellationToken cancellationToken) =>
        await db.JoinTokens.Where(row => row.Id == token.Id && row.UsedAt == null && row.ExpiresAt > now).ExecuteUpdateAsync(
            row => row.SetProperty(t => t.UsedAt, now).SetProperty(t => t.UsedBy, nodeName), cancellationToken) == 1;

    private string Status(JoinToken row) => row switch
    {
        { UsedAt: not null } => "used",
        _ when row.ExpiresAt <= time.GetUtcNow() => "expired",
        _ => "active",
    };
}
