using Microsoft.Data.Sqlite;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Data;
using ModelHost.Hosting;

namespace ModelHost.TestKit;

/// <summary>A database with the current schema and nothing in it. It is made once for all tests of a process: to migrate a new one is an eighth of what a host costs them.</summary>
internal static class EmptyDatabase
{
    private static readonly Lazy<Task<byte[]>> Content = new(MakeAsync);

    /// <summary>Puts it into a data folder that has no database.</summary>
    public static async Task PutAsync(DataFolder folder)
    {
        var path = folder.PrivateFile("modelhost.db");
        if (new FileInfo(path).Length == 0)
            await File.WriteAllBytesAsync(path, await Content.Value);
    }

    private static async Task<byte[]> MakeAsync()
    {
        var directory = Directory.CreateTempSubdirectory("mh-empty-").FullName;
        try
        {
            using var folder = DataFolder.Open(directory);
            await using var services = new ServiceCollection().AddLogging().AddData(folder).BuildServiceProvider();
            await services.GetRequiredService<Database>().MigrateAsync(CancellationToken.None);
            // with what is still in its log
            await using var connection = new SqliteConnection($"Data Source={folder.File("modelhost.db")};Pooling=false");
            await connection.OpenAsync();
            await using var command = connection.CreateCommand();
            command.CommandText = $"VACUUM INTO '{folder.File("whole.db")}'";
            await command.ExecuteNonQueryAsync();
            return await File.ReadAllBytesAsync(folder.File("whole.db"));
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }
}
