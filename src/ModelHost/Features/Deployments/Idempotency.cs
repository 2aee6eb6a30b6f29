using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.AspNetCore.Http.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Data;

namespace ModelHost.Features.Deployments;

/// <summary>A key that a client gave a request, and what became of it.</summary>
internal sealed class IdempotencyRecord
{
    /// <summary>Hash of credential, route and key.</summary>
    public required string Scope { get; set; }

    /// <summary>Hash of the body, encrypted: bodies hold secrets, and a plain hash lets short ones be guessed.</summary>
    public required string Body { get; set; }

    /// <summary>The deployment that the request made or restarted; it may be gone.</summary>
    public required string DeploymentUid { get; set; }

    public DateTimeOffset CreatedAt { get; set; }
}

/// <summary>What a request claims with its key.</summary>
/// <param name="Scope">Hash of credential, route and key; null: it has no key.</param>
/// <param name="Body">Hash of the body.</param>
internal sealed record IdempotencyClaim(string? Scope, string Body)
{
    /// <summary>Of a request without a key.</summary>
    public static IdempotencyClaim None { get; } = new(null, "");
}

/// <summary>
/// Lets a request that is sent again with the same <c>Idempotency-Key</c> have the deployment of the first one. A key counts for one
/// credential and route for 24 hours, and is stored in the transaction that stores the deployment, so that one is never there without the other.
/// </summary>
internal sealed class Idempotency(IDataProtectionProvider protection, IOptions<JsonOptions> json, TimeProvider time)
{
    /// <summary>The request header.</summary>
    public const string Header = "Idempotency-Key";

    /// <summary>Longest key, in characters.</summary>
    public const int MaxLength = 255;

    /// <summary>How long a key counts.</summary>
    public static readonly TimeSpan Lifetime = TimeSpan.FromHours(24);

    private readonly IDataProtector _protector = protection.CreateProtector("ModelHost.Deployments.Idempotency.v1");

    /// <summary>Keys kept at most; each belongs to a deployment that was made or restarted within the last 24 hours.</summary>
    public int MaxRecords { get; set; } = 10_000;

    /// <summary>Reads the key of a request.</summary>
    /// <param name="request">The request.</param>
    /// <param name="key">Its key; null: none was given.</param>
    /// <param name="body">Its body as it was understood: blanks and line ends make no other body.</param>
    public Result<IdempotencyClaim> Claim(HttpRequest request, string? key, object body)
    {
        if (key is null)
            return IdempotencyClaim.None;
        if (key.Length is 0 or > MaxLength || key.Any(c => c is <= ' ' or > '~'))
            return Failure.Invalid(Header, $"must be 1 to {MaxLength} printable ASCII characters without blanks");
        try
        {
            var credential = request.Headers.Authorization.ToString().Split(' ', 2, StringSplitOptions.TrimEntries)[^1];
            var route = request.Path.Value!.TrimEnd('/').ToLowerInvariant();
            return new IdempotencyClaim(
                Hash(Encoding.UTF8.GetBytes($"{credential}\n{route}\n{key}")),
                Hash(JsonSerializer.SerializeToUtf8Bytes(body, body.GetType(), json.Value.SerializerOptions)));
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or ArgumentException)
        {
            // half of a surrogate pair, somewhere where nobody has read it yet
            return Failure.Invalid("", "the body holds text that is not valid Unicode");
        }
    }

    /// <summary>What a key stands for already; null: nothing.</summary>
    public async Task<Result<Deployment>?> FindAsync(ModelHostDbContext db, IdempotencyClaim claim, CancellationToken cancellationToken)
    {
        var since = time.GetUtcNow() - Lifetime;
        if (claim.Scope is null
            || await db.IdempotencyRecords.AsNoTracking().FirstOrDefaultAsync(r => r.Scope == claim.Scope && r.CreatedAt > since, cancellationToken) is not { } record)
            return null;
        if (Open(record.Body) != claim.Body)
            return DeploymentFailures.KeyReused();
        return await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Uid == record.DeploymentUid, cancellationToken) is { } row
            ? row : DeploymentFailures.KeySpent();
    }

    /// <summary>Stores what a key stands for, in the transaction under way.</summary>
    /// <returns>Why it cannot be stored, or null.</returns>
    public async Task<Failure?> AddAsync(ModelHostDbContext db, IdempotencyClaim claim, string deploymentUid, CancellationToken cancellationToken)
    {
        if (claim.Scope is null)
            return null;
        var now = time.GetUtcNow();
        var since = now - Lifetime;
        await db.IdempotencyRecords.Where(r => r.CreatedAt <= since).ExecuteDeleteAsync(cancellationToken);
        if (await db.IdempotencyRecords.CountAsync(cancellationToken) >= MaxRecords)
            return DeploymentFailures.TooManyKeys(MaxRecords);
        db.IdempotencyRecords.Add(new IdempotencyRecord
        {
            Scope = claim.Scope,
            Body = _protector.Protect(claim.Body),
            DeploymentUid = deploymentUid,
            CreatedAt = now,
        });
        await db.SaveChangesAsync(cancellationToken);
        return null;
    }

    private string? Open(string body)
    {
        try
        {
            return _protector.Unprotect(body);
        }
        catch (CryptographicException)
        {
            return null; // encrypted with keys that are lost: what it was cannot be told
        }
    }

    private static string Hash(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));
}
