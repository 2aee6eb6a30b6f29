using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;

namespace ModelHost.Features.Configs;

/// <summary>Keeps saved configurations.</summary>
internal sealed class ConfigService(Database database, EnvironmentVault vault, ChangeFeed feed, TimeProvider time)
{
    private static readonly Dictionary<string, string> NothingStored = [];

    /// <summary>All of them by name.</summary>
    public async Task<IReadOnlyList<DeploymentConfigRead>> ListAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Configs.AsNoTracking().OrderBy(config => config.Name).ToListAsync(cancellationToken);
        return [.. rows.Select(Read)];
    }

    /// <summary>Saves one under a name that is not taken.</summary>
    public async Task<Result<DeploymentConfigRead>> CreateAsync(DeploymentConfigCreate request, CancellationToken cancellationToken)
    {
        if (!Check(request, NothingStored).TryGet(out var payload, out var fault))
            return fault;
        await using var db = await database.OpenAsync(cancellationToken);
        var row = new SavedConfig { Name = request.Name!, Payload = payload.Shown, EnvValues = vault.Seal(payload.Values), CreatedAt = time.GetUtcNow() };
        db.Configs.Add(row);
        return await StoreAsync(db, row, cancellationToken);
    }

    /// <summary>Replaces name and payload of one; a mask in the payload keeps the value that is stored there.</summary>
    public async Task<Result<DeploymentConfigRead>> ReplaceAsync(int id, DeploymentConfigCreate request, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        if (await db.Configs.FirstOrDefaultAsync(config => config.Id == id, cancellationToken) is not { } row)
            return NotFound(id);
        if (!Check(request, vault.Open(row.EnvValues) ?? NothingStored).TryGet(out var payload, out var fault))
            return fault;
        (row.Name, row.Payload, row.EnvValues) = (request.Name!, payload.Shown, vault.Seal(payload.Values));
        return await StoreAsync(db, row, cancellationToken);
    }

    /// <summary>Deletes one.</summary>
    public async Task<Result<Deleted>> DeleteAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        if (await db.Configs.Where(config => config.Id == id).ExecuteDeleteAsync(cancellationToken) == 0)
            return NotFound(id);
        feed.Publish(Change.Configs);
        return new Deleted();
    }

    private static Result<ConfigPayload> Check(DeploymentConfigCreate request, IReadOnlyDictionary<string, string> stored) =>
        string.IsNullOrWhiteSpace(request.Name) || request.Name.Any(char.IsControl)
            ? Failure.Invalid("name", "is blank or holds control characters")
            : ConfigPayload.Read(request.Payload!.Value, stored);

    private async Task<Result<DeploymentConfigRead>> StoreAsync(ModelHostDbContext db, SavedConfig row, CancellationToken cancellationToken)
    {
        try
        {
            await database.SaveAsync(db, cancellationToken);
            feed.Publish(Change.Configs);
            return Read(row);
        }
        catch (DbUpdateException e) when (Database.IsDuplicate(e))
        {
            return new Failure(FailureKind.Conflict, "config.name_taken", $"There is a configuration '{row.Name}' already.", "name");
        }
        catch (DbUpdateConcurrencyException)
        {
            return NotFound(row.Id); // deleted in between
        }
    }

    private static Failure NotFound(int id) => new(FailureKind.NotFound, "config.not_found", $"There is no configuration {id}.");

    private static DeploymentConfigRead Read(SavedConfig row) =>
        new(row.Id, row.Name, JsonSerializer.Deserialize<JsonElement>(row.Payload), row.CreatedAt);
}
