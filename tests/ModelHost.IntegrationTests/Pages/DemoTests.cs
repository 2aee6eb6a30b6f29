using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.RegularExpressions;
using ModelHost.Agent.Runtimes;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Pages;

/// <summary>The first thing that a newcomer does: start the demo, and run what it prints.</summary>
public sealed partial class DemoTests : IAsyncDisposable
{
    private readonly TestNode _node = new();
    private ModelHostProcess? _demo;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private string Curl => Printed("curl http", "-d ");

    private string StopCurl => Printed("curl -X POST", "/api/deployments/stop/");

    private Uri Url => new(UrlPattern().Match(Curl).Value);

    [Fact]
    public async Task Printed_lines_work_as_they_are_printed()
    {
        await StartAsync();

        var answer = JsonSerializer.Deserialize<JsonElement>(await ShellAsync(Curl));
        using var client = new HttpClient { BaseAddress = Url };
        var swagger = await client.GetStringAsync(new Uri(SwaggerPattern().Match(Printed("Swagger UI", "/swagger")).Value), Ct);
        var stopped = JsonSerializer.Deserialize<JsonElement>(await ShellAsync(StopCurl));

        answer.GetProperty("object").GetString().ShouldBe("chat.completion");
        answer.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString().ShouldNotBeNullOrEmpty();
        swagger.ShouldContain("swagger-ui");
        await client.StatusAsync(stopped.GetProperty("id").GetInt32(), "stopped");
        Directory.GetFiles(Path.Combine(_node.Data, "engines")).ShouldBeEmpty();
    }

    [Fact]
    public async Task Printed_line_goes_on_working_when_keys_are_needed_and_shows_none()
    {
        await StartAsync();
        using var client = new HttpClient { BaseAddress = Url };

        (await client.PostAsJsonAsync("/api/api-keys", new { label = "first" }, Ct)).EnsureSuccessStatusCode();
        var refused = await client.GetAsync(new Uri("/v1/models", UriKind.Relative), Ct);
        var answer = JsonSerializer.Deserialize<JsonElement>(await ShellAsync(Curl));

        refused.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        answer.GetProperty("object").GetString().ShouldBe("chat.completion");
        _demo!.Output.ShouldAllBe(line => !line.Contains("mh_tmp_", StringComparison.Ordinal));
        File.GetUnixFileMode(Path.Combine(_node.Data, "demo-key")).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    [Fact]
    public async Task Taken_port_makes_it_choose_another()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 8000);
        try
        {
            taken.Start();
        }
        catch (SocketException)
        {
            // somebody else has it: as good
        }

        await StartAsync();

        Url.Port.ShouldBeInRange(8001, 8099);
        _demo!.Output.ShouldNotContain(line => line.Contains($"Nobody can listen on 127.0.0.1:{Url.Port} ", StringComparison.Ordinal), "its model has another one");
        JsonSerializer.Deserialize<JsonElement>(await ShellAsync(Curl)).GetProperty("object").GetString().ShouldBe("chat.completion");
    }

    [Fact]
    public async Task Second_start_finds_the_model_of_the_first()
    {
        await StartAsync();
        var (stop, pid) = (DeploymentPattern().Match(StopCurl).Value, EnginePid());
        (await _demo!.StopAsync()).ShouldBe(0);
        Directory.Exists($"/proc/{pid}").ShouldBeTrue("the engine goes on");
        await _demo.DisposeAsync();

        await StartAsync();

        DeploymentPattern().Match(StopCurl).Value.ShouldBe(stop);
        EnginePid().ShouldBe(pid);
        JsonSerializer.Deserialize<JsonElement>(await ShellAsync(Curl)).GetProperty("object").GetString().ShouldBe("chat.completion");
    }

    public async ValueTask DisposeAsync()
    {
        if (_demo is not null)
        {
            if (_demo.Output.Any(line => line.Contains("/api/deployments/stop/", StringComparison.Ordinal)))
            {
                using var client = new HttpClient { BaseAddress = Url };
                await client.StopModelAsync(int.Parse(DeploymentPattern().Match(StopCurl).Value, System.Globalization.CultureInfo.InvariantCulture));
            }
            await _demo.StopAsync();
            await _demo.DisposeAsync();
        }
        _node.Dispose();
    }

    private async Task StartAsync()
    {
        _demo = ModelHostProcess.Start(["serve", "--demo", "--data", _node.Data, .. _node.Configuration]);
        await Deadline.UntilAsync(
            () => Task.FromResult(string.Join('\n', _demo.Output)), said => said.Contains("/api/deployments/stop/", StringComparison.Ordinal), what: "the demo to say how it is used");
    }

    private string Printed(string start, string part) =>
        _demo!.Output.Select(line => line.Trim()).Single(line => line.StartsWith(start, StringComparison.Ordinal) && line.Contains(part, StringComparison.Ordinal));

    private int EnginePid() =>
        Directory.GetFiles(Path.Combine(_node.Data, "engines")).Select(ProcessSidecar.Read).OfType<ProcessSidecar>().ShouldHaveSingleItem().Pid!.Value;

    private static async Task<string> ShellAsync(string line)
    {
        NodeScripts.Find("curl", "curl");
        using var shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", line]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var errors = shell.StandardError.ReadToEndAsync(Ct);
        var output = await shell.StandardOutput.ReadToEndAsync(Ct);
        await shell.WaitForExitAsync(Ct);
        shell.ExitCode.ShouldBe(0, await errors);
        return output;
    }

    [GeneratedRegex(@"http://[^/ ]+")]
    private static partial Regex UrlPattern();

    [GeneratedRegex(@"http://\S+/swagger")]
    private static partial Regex SwaggerPattern();

    [GeneratedRegex(@"\d+$")]
    private static partial Regex DeploymentPattern();
}
