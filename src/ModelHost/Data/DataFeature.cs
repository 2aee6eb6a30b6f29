using Microsoft.AspNetCore.Diagnostics;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Design;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Microsoft.EntityFrameworkCore.Storage;
using ModelHost.Common;
using ModelHost.Hosting;

namespace ModelHost.Data;

/// <summary>The database of a data folder.</summary>
internal static class DataFeature
{
    private const int BusyTimeoutSeconds = 10;

    /// <summary>Adds the database.</summary>
    public static IServiceCollection AddData(this IServiceCollection services, DataFolder folder)
    {
        var connection = new SqliteConnectionStringBuilder { DataSource = folder.PrivateFile("modelhost.db"), ForeignKeys = true, DefaultTimeout = BusyTimeoutSeconds };
        services.AddPooledDbContextFactory<SqliteModelHostDbContext>(options => Configure(options, connection.ConnectionString));
        services.AddSingleton<Database>();
        return services.AddExceptionHandler<StorageProblems>();
    }

    internal static void Configure(DbContextOptionsBuilder options, string connection) =>
        options.UseSqlite(connection).AddInterceptors(FullSync.Instance)
            // every commit would be a log line
            .ConfigureWarnings(warnings => warnings.Log((RelationalEventId.CommandExecuted, LogLevel.Debug)));

    /// <summary>An acknowledged write survives a power cut; the default in WAL mode may lose the last ones.</summary>
    private sealed class FullSync : DbConnectionInterceptor
    {
        public static FullSync Instance { get; } = new();

        public override void ConnectionOpened(System.Data.Common.DbConnection connection, ConnectionEndEventData eventData) => Set(connection);

        public override Task ConnectionOpenedAsync(System.Data.Common.DbConnection connection, ConnectionEndEventData eventData, CancellationToken cancellationToken = default)
        {
            Set(connection);
            return Task.CompletedTask;
        }

        private static void Set(System.Data.Common.DbConnection connection)
        {
            using var command = connection.CreateCommand();
            command.CommandText = "PRAGMA synchronous=FULL";
            command.ExecuteNonQuery();
        }
    }
}

/// <summary>Opens short-lived contexts, one per operation.</summary>
internal sealed class Database(IDbContextFactory<SqliteModelHostDbContext> contexts) : IDisposable
{
    // SQLite has one writer at a time, and whoever waits for it inside SQLite holds a thread: a hundred nodes would leave none for requests
    private readonly SemaphoreSlim _writer = new(1);

    /// <summary>A context for one operation.</summary>
    public async Task<ModelHostDbContext> OpenAsync(CancellationToken cancellationToken) => await contexts.CreateDbContextAsync(cancellationToken);

    /// <summary>Begins a transaction that writes. The others wait for its end.</summary>
    public async Task<WriteTransaction> BeginAsync(ModelHostDbContext db, CancellationToken cancellationToken)
    {
        await _writer.WaitAsync(cancellationToken);
        try
        {
            return new WriteTransaction(await db.Database.BeginTransactionAsync(cancellationToken), _writer);
        }
        catch
        {
            _writer.Release();
            throw;
        }
    }

    /// <summary>Writes what has changed in a context, in a transaction of its own.</summary>
    public async Task SaveAsync(ModelHostDbContext db, CancellationToken cancellationToken)
    {
        await _writer.WaitAsync(cancellationToken);
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        finally
        {
            _writer.Release();
        }
    }

    public void Dispose() => _writer.Dispose();

    /// <summary>Brings the schema up to date, in WAL mode.</summary>
    /// <exception cref="DataFolderException">The file is damaged, or is no database, or a newer build has changed its schema.</exception>
    public async Task MigrateAsync(CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        try
        {
            // the provider sets it on files that it makes, and ours is made before, for its mode; the file keeps it
            await db.Database.ExecuteSqlRawAsync("PRAGMA journal_mode=WAL", cancellationToken);
            // the provider's lock outlives a process that is killed while it holds it, and would be waited for without end; the folder has one owner
            await db.Database.ExecuteSqlRawAsync("DROP TABLE IF EXISTS \"__EFMigrationsLock\"", cancellationToken);
            var known = db.Database.GetMigrations().ToArray();
            var applied = (await db.Database.GetAppliedMigrationsAsync(cancellationToken)).ToArray();
            // what a newer build has made of it may be read wrongly, and written over
            if (applied.Except(known).FirstOrDefault() is { } newer)
                throw new DataFolderException($"the database {db.Database.GetDbConnection().DataSource} was made by a newer version of ModelHost (it has the change "
                    + $"{newer}). Start that version, or put a copy back from before the upgrade");
            // with nothing to do it builds the model of the last migration all the same, to compare it
            if (known.Except(applied).Any())
                await db.Database.MigrateAsync(cancellationToken);
        }
        catch (SqliteException e) when (e.SqliteErrorCode is Corrupt or NotADatabase)
        {
            throw new DataFolderException($"the database {db.Database.GetDbConnection().DataSource} is damaged ({e.Message}). Put a copy of it back, or move it "
                + "and its -wal and -shm files away and start with an empty one: what runs on the nodes is found again, saved configurations and settings are not");
        }
    }

    /// <summary>Whether a write failed because a unique index had the value.</summary>
    public static bool IsDuplicate(DbUpdateException e) => e.InnerException is SqliteException { SqliteExtendedErrorCode: UniqueViolation or PrimaryKeyViolation };

    /// <summary>Whether a write failed because its disk has no room left.</summary>
    public static bool IsFull(Exception e) => e is SqliteException { SqliteErrorCode: Full } || (e.InnerException is { } inner && IsFull(inner));

    // SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_FULL, SQLITE_CORRUPT, SQLITE_NOTADB
    private const int UniqueViolation = 2067, PrimaryKeyViolation = 1555, Full = 13, Corrupt = 11, NotADatabase = 26;
}

/// <summary>A transaction that writes; without a commit nothing of it stays.</summary>
internal sealed class WriteTransaction(IDbContextTransaction transaction, SemaphoreSlim writer) : IAsyncDisposable
{
    /// <summary>Makes it last.</summary>
    public Task CommitAsync(CancellationToken cancellationToken) => transaction.CommitAsync(cancellationToken);

    public async ValueTask DisposeAsync()
    {
        try
        {
            await transaction.DisposeAsync();
        }
        finally
        {
            writer.Release();
        }
    }
}

/// <summary>Says which disk is full instead of that something went wrong.</summary>
internal sealed class StorageProblems : IExceptionHandler
{
    public async ValueTask<bool> TryHandleAsync(HttpContext context, Exception exception, CancellationToken cancellationToken)
    {
        if (!Database.IsFull(exception) || context.Response.HasStarted)
            return false;
        await Problems.WriteAsync(context, StatusCodes.Status507InsufficientStorage, "storage.full",
            "Nothing was changed: the disk of ModelHost's data folder has no room left. Models that run go on being served.");
        return true;
    }
}

/// <summary>For <c>dotnet ef</c>.</summary>
internal sealed class DesignTimeFactory : IDesignTimeDbContextFactory<SqliteModelHostDbContext>
{
    public SqliteModelHostDbContext CreateDbContext(string[] args)
    {
        var options = new DbContextOptionsBuilder<SqliteModelHostDbContext>();
        DataFeature.Configure(options, "Data Source=:memory:");
        return new SqliteModelHostDbContext(options.Options);
    }
}
