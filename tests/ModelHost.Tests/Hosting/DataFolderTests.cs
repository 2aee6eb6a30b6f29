using ModelHost.Hosting;

namespace ModelHost.Tests.Hosting;

public sealed class DataFolderTests
{
    [Fact]
    public void Only_a_folder_that_another_process_holds_is_said_to_be_used()
    {
        var path = Directory.CreateTempSubdirectory("modelhost-").FullName;
        using (var folder = DataFolder.Open(path))
            Should.Throw<DataFolderException>(() => DataFolder.Open(path)).Message.ShouldContain("is used by another modelhost");
        Directory.Delete(path, recursive: true);

        Should.Throw<DataFolderException>(() => DataFolder.Open("/proc")).Message.ShouldStartWith("the data folder /proc cannot be used: ");
    }
}
