using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Access;
using ModelHost.Core.Routing;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;

namespace ModelHost.Features.ApiKeys;

/// <summary>
/// Makes, changes and revokes API keys: the one that writes them. A change is stored first and counts for every request from then on,
/// whatever becomes of the request that asked for it.
/// </summary>
internal sealed partial class ApiKeyService(
    Database database, ApiKeyRing ring, KeyHasher hasher, DeploymentReads deployments, ChangeFeed feed, TimeProvider time, ILogger<ApiKeyService> logger) : IDisposable
{
    /// <summary>Keys at most.</summary>
    public const int MaxKeys = 10_000;

    /// <summary>Keys that one key may have made at a time.</summary>
    public const int MaxPerMaker = 1_000;

    private readonly SemaphoreSlim _writing = new(1);

    /// <summary>Reads what is stored.</summary>
    public async Task LoadAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        ring.Swap(await db.ApiKeys.AsNoTracking().ToListAsync(cancellationToken));
        if (hasher.IsNew && ring.Keys.Count > 0)
            LogPepperLost(ring.Keys.Count);
    }

    /// <summary>All keys but temporary ones that have ended, newest first.</summary>
    public async Task<IReadOnlyList<ApiKeyRead>> ListAsync(CancellationToken cancellationToken)
    {
        var ids = (await deployments.UidsAsync(cancellationToken)).ToDictionary(pair => pair.Value, pair => pair.Key);
        var now = time.GetUtcNow();
        return [.. ring.Keys.Values.Where(key => !IsOver(key, now)).OrderByDescending(key => key.Row.Id).Select(key => Read(key, ids))];
    }

    /// <summary>Makes a key.</summary>
    /// <param name="request">What it is to be.</param>
    /// <param name="makerId">The key that makes it; null: an administrator does.</param>
    /// <param name="cancellationToken">Gives up before anything is stored.</param>
    public async Task<Result<ApiKeyCreated>> CreateAsync(CreateApiKeyRequest request, int? makerId, CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        var roles = (KeyRoles?)null;
        if ((ApiKeyRules.Unknown(request.Unknown) ?? ApiKeyRules.Label(request.Label) ?? ApiKeyRules.Expiry(request.ExpiresAt, now)
            ?? ApiKeyRules.Models(request.Models)) is { } fault)
            return fault;
        if (request.Roles is not null)
        {
            if (!ApiKeyRules.Roles(request.Roles).TryGet(out var given, out var wrong))
                return wrong;
            roles = given;
        }
        if (request is { TtlSeconds: not null, ExpiresAt: not null })
            return Failure.Invalid("expires_at", "is given together with ttl_seconds");
        if (makerId is not null && request.TtlSeconds is null)
            return ApiKeyFailures.Exceeds("ttl_seconds", "is missing: a key can make temporary keys alone, and a permanent one is what");

        await _writing.WaitAsync(cancellationToken);
        try
        {
            var uids = await deployments.UidsAsync(cancellationToken);
            var maker = makerId is { } id ? ring.Keys.GetValueOrDefault(id) : null;
            if (makerId is not null && (maker is null || maker.Grant.HasEnded(now)))
                return ApiKeyFailures.MakerGone();
            if (!Grant(request, roles, uids, maker?.Grant, now).TryGet(out var grant, out var refusal))
                return refusal;
            if (ring.Keys.Count >= MaxKeys)
                return ApiKeyFailures.TooMany(MaxKeys, "API keys");
            if (maker is not null && ring.Keys.Values.Count(key => key.Row.MakerId == makerId) >= MaxPerMaker)
                return ApiKeyFailures.TooMany(MaxPerMaker, "keys made by this one");

            var text = ApiKeyText.Make(isTemporary: request.TtlSeconds is not null);
            var row = new ApiKey
            {
                Label = request.Label!,
                Prefix = ApiKeyText.Shown(text),
                Hash = hasher.Hash(text),
                IsTemporary = request.TtlSeconds is not null,
                MakerId = makerId,
                Roles = grant.Roles,
                Deployments = Json(grant.Scope.Deployments),
                Models = Json(grant.Scope.Models),
                CreatedAt = now,
                ExpiresAt = grant.ExpiresAt,
            };
            await using var db = await database.OpenAsync(CancellationToken.None);
            db.ApiKeys.Add(row);
            await database.SaveAsync(db, CancellationToken.None);
            Changed([.. Rows(), row]);
            LogMade(row.Id, row.MakerId is { } by ? FormattableString.Invariant($"API key {by}") : "an administrator");
            return new ApiKeyCreated(Read(ring.Keys[row.Id], uids.ToDictionary(pair => pair.Value, pair => pair.Key)), text);
        }
        finally
        {
            _writing.Release();
        }
    }

    /// <summary>Changes the fields of a permanent key that are given; what it has made is limited by what it has then.</summary>
    public async Task<Result<ApiKeyRead>> UpdateAsync(int id, UpdateApiKeyRequest request, CancellationToken cancellationToken)
    {
        var roles = default(KeyRoles);
        if ((ApiKeyRules.Unknown(request.Unknown) ?? (request.HasLabel ? ApiKeyRules.Label(request.Label) : null)
            ?? ApiKeyRules.Expiry(request.ExpiresAt, time.GetUtcNow()) ?? ApiKeyRules.Models(request.Models)) is { } fault)
            return fault;
        if (request.HasRoles && !ApiKeyRules.Roles(request.Roles).TryGet(out roles, out var wrong))
            return wrong;

        await _writing.WaitAsync(cancellationToken);
        try
        {
            var uids = await deployments.UidsAsync(cancellationToken);
            if (!ring.Keys.TryGetValue(id, out var key) || IsOver(key, time.GetUtcNow()))
                return ApiKeyFailures.NotFound(id);
            if (key.Row.IsTemporary)
                return ApiKeyFailures.Temporary(id);
            if (!Deployments(request.DeploymentIds, uids, maker: null).TryGet(out var scoped, out var unknown))
                return unknown;
            await using var db = await database.OpenAsync(CancellationToken.None);
            var row = await db.ApiKeys.FirstAsync(stored => stored.Id == id, CancellationToken.None);
            if (request.HasLabel)
                row.Label = request.Label!;
            if (request.HasExpiresAt)
                row.ExpiresAt = request.ExpiresAt?.ToUniversalTime();
            if (request.HasDeploymentIds)
                row.Deployments = Json(scoped.Uids);
            if (request.HasModels)
                row.Models = Json(request.Models);
            if (request.HasRoles)
                row.Roles = roles;
            await database.SaveAsync(db, CancellationToken.None);
            Changed([.. Rows().Where(other => other.Id != id), row]);
            LogChanged(id);
            return Read(ring.Keys[id], uids.ToDictionary(pair => pair.Value, pair => pair.Key));
        }
        finally
        {
            _writing.Release();
        }
    }

    /// <summary>Revokes a key and what it has made, from the next request on.</summary>
    /// <param name="id">The key.</param>
    /// <param name="mayOpen">Whether the last permanent key may go, without which the gateway needs none.</param>
    /// <param name="cancellationToken">Gives up before anything is stored.</param>
    /// <returns>Why it was not revoked, or null.</returns>
    public async Task<Failure?> DeleteAsync(int id, bool mayOpen, CancellationToken cancellationToken)
    {
        await _writing.WaitAsync(cancellationToken);
        try
        {
            if (!ring.Keys.TryGetValue(id, out var key) || IsOver(key, time.GetUtcNow()))
                return ApiKeyFailures.NotFound(id);
            if (!mayOpen && !key.Row.IsTemporary && ring.Keys.Values.Count(other => !other.Row.IsTemporary) == 1)
                return ApiKeyFailures.LastPermanent(id);
            await using var db = await database.OpenAsync(CancellationToken.None);
            await using (var transaction = await database.BeginAsync(db, CancellationToken.None))
            {
                await FormerKey.NoteAsync(db, [id], Rows(), time.GetUtcNow(), CancellationToken.None);
                await db.ApiKeys.Where(row => row.Id == id).ExecuteDeleteAsync(CancellationToken.None);
                await transaction.CommitAsync(CancellationToken.None);
            }
            Changed(Rows().Where(row => row.Id != id));
            LogRevoked(id);
            if (!ring.IsClosed)
                LogOpen();
            return null;
        }
        finally
        {
            _writing.Release();
        }
    }

    /// <summary>Writes when keys were used, and deletes temporary keys that have ended; in one transaction.</summary>
    public async Task SweepAsync(CancellationToken cancellationToken)
    {
        await _writing.WaitAsync(cancellationToken);
        try
        {
            var now = time.GetUtcNow();
            var used = ring.Keys.Values.Where(key => key.LastUse.IsNew).Select(key => (key.Row.Id, key.LastUse, At: key.LastUse.At!.Value)).ToArray();
            var over = ring.Keys.Values.Where(key => IsOver(key, now)).Select(key => key.Row.Id).ToHashSet();
            if (used.Length + over.Count == 0)
                return;
            await using var db = await database.OpenAsync(cancellationToken);
            await using var transaction = await database.BeginAsync(db, cancellationToken);
            foreach (var (id, _, at) in used)
                await db.ApiKeys.Where(row => row.Id == id).ExecuteUpdateAsync(update => update.SetProperty(row => row.LastUsedAt, at), cancellationToken);
            await FormerKey.NoteAsync(db, over, Rows(), now, cancellationToken);
            foreach (var id in over)
                await db.ApiKeys.Where(row => row.Id == id).ExecuteDeleteAsync(cancellationToken);
            await transaction.CommitAsync(CancellationToken.None);
            foreach (var (_, use, at) in used)
                use.Written(at);
            if (over.Count > 0)
                Changed(Rows().Where(row => !over.Contains(row.Id)));
        }
        finally
        {
            _writing.Release();
        }
    }

    public void Dispose() => _writing.Dispose();

    /// <summary>What a new key is to give, within what its maker has.</summary>
    private static Result<KeyGrant> Grant(CreateApiKeyRequest request, KeyRoles? roles, IReadOnlyDictionary<int, string> uids, KeyGrant? maker, DateTimeOffset now)
    {
        if (!Deployments(request.DeploymentIds, uids, maker).TryGet(out var scoped, out var fault))
            return fault;
        var expiresAt = request.TtlSeconds is { } seconds ? now.AddSeconds(seconds) : request.ExpiresAt?.ToUniversalTime();
        var asked = new KeyGrant(roles ?? KeyRoles.Inference, RouteScope.Of(scoped.Uids, request.Models), expiresAt);
        if (maker is not null)
        {
            // what is named has to be there; what is left out is as the maker has it
            if (request.Models is not null && !RouteScope.Of(null, request.Models).IsWithin(RouteScope.Of(null, maker.Scope.Models)))
                return ApiKeyFailures.Exceeds("models", "names models that");
            if ((asked.Roles & ~maker.Roles) != KeyRoles.None)
                return roles is null ? Failure.Invalid("roles", "is required: the key that makes this one is not for inference") : ApiKeyFailures.Exceeds("roles", "names roles that");
            asked = asked.LimitedTo(maker);
        }
        return request.TtlSeconds is not null && asked.Roles.HasFlag(KeyRoles.Inference) && asked.Scope.IsAll
            ? Failure.Invalid("deployment_ids", "is required for a temporary key, unless models are given") : asked;
    }

    /// <summary>The uids of deployments that are named by their ids.</summary>
    private static Result<Scoped> Deployments(IReadOnlyList<int>? ids, IReadOnlyDictionary<int, string> uids, KeyGrant? maker)
    {
        if (ids is null)
            return new Scoped(null);
        var limit = maker?.Scope.Deployments;
        var strange = ids.Where(id => !uids.TryGetValue(id, out var uid) || limit?.Contains(uid) == false).Take(10).ToArray();
        if (strange.Length == 0)
            return new Scoped([.. ids.Select(id => uids[id]).Distinct()]);
        var named = string.Join(", ", strange);
        // whether they exist is no affair of a key that has not got them
        return limit is null ? Failure.Invalid("deployment_ids", $"names deployments that there are not: {named}") : ApiKeyFailures.Exceeds("deployment_ids", $"names deployments ({named}) that");
    }

    private IEnumerable<ApiKey> Rows() => ring.Keys.Values.Select(key => key.Row);

    private void Changed(IEnumerable<ApiKey> rows)
    {
        ring.Swap(rows);
        feed.Publish(Change.ApiKeys);
    }

    private static bool IsOver(KnownKey key, DateTimeOffset now) => key.Row.IsTemporary && key.Grant.HasEnded(now);

    private static string? Json(IEnumerable<string>? names) => names is null ? null : JsonSerializer.Serialize(names.Distinct().Order(StringComparer.Ordinal));

    private static ApiKeyRead Read(KnownKey key, Dictionary<string, int> ids) => new()
    {
        Id = key.Row.Id,
        Label = key.Row.Label,
        Prefix = key.Row.Prefix,
        CreatedAt = key.Row.CreatedAt,
        LastUsedAt = key.LastUse.At,
        ExpiresAt = key.Grant.ExpiresAt,
        AllowedDeploymentIds = key.Grant.Scope.Deployments is { } uids ? [.. uids.Where(ids.ContainsKey).Select(uid => ids[uid]).Order()] : null,
        AllowedModels = key.Grant.Scope.Models is { } models ? [.. models.Order(StringComparer.Ordinal)] : null,
        Roles = key.Grant.Roles.ToWords(),
        Temporary = key.Row.IsTemporary,
        MadeBy = key.Row.MakerId,
    };

    private sealed record Scoped(string[]? Uids);

    [LoggerMessage(1701, LogLevel.Information, "API key {ApiKeyId} was made by {Maker}.")]
    private partial void LogMade(int apiKeyId, string maker);

    [LoggerMessage(1702, LogLevel.Information, "API key {ApiKeyId} was changed.")]
    private partial void LogChanged(int apiKeyId);

    [LoggerMessage(1703, LogLevel.Information, "API key {ApiKeyId} was revoked.")]
    private partial void LogRevoked(int apiKeyId);

    [LoggerMessage(1704, LogLevel.Warning, "There is no permanent API key any more: the gateway is open to programs on this machine.")]
    private partial void LogOpen();

    [LoggerMessage(1705, LogLevel.Error, "None of the {Count} API keys can match: keys/api-key-pepper of the data folder was missing and has been made anew. Put it back from a backup, or make the keys anew.")]
    private partial void LogPepperLost(int count);
}
