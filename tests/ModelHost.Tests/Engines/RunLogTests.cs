using ModelHost.Agent.Engines;

namespace ModelHost.Tests.Engines;

public sealed class RunLogTests : IDisposable
{
    private const UnixFileMode Others = UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.GroupExecute
        | UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute;

    private readonly string _folder = Directory.CreateTempSubdirectory("modelhost-").FullName;

    private string LogFile => Path.Combine(_folder, "logs", "deployment", "run.log");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void What_it_writes_is_for_its_owners_eyes_only()
    {
        using (var log = Open(maxBytes: 100))
        {
            log.Append(new string('x', 100), null, "1");
            log.Append("after the rotation", null, "2");
        }

        var written = Directory.EnumerateFileSystemEntries(Path.Combine(_folder, "logs"), "*", SearchOption.AllDirectories).Append(Path.Combine(_folder, "logs")).ToArray();
        written.Length.ShouldBe(5);
        written.Where(path => (File.GetUnixFileMode(path) & Others) != 0).ShouldBeEmpty();
    }

    [Fact]
    public void A_log_that_was_taken_away_is_begun_anew()
    {
        using var log = Open(maxBytes: 100);
        log.Append("before", null, "1");
        File.Delete(LogFile);

        log.Append(new string('x', 100), null, "2");
        log.Append("after", null, "3");

        log.Tail(10).ShouldHaveSingleItem().ShouldEndWith("] after");
    }

    [Fact]
    public void The_last_lines_can_be_read_after_the_end()
    {
        var log = Open();
        log.Append("the last words", null, "1");
        log.Dispose();

        log.Append("too late", null, "2");
        log.Mark();
        log.Dispose();

        log.Tail(10).ShouldHaveSingleItem().ShouldEndWith("] the last words");
    }

    [Fact]
    public void No_line_of_a_secret_of_several_lines_is_written()
    {
        using var log = Open("-----BEGIN KEY-----\nMIIEvQIBADANBg\r\nkqhkiG9w0BAQEF\n");

        log.Append("key: MIIEvQIBADANBg", null, null);
        log.Append("kqhkiG9w0BAQEF", null, null);

        var lines = log.Tail(10);
        lines[0].ShouldEndWith("] key: ********");
        lines[1].ShouldEndWith("] ********");
    }

    [Theory]
    [InlineData("HF_TOKEN", "hf_abcdef", "hf_abcdef")]
    [InlineData("https_proxy", "http://site:pass%40word@proxy:3128", "pass%40word,pass@word")]
    [InlineData("https_proxy", "http://proxy:3128", "")]
    [InlineData("HTTP_PROXY", "http://site@proxy:3128", "")]
    [InlineData("HF_HOME", "/models", "")]
    public void The_secrets_of_a_variable_are_told_by_its_name_or_are_the_password_of_its_address(string name, string value, string secrets) =>
        string.Join(',', Redactor.SecretsOf(name, value)).ShouldBe(secrets);

    private RunLog Open(string secret = "", long maxBytes = 1024 * 1024) => new(LogFile, maxBytes, new Redactor([secret]), TimeProvider.System);
}
