using ModelHost.Agent.Backends;

namespace ModelHost.Tests.Backends;

/// <summary>Files that backends read and write on a node.</summary>
public sealed class RunFilesTests : IDisposable
{
    private readonly string _data = Directory.CreateTempSubdirectory("mh-").FullName;
    private readonly string _run = Guid.NewGuid().ToString("N");

    public void Dispose() => Directory.Delete(_data, recursive: true);

    [Theory]
    [InlineData("")]
    [InlineData("..")]
    [InlineData(".hidden")]
    [InlineData("a/b")]
    [InlineData("a\\b")]
    [InlineData("a b")]
    [InlineData("a\0b")]
    public void Only_plain_names_are_files(string name) => Should.Throw<ArgumentException>(() => new RunFiles(_data).PathOf(_run, name));

    [Theory]
    [InlineData("..")]
    [InlineData("x")]
    [InlineData("")]
    public void Only_runs_have_folders(string run) => Should.Throw<ArgumentException>(() => new RunFiles(_data).Open(run));

    [Fact]
    public async Task What_a_backend_leaves_in_place_of_a_file_leads_nowhere_else()
    {
        var (files, ct) = (new RunFiles(_data), TestContext.Current.CancellationToken);
        var path = await files.WriteAsync(_run, "in.wav", new MemoryStream([1, 2, 3]), ct);
        File.CreateSymbolicLink(files.PathOf(_run, "out.wav"), "/etc/hostname");

        (await File.ReadAllBytesAsync(path, ct)).ShouldBe([1, 2, 3]);
        files.OpenRead(_run, "out.wav").ShouldBeNull();
        files.OpenRead(_run, "none.wav").ShouldBeNull();
        await Should.ThrowAsync<IOException>(() => files.WriteAsync(_run, "out.wav", new MemoryStream([4]), ct));
        files.Forget(_run);
        Directory.Exists(Path.GetDirectoryName(path)).ShouldBeFalse();
    }
}
