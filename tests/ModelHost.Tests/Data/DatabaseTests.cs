using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Data;
using ModelHost.Hosting;
using ModelHost.TestKit;

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

    [Fact]
    public void A_folder_that_cannot_be_used_is_named() =>
        Should.Throw<DataFolderException>(() => DataFolder.Open("/proc/modelhost")).Message.ShouldStartWith("the data folder /proc/modelhost cannot be used: ");
}
