using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Pages;

/// <summary>What the command line says, and above all when it refuses.</summary>
public sealed partial class CommandLineTests : IDisposable
{
    private readonly TestNode _node = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("--nope", "'--nope' is neither an option nor a setting")]
    [InlineData("swerve", "'swerve' is neither an option nor a setting")]
    [InlineData("--urls=foo", "'foo' is not an address such as http://127.0.0.1:8000")]
    [InlineData("--urls=http://127.0.0.1:99999", "'http://127.0.0.1:99999' is not an address")]
    [InlineData("Gateway:RetryAfter=potato", "'potato' at 'Gateway:RetryAfter'")]
    [InlineData("Gateway:RetryAfter=00:00:00", "Gateway:RetryAfter=00:00:00: The field RetryAfter must be between 00:00:01 and 00:10:00.")]
    [InlineData("Gateway:RetryAfterwards=00:00:05", "there is no setting 'RetryAfterwards' in Gateway.")]
    [InlineData("Nod:StopGrace=00:00:05", "there is no section 'Nod', only Access, Cluster, Discovery:Consul, ")]
    [InlineData("--Node:StopGrace=00:00:05", "there is no section '--Node'")]
    [InlineData("Logging:LogLevel:Default=Loud", "Configuration value 'Loud' is not supported.")]
    [InlineData("Node:DockerHost=nowhere", "Node:DockerHost is no address such as unix:///var/run/docker.sock")]
    public async Task Wrong_argument_is_refused_in_one_line(string argument, string why) =>
        await RefusedAsync(why, "serve", $"--data={_node.Data}", argument);

    [Fact]
    public async Task Option_without_its_value_is_refused() => await RefusedAsync("Required argument missing for option: '--data'.", "serve", "--data");

    [Fact]
    public async Task Wrong_settings_are_all_named_at_once()
    {
        var said = await EndAsync("serve", "--data", _node.Data, "Gateway:RetryAfter=00:00:00", "Node:StopGrace=00:00:00");

        said.ShouldContain(line => line.Contains("Gateway:RetryAfter", StringComparison.Ordinal));
        said.ShouldContain(line => line.Contains("Node:StopGrace", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Settings_file_that_is_not_json_is_refused()
    {
        await File.WriteAllTextAsync(Path.Combine(_node.Data, "modelhost.json"), "{", Ct);

        await RefusedAsync("modelhost.json", "serve", "--data", _node.Data);
    }

    [Fact]
    public async Task Data_folder_in_use_is_refused()
    {
        await using var owner = await ModelHostProcess.ServeAsync(_node, 0);

        await RefusedAsync($"the data folder {_node.Data} is used by another modelhost", "serve", "--data", _node.Data, "--urls", "http://127.0.0.1:0");
    }

    [Fact]
    public async Task Data_folder_that_cannot_be_made_is_refused() =>
        await RefusedAsync("the data folder /proc/nope cannot be used", "serve", "--data", "/proc/nope");

    [Fact]
    public async Task Port_in_use_is_refused()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();

        await RefusedAsync("address already in use. Choose another address with --urls.",
            ["serve", "--data", _node.Data, "--urls", $"http://{taken.LocalEndpoint}", .. _node.Configuration]);
    }

    [Fact]
    public async Task Address_of_another_machine_is_refused() =>
        await RefusedAsync("cannot listen on http://192.0.2.1:8000", ["serve", "--data", _node.Data, "--urls", "http://192.0.2.1:8000", .. _node.Configuration]);

    [Theory]
    [InlineData("--help", "modelhost [command] [options]")]
    [InlineData("serve --help", "modelhost serve [<Section:Key=value>...] [options]")]
    public async Task Help_names_commands_and_options(string arguments, string usage)
    {
        var said = string.Join('\n', await EndAsync(0, arguments.Split(' ')));

        said.ShouldContain(usage);
        foreach (var option in (string[])["--data", "--urls", "--demo", "--trusted-lan", "--log-json", "http://127.0.0.1:8000"])
            said.ShouldContain(option);
    }

    [Fact]
    public async Task Version_is_a_number() => string.Concat(await EndAsync(0, "--version")).ShouldMatch(@"^\d+\.\d+\.\d+$");

    public void Dispose() => _node.Dispose();

    private static async Task RefusedAsync(string why, params string[] arguments)
    {
        var said = await EndAsync(arguments);

        // beside the refusal there may be lines of the log
        said.Where(line => !LogLine().IsMatch(line)).ShouldHaveSingleItem().ShouldStartWith("modelhost: ");
        said.ShouldContain(line => line.Contains(why, StringComparison.Ordinal), string.Join('\n', said));
    }

    private static Task<string[]> EndAsync(params string[] arguments) => EndAsync(1, arguments);

    private static async Task<string[]> EndAsync(int code, string[] arguments)
    {
        await using var process = ModelHostProcess.Start(arguments);
        (await process.ExitAsync()).ShouldBe(code, string.Join('\n', process.Output));
        return [.. process.Output.Where(line => line.Length > 0)];
    }

    private static Task<string[]> EndAsync(int code, string argument) => EndAsync(code, [argument]);

    [GeneratedRegex(@"^\d\d:\d\d:\d\d (INF|WRN) ")]
    private static partial Regex LogLine();
}
