using System.Diagnostics;
using System.Text.Json;
using ModelHost.Cli;
using ModelHost.TestKit;
using ModelHost.Tests.Backends;

namespace ModelHost.Tests.Cli;

/// <summary><c>modelhost jobs</c>, and what the environment says to commands.</summary>
public sealed class JobsCommandTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Jobs_of_models_and_backends_are_listed_in_one_table_and_cancelled()
    {
        await using var gallery = await BackendGallery.StartAsync();
        gallery.Hang("plain/run.sh", 5);
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");
        var none = await RunAsync(host, "jobs");
        using (var failed = await host.Client.PostAsync("/models/apply?wait=true", new StringContent("""{"id":"nothing"}""", System.Text.Encoding.UTF8, "application/json"), Ct))
            failed.EnsureSuccessStatusCode();
        using (var begun = await host.Client.PostAsync("/backends/apply", new StringContent("""{"id":"plain"}""", System.Text.Encoding.UTF8, "application/json"), Ct))
            begun.EnsureSuccessStatusCode();
        var jobs = await Deadline.UntilAsync(() => host.Client.JsonAsync("/backends/jobs"), all => all.EnumerateObject().Any(job => job.Value.TryGetProperty("phase", out var phase) && phase.GetString() == "downloading"));
        var ids = jobs.EnumerateObject().Select(job => job.Name).ToArray();

        var list = await RunAsync(host, "jobs");
        var json = await RunAsync(host, "jobs", "--json");
        var cancel = await RunAsync(host, "jobs", "cancel", ids[1]);
        var after = await RunAsync(host, "jobs");
        var again = await RunAsync(host, "jobs", "cancel", ids[1]);
        var unknown = await RunAsync(host, "jobs", "cancel", "../keys");
        var without = await RunAsync(host, "jobs", "cancel");

        (none.ExitCode, none.Output, none.Error).ShouldBe((0, "", "No jobs.\n"));
        list.ExitCode.ShouldBe(0, list.Error);
        var lines = list.Output.TrimEnd().Split('\n');
        lines.Length.ShouldBe(3);
        lines[0].Split(' ', StringSplitOptions.RemoveEmptyEntries).ShouldBe(["ID", "KIND", "NAME", "STATE", "PROGRESS", "MESSAGE"]);
        lines[1].ShouldStartWith($"{ids[0]}  model.install    nothing  failed   0%        error: no model found with name nothing");
        lines[2].ShouldStartWith($"{ids[1]}  backend.install  plain    running  ");
        list.Error.ShouldBe("2 jobs.\n");
        JsonSerializer.Deserialize<JsonElement>(json.Output).EnumerateObject().Select(job => job.Name).ShouldBe(ids);
        (cancel.ExitCode, cancel.Output, cancel.Error).ShouldBe((0, "", "plain: cancelled\n"));
        after.Output.ShouldContain("  plain    cancelled  ");
        (again.ExitCode, again.Error).ShouldBe((1, $"modelhost: {host.Url} refused: the job has ended already\n"));
        unknown.ExitCode.ShouldBe(1);
        (without.ExitCode, without.Error.EndsWith("See modelhost jobs cancel --help.\n", StringComparison.Ordinal)).ShouldBe((1, true), without.Error);
    }

    [Theory]
    [InlineData("""{"processed":false,"cancelled":false,"phase":"queued"}""", "queued")]
    [InlineData("""{"processed":false,"cancelled":false,"phase":"downloading"}""", "running")]
    [InlineData("""{"processed":false,"cancelled":false}""", "running")]
    [InlineData("""{"processed":true,"cancelled":false}""", "done")]
    [InlineData("""{"processed":true,"cancelled":true}""", "cancelled")]
    [InlineData("""{"processed":true,"cancelled":false,"error":"x"}""", "failed")]
    public void State_is_a_word(string job, string state) => JobsCommand.State(JsonSerializer.Deserialize<JsonElement>(job)).ShouldBe(state);

    [Fact]
    public async Task Address_and_key_of_the_environment_are_taken_by_all_commands()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");
        using var empty = new TestNode();
        Dictionary<string, string> Environment(string key, string? url = null) => new() { ["MODELHOST_URL"] = url ?? host.Url.ToString(), ["MODELHOST_KEY"] = key, ["XDG_DATA_HOME"] = empty.Data };

        foreach (var command in (string[][])[["models", "list"], ["backends", "list"], ["jobs"], ["token", "create"]])
        {
            // a token opens a port for nodes: there the refusal has to do
            var good = command[0] == "token" ? (ExitCode: 0, Output: "", Error: "") : await RunAsync(Environment(host.AdminKey + " "), command);
            var wrong = await RunAsync(Environment("mh_wrong-key-of-tests"), command);

            (good.ExitCode, wrong.ExitCode).ShouldBe((0, 1), $"{string.Join(' ', command)}: {good.Error}{wrong.Error}");
            wrong.Error.ShouldContain(" does not take the key in MODELHOST_KEY. --data names the data folder with its admin key, which goes before it.\n");
            (good.Output + good.Error + wrong.Output + wrong.Error).ShouldNotContain("mh_wrong-key-of-tests");
            (good.Output + good.Error).ShouldNotContain(host.AdminKey);
        }
        var named = await RunAsync(Environment("mh_wrong-key-of-tests"), "jobs", "--data", host.Node.Data);
        var elsewhere = await RunAsync(Environment(host.AdminKey, $"http://127.0.0.1:{TestPorts.Free()}"), "jobs", "--url", host.Url.ToString());

        (named.ExitCode, elsewhere.ExitCode).ShouldBe((0, 0), "options go before the environment");
    }

    [Theory]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("")]
    [InlineData("""{"x":5}""")]
    [InlineData("""{"x":{"processed":true}}""")]
    [InlineData("""{"x":{"processed":1}}""")]
    public async Task What_answers_as_no_control_plane_would_is_told_in_a_line(string answer)
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/models/jobs", System.Text.Encoding.UTF8.GetBytes(answer));
        var url = server.Url("/");

        var (code, output, error) = await RunAsync(new Dictionary<string, string> { ["MODELHOST_URL"] = url, ["MODELHOST_KEY"] = "mh_key-of-tests" }, "jobs");

        (code, output).ShouldBe((1, ""));
        error.ShouldBe($"modelhost: {url} answers something else than ModelHost would: it is none, or of another version. --url says where the control plane listens.\n");
    }

    [Fact]
    public async Task Key_stands_in_no_help_and_no_message()
    {
        const string Key = "mh_secret-of-tests";
        Dictionary<string, string> environment = new() { ["MODELHOST_KEY"] = Key, ["MODELHOST_URL"] = $"http://somebody:{Key}@127.0.0.1:9" };
        (int ExitCode, string Output, string Error)[] said =
        [
            await RunAsync(environment, "jobs", "--help"), await RunAsync(environment, "models", "list", "--help"), await RunAsync(environment, "token", "create", "--help"),
            await RunAsync(environment, "jobs"), await RunAsync(environment, "jobs", "--url", $"http://somebody:{Key}@127.0.0.1:9"),
            await RunAsync(new Dictionary<string, string> { ["MODELHOST_KEY"] = $"{Key}\nX: y", ["MODELHOST_URL"] = "http://127.0.0.1:9" }, "jobs"),
            await RunAsync(new Dictionary<string, string> { ["MODELHOST_KEY"] = Key, ["MODELHOST_URL"] = "gopher" }, "jobs"),
        ];

        said.ShouldAllBe(one => !(one.Output + one.Error).Contains(Key, StringComparison.Ordinal));
        said.Select(one => one.ExitCode).ShouldBe([0, 0, 0, 1, 1, 1, 1]);
        said[0].Output.ShouldContain("MODELHOST_KEY");
        said[3].Error.ShouldBe("modelhost: MODELHOST_URL: an address has no login in it; MODELHOST_KEY in the environment is the key.\n");
        said[5].Error.ShouldBe("modelhost: http://127.0.0.1:9/ was not asked, because what MODELHOST_KEY holds is no key\n");
        said[6].Error.ShouldStartWith("modelhost: MODELHOST_URL: it is no address");
    }

    private static Task<(int ExitCode, string Output, string Error)> RunAsync(ControlPlane host, params string[] arguments) =>
        RunAsync(new Dictionary<string, string>(), [.. arguments, "--url", host.Url.ToString(), "--data", host.Node.Data]);

    private static async Task<(int ExitCode, string Output, string Error)> RunAsync(Dictionary<string, string> environment, params string[] arguments)
    {
        var start = new ProcessStartInfo(ModelHostProcess.Executable, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in environment)
            start.Environment[name] = value;
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync(Ct);
        var error = process.StandardError.ReadToEndAsync(Ct);
        await process.WaitForExitAsync(Ct);
        return (process.ExitCode, await output, await error);
    }
}
