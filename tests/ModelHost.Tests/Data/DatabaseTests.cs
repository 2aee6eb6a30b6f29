using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Data;
using ModelHost.Hosting;
using ModelHost.TestKit;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Data;

public sealed class DatabaseTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_schema_of_the_migrations_is_that_of_the_model()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);

        db.Database.HasPendingModelChanges().ShouldBeFalse();
        (await db.Database.GetPendingMigrationsAsync(Ct)).ShouldBeEmpty();
    }

    [Fact]
    public async Task Acknowledged_writes_are_on_the_disk()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);

        (await db.Database.SqlQueryRaw<string>("SELECT journal_mode AS Value FROM pragma_journal_mode").SingleAsync(Ct)).ShouldBe("wal");
        (await db.Database.SqlQueryRaw<int>("SELECT synchronous AS Value FROM pragma_synchronous").SingleAsync(Ct)).ShouldBe(2);
        (await db.Database.SqlQueryRaw<int>("SELECT foreign_keys AS Value FROM pragma_foreign_keys").SingleAsync(Ct)).ShouldBe(1);
        File.GetUnixFileMode(Path.Combine(host.Node.Data, "modelhost.db")).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    [Fact]
    public void A_data_folder_has_one_owner_at_a_time()
    {
        var path = Path.Combine(Directory.CreateTempSubdirectory("mh-").FullName, "data");
        string cluster;
        using (var first = DataFolder.Open(path))
        {
            cluster = first.ClusterId;
            Should.Throw<DataFolderException>(() => DataFolder.Open(path)).Message.ShouldStartWith($"the data folder {path} is used by another modelhost; give this one another with --data");
        }
        using (var next = DataFolder.Open(path))
            next.ClusterId.ShouldBe(cluster);
        Directory.Delete(Path.GetDirectoryName(path)!, recursive: true);
    }

    [Fact]
    public async Task A_second_process_on_a_data_folder_ends_with_the_reason()
    {
        await using var host = await ControlPlane.StartAsync();

        await using var second = ModelHostProcess.Start("serve", "--data", host.Node.Data, "--urls", "http://127.0.0.1:0");

        (await second.ExitAsync()).ShouldBe(1);
        await Deadline.UntilAsync(() => second.Output.Count > 0);
        second.Output.ShouldHaveSingleItem().ShouldStartWith($"modelhost: the data folder {host.Node.Data} is used by another modelhost");
    }

    [Theory]
    [InlineData("modelhost.db", "not a database, but long enough to be taken for the header of one, and then some more of it; and more of it, and more, and more, and still more")]
    [InlineData("admin-key.sha256", "not a hash")]
    [InlineData("admin-key.sha256", "abcd")]
    public async Task A_damaged_file_ends_the_start_and_is_named_with_what_helps(string name, string content)
    {
        using var node = new TestNode();
        await File.WriteAllTextAsync(Path.Combine(node.Data, name), content, Ct);

        await using var process = ModelHostProcess.Start(["serve", "--data", node.Data, "--urls", "http://127.0.0.1:0", .. node.Configuration]);

        (await process.ExitAsync()).ShouldBe(1);
        await Deadline.UntilAsync(() => process.Output.Any(line => line.StartsWith("modelhost: ", StringComparison.Ordinal)));
        // lines of the log come by another way, before it or after it
        process.Output.Where(line => line.StartsWith("modelhost: ", StringComparison.Ordinal)).ShouldHaveSingleItem().ShouldContain(Path.Combine(node.Data, name));
        process.Output.ShouldAllBe(line => !line.TrimStart().StartsWith("at ", StringComparison.Ordinal), "no stack trace");
        (await File.ReadAllTextAsync(Path.Combine(node.Data, name), Ct)).ShouldBe(content);
    }

    [Fact]
    public async Task A_schema_that_is_damaged_is_a_damaged_database()
    {
        using var node = new TestNode();
        await using (await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode))
        {
        }
        SqliteConnection.ClearAllPools();
        await using (var file = new FileStream(Path.Combine(node.Data, "modelhost.db"), FileMode.Open))
        {
            file.Position = 100; // after the header of the file: the tree of all tables
            await file.WriteAsync(new byte[3000], Ct);
        }

        var failure = await Should.ThrowAsync<DataFolderException>(() => ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode));

        failure.Message.ShouldStartWith($"the database {Path.Combine(node.Data, "modelhost.db")} is damaged (");
    }

    [Fact]
    public async Task What_a_newer_version_made_of_the_database_is_left_to_it()
    {
        using var node = new TestNode();
        await using (await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode))
        {
        }
        await using (var db = new SqliteConnection($"Data Source={Path.Combine(node.Data, "modelhost.db")};Pooling=false"))
        {
            await db.OpenAsync(Ct);
            await using var command = db.CreateCommand();
            command.CommandText = """INSERT INTO "__EFMigrationsHistory" VALUES ('29990101000000_Later', '99.0.0')""";
            await command.ExecuteNonQueryAsync(Ct);
        }

        var failure = await Should.ThrowAsync<DataFolderException>(() => ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode));

        failure.Message.ShouldContain("was made by a newer version of ModelHost (it has the change 29990101000000_Later)");
    }

    [Fact]
    public async Task A_process_that_was_killed_while_it_held_the_lock_of_the_schema_holds_up_no_start()
    {
        using var node = new TestNode();
        using (var folder = DataFolder.Open(node.Data))
            folder.PrivateFile("modelhost.db");
        await using (var db = new SqliteConnection($"Data Source={Path.Combine(node.Data, "modelhost.db")};Pooling=false"))
        {
            await db.OpenAsync(Ct);
            await using var command = db.CreateCommand();
            command.CommandText = """
                CREATE TABLE IF NOT EXISTS "__EFMigrationsLock" ("Id" INTEGER NOT NULL CONSTRAINT "PK___EFMigrationsLock" PRIMARY KEY, "Timestamp" TEXT NOT NULL);
                INSERT INTO "__EFMigrationsLock" VALUES (1, '2026-01-01 00:00:00+00:00');
                """;
            await command.ExecuteNonQueryAsync(Ct);
        }

        await using var host = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode).WaitAsync(TimeSpan.FromSeconds(180), Ct);

        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
    }

    [Fact]
    public void A_folder_that_cannot_be_used_is_named() =>
        Should.Throw<DataFolderException>(() => DataFolder.Open("/proc/modelhost")).Message.ShouldStartWith("the data folder /proc/modelhost cannot be used: ");
}
