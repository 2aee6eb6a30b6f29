using System.Diagnostics;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using ModelHost.Cli;
using ModelHost.TestKit;
using ModelHost.Tests.Backends;

namespace ModelHost.Tests.Cli;

/// <summary><c>modelhost models</c> and <c>modelhost backends</c> against a running control plane.</summary>
public sealed class GalleryCommandTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Backends_are_listed_installed_and_removed_with_exit_codes()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");

        var before = await RunAsync(host, "backends", "list");
        var install = await RunAsync(host, "backends", "install", "own@plain");
        var after = await RunAsync(host, "backends", "list", "--installed");
        var json = await RunAsync(host, "backends", "list", "--json");
        var later = await RunAsync(host, "backends", "install", "plain", "--node", "1", "--force", "--json");
        var unknown = await RunAsync(host, "backends", "install", "nothing");
        var noNode = await RunAsync(host, "backends", "install", "plain", "--node", "nowhere");
        var address = await RunAsync(host, "backends", "install", "plain", "--no-wait");
        await Deadline.UntilAsync(() => host.Client.JsonAsync("/backends/jobs"), jobs => jobs.EnumerateObject().All(job => job.Value.GetProperty("processed").GetBoolean()));
        var remove = await RunAsync(host, "backends", "remove", "plain", "--node", "1");
        var again = await RunAsync(host, "backends", "remove", "plain");

        before.ExitCode.ShouldBe(0, before.Error);
        before.Output.ShouldStartWith("  plain     A plain one\n  echo\n");
        before.Error.ShouldBe("3 backends; * is installed.\n");
        install.ExitCode.ShouldBe(0, install.Error);
        install.Output.ShouldBeEmpty();
        // no terminal: lines, and no bar
        install.Error.ShouldEndWith("100% completed\nown@plain: completed\n");
        install.Error.ShouldNotContain('\r');
        after.Output.ShouldBe("* plain  1.0\n");
        JsonSerializer.Deserialize<JsonElement>(json.Output).GetArrayLength().ShouldBe(3);
        (later.ExitCode, later.Error).ShouldBe((0, ""));
        JsonSerializer.Deserialize<JsonElement>(later.Output).GetProperty("message").GetString().ShouldBe("completed");
        unknown.ExitCode.ShouldBe(1);
        unknown.Error.ShouldEndWith("modelhost: no backend found with name \"nothing\"\n");
        noNode.ExitCode.ShouldBe(1);
        noNode.Error.ShouldStartWith($"modelhost: {host.Url} refused: nodes: nowhere is none");
        address.Output.ShouldStartWith($"{host.Url}backends/jobs/");
        remove.ExitCode.ShouldBe(0, remove.Error);
        (again.ExitCode, again.Error.Contains("plain is not installed on any node", StringComparison.Ordinal)).ShouldBe((1, true));
    }

    [Fact]
    public async Task Models_are_listed_and_failures_told()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");

        var list = await RunAsync(host, "models", "list");
        var none = await RunAsync(host, "models", "list", "--installed");
        var unknown = await RunAsync(host, "models", "install", "nothing");
        var remove = await RunAsync(host, "models", "remove", "nothing");
        var wrong = await RunAsync(host, "models", "instal", "x");
        var elsewhere = await RunAsync($"http://127.0.0.1:{TestPorts.Free()}", host.Node.Data, "models", "list");

        (list.ExitCode, list.Output.Contains("  qwen3-8b", StringComparison.Ordinal)).ShouldBe((0, true), list.Error);
        (none.ExitCode, none.Output, none.Error).ShouldBe((0, "", "No models are installed.\n"));
        (unknown.ExitCode, unknown.Error.Contains("no model found with name nothing", StringComparison.Ordinal)).ShouldBe((1, true), unknown.Error);
        remove.ExitCode.ShouldBe(1);
        wrong.ExitCode.ShouldBe(1);
        wrong.Error.ShouldEndWith("See modelhost models --help.\n");
        (elsewhere.ExitCode, elsewhere.Error.Contains("/ does not answer: Connection refused. Is modelhost serve running? --url says where it listens.", StringComparison.Ordinal)).ShouldBe((1, true), elsewhere.Error);
        elsewhere.Error.ShouldNotContain(host.AdminKey);
    }

    [Fact]
    public async Task What_is_wrong_with_key_or_address_is_told_with_the_option_that_helps()
    {
        await using var host = await ControlPlane.StartAsync();
        using var other = new TestNode();
        Directory.CreateDirectory(other.Data);
        var file = Path.Combine(other.Data, "admin-key");
        await File.WriteAllTextAsync(file, "mh_admin_of-another", Ct);
        await using var page = await FileServer.StartAsync();
        page.Put("/models/available", "<html>"u8.ToArray());

        var wrongKey = await RunAsync(host.Url.ToString(), other.Data, "models", "list");
        var noModelHost = await RunAsync(page.Address.ToString(), host.Node.Data, "models", "list");

        wrongKey.ExitCode.ShouldBe(1);
        wrongKey.Error.ShouldBe($"modelhost: {host.Url} does not take the key in {file}. --data names the data folder with its admin key.\n");
        noModelHost.ExitCode.ShouldBe(1);
        noModelHost.Error.ShouldEndWith("is no ModelHost: what it answers is not JSON. --url says where the control plane listens.\n");
    }

    [Fact]
    public async Task Who_leaves_a_job_is_told_that_it_goes_on_and_what_ends_it()
    {
        await using var files = await FileServer.StartAsync();
        files.Put("/w.gguf", FileServer.Bytes(100_000));
        files.Files["/w.gguf"].HoldAfter = 50_000;
        files.Put("/models.yaml", System.Text.Encoding.UTF8.GetBytes($$"""- {name: tiny, config_file: {backend: simulator}, files: [{filename: w.gguf, uri: '{{files.Url("/w.gguf")}}'}]}"""));
        await using var host = await ControlPlane.StartAsync(null, "http://127.0.0.1:0", null, "Galleries:Models:0:Name=own", $"Galleries:Models:0:Url={files.Url("/models.yaml")}");
        await host.Client.NodeAsync("process");

        using var process = Start(host.Url.ToString(), host.Node.Data, "models", "install", "tiny");
        var job = (await Deadline.UntilAsync(() => host.Client.JsonAsync("/models/jobs"), jobs => jobs.EnumerateObject().Any(one => one.Value.GetProperty("phase").GetString() == "downloading"))).EnumerateObject().Single();
        while (await process.StandardError.ReadLineAsync(Ct) is { } line && !line.Contains("downloading", StringComparison.Ordinal))
        {
        }
        // it takes both alike; the other one may be ignored by whoever runs the tests, and is then by what they start
        using (var kill = Process.Start("kill", ["-TERM", $"{process.Id}"]))
            await kill.WaitForExitAsync(Ct);
        var error = await process.StandardError.ReadToEndAsync(Ct);
        await process.WaitForExitAsync(Ct);
        var status = await host.Client.JsonAsync($"/models/jobs/{job.Name}");

        error.ShouldEndWith($"modelhost: interrupted; the job goes on. modelhost jobs cancel {job.Name} ends it.\n");
        process.ExitCode.ShouldBe(1);
        status.GetProperty("processed").GetBoolean().ShouldBeFalse();
    }

    [Fact]
    public async Task A_control_plane_that_starts_again_is_waited_for()
    {
        var url = new Uri($"http://127.0.0.1:{TestPorts.Free()}");
        using var client = new ServerClient(url, "/nowhere");
        using var output = new StringWriter();
        var lines = TextWriter.Synchronized(output); // it locks itself
        var following = JobProgress.FollowAsync(client, "models/jobs/x", lines, isPlain: true, Ct);
        await Deadline.UntilAsync(() =>
        {
            lock (lines)
                return output.ToString().Length > 0;
        });

        var builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseUrls(url.ToString());
        await using var app = builder.Build();
        app.MapGet("/models/jobs/x", () => Results.Text("""{"processed": true, "progress": 100, "message": "completed"}"""));
        await app.StartAsync(Ct);
        var status = await following;

        status.GetProperty("message").GetString().ShouldBe("completed");
        output.ToString().ShouldBe("the control plane does not answer; it is waited for\n100% completed\n");
    }

    [Fact]
    public async Task A_list_says_which_gallery_is_missing_from_it()
    {
        await using var host = await ControlPlane.StartAsync(null, "http://127.0.0.1:0", null, "Galleries:Models:0:Name=away", "Galleries:Models:0:Url=file://galleries/away.yaml");
        await host.Client.NodeAsync("process");

        var list = await RunAsync(host, "models", "list");

        (list.ExitCode, list.Output).ShouldBe((0, ""), list.Error);
        list.Error.ShouldStartWith("No models are offered.\nThe gallery away could not be read the last time: file://galleries/away.yaml: there is no such file");
    }

    [Fact]
    public async Task Models_are_installed_and_removed()
    {
        await using var files = await FileServer.StartAsync();
        var weights = files.Put("/w.gguf", FileServer.Bytes(100_000));
        files.Put("/models.yaml", System.Text.Encoding.UTF8.GetBytes($$"""
            - {name: tiny, config_file: {backend: simulator}, files: [{filename: w.gguf, uri: '{{files.Url("/w.gguf")}}', sha256: {{weights.Sha256}}}]}
            - {name: broken, config_file: {backend: simulator}, files: [{filename: w.gguf, uri: '{{files.Url("/w.gguf")}}', sha256: {{new string('0', 64)}}}]}
            """));
        await using var host = await ControlPlane.StartAsync(null, "http://127.0.0.1:0", null, "Galleries:Models:0:Name=own", $"Galleries:Models:0:Url={files.Url("/models.yaml")}");
        await host.Client.NodeAsync("process");
        var path = Path.Combine(host.Node.Data, "models", "tiny", "w.gguf");

        var install = await RunAsync(host, "models", "install", "own@tiny");
        var lies = File.Exists(path);
        var list = await RunAsync(host, "models", "list", "--installed");
        var broken = await RunAsync(host, "models", "install", "broken");
        var remove = await RunAsync(host, "models", "remove", "tiny");
        var after = await RunAsync(host, "models", "list", "--installed");

        install.ExitCode.ShouldBe(0, install.Error);
        install.Error.ShouldEndWith("100% completed\nown@tiny: completed\n");
        lies.ShouldBeTrue();
        list.Output.ShouldStartWith("* tiny");
        (broken.ExitCode, broken.Error.Contains("SHA-256", StringComparison.Ordinal)).ShouldBe((1, true), broken.Error);
        remove.ExitCode.ShouldBe(0, remove.Error);
        File.Exists(path).ShouldBeFalse();
        after.Output.ShouldBeEmpty();
    }

    [Theory]
    [InlineData(0, "", "", "[                              ]   0% queued")]
    [InlineData(50, "512.0 MiB", "1.0 GiB", "[===============               ]  50% w.gguf 512.0 MiB of 1.0 GiB")]
    [InlineData(100, "512.0 MiB", "", "[==============================] 100% w.gguf 512.0 MiB")]
    public void Bar_shows_how_far_it_is(double progress, string done, string all, string bar) => JobProgress.Bar(JsonSerializer.SerializeToElement(new
    {
        processed = false,
        progress,
        message = "queued",
        downloaded_size = done,
        file_size = all,
        file_name = "w.gguf",
    })).ShouldBe(bar);

    [Fact]
    public void Bar_shows_all_nodes_where_there_are_several_and_which_is_waited_for()
    {
        JsonElement Status(bool processed) => JsonSerializer.SerializeToElement(new
        {
            processed,
            progress = 30,
            message = "processing file",
            downloaded_size = "1.0 GiB",
            file_size = "",
            file_name = "w.gguf",
            nodes = (object[])[new { node_name = "gpu-1", status = "downloading", percentage = 60.4 }, new { node_name = "gpu-2", status = "downloading", percentage = 0, error = "the node does not answer" }],
        });

        JobProgress.Bar(Status(false)).ShouldBe("[=========                     ]  30% gpu-1 60%, gpu-2 0%; gpu-2: the node does not answer");
        JobProgress.Bar(Status(true)).ShouldBe("[=========                     ]  30%");
    }

    private static Task<(int ExitCode, string Output, string Error)> RunAsync(ControlPlane host, params string[] arguments) => RunAsync(host.Url.ToString(), host.Node.Data, arguments);

    private static async Task<(int ExitCode, string Output, string Error)> RunAsync(string url, string data, params string[] arguments)
    {
        using var process = Start(url, data, arguments);
        var output = process.StandardOutput.ReadToEndAsync(Ct);
        var error = process.StandardError.ReadToEndAsync(Ct);
        await process.WaitForExitAsync(Ct);
        return (process.ExitCode, await output, await error);
    }

    private static Process Start(string url, string data, params string[] arguments) =>
        Process.Start(new ProcessStartInfo(ModelHostProcess.Executable, [.. arguments, "--url", url, "--data", data]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
}
