using System.Diagnostics;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Docs;

/// <summary>The commands of the documentation, run as they are printed.</summary>
public sealed partial class DocumentationTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Every_command_of_the_quickstart_works_in_its_order()
    {
        using var node = new TestNode();
        await using var host = ModelHostProcess.Start("serve", "--demo", "--data", node.Data, "--urls", "http://127.0.0.1:0", $"Node:DockerHost={node.DockerHost}",
            $"Node:EnginePortFirst={node.Ports.First}", $"Node:EnginePortLast={node.Ports.Last}");
        await Deadline.UntilAsync(() => host.Output.Any(line => line.StartsWith("ModelHost is ready", StringComparison.Ordinal)), what: "the demo to be ready");
        await host.ListeningAsync();
        var page = await File.ReadAllTextAsync(Path.Combine(RealDocker.RepositoryRoot, "docs", "quickstart.md"), Ct);
        var blocks = ShellBlocks().Matches(page).Select(block => block.Groups["commands"].Value).ToArray();

        blocks.Length.ShouldBeGreaterThan(4);
        foreach (var commands in blocks)
        {
            // an answer that is no success fails the command, as a reader would see
            var script = "set -e\ncurl() { command curl -sS --fail-with-body \"$@\"; echo; }\n"
                + commands.Replace("127.0.0.1:8000", host.Url.Authority, StringComparison.Ordinal);
            var (exitCode, output) = await ShellAsync(script);
            exitCode.ShouldBe(0, $"{commands}\n{output}");
        }

        await EnginesGoneAsync(node);
    }

    [Fact]
    public async Task The_example_walks_through_the_whole_life_of_a_deployment()
    {
        using var node = new TestNode();
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        using (var client = new HttpClient { BaseAddress = host.Url })
            await client.NodeAsync("process");
        var script = Path.Combine(RealDocker.RepositoryRoot, "docs", "examples", "deployments.sh");
        File.GetUnixFileMode(script).HasFlag(UnixFileMode.UserExecute).ShouldBeTrue();

        var (exitCode, output) = await ShellAsync($"MODELHOST_URL=http://{host.Url.Authority} exec sh {script}");

        exitCode.ShouldBe(0, output);
        foreach (var step in (string[])["/start", "/served-name/check", "/plan", "/manifest", "/stop/", "/restart", "/extend", "/pin", "/from-manifest", "/runs", "/logs?", "/logs/download", "DELETE "])
            output.ShouldContain(step);
        Directory.GetFiles(Path.Combine(node.Data, "engines")).ShouldBeEmpty();
    }

    [Fact]
    public async Task The_example_of_keys_works_without_keys_before_and_with_others_beside()
    {
        using var node = new TestNode();
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        using var client = new HttpClient { BaseAddress = host.Url };
        await client.NodeAsync("process");
        var script = Path.Combine(RealDocker.RepositoryRoot, "docs", "examples", "keys.sh");
        File.GetUnixFileMode(script).HasFlag(UnixFileMode.UserExecute).ShouldBeTrue();

        foreach (var others in (int[])[0, 1])
        {
            for (var i = 0; i < others; i++)
                (await client.PostAsJsonAsync("/api/api-keys", new { label = "other" }, Ct)).EnsureSuccessStatusCode();
            var (exitCode, output) = await ShellAsync($"MODELHOST_URL=http://{host.Url.Authority} exec sh {script}");

            exitCode.ShouldBe(0, output);
            output.ShouldContain("PATCH /api-keys/");
            output.ShouldNotMatch("mh_(sk|tmp)_[0-9a-f]{48}");
            output.Contains("acknowledge_open_gateway", StringComparison.Ordinal).ShouldBe(others == 0);
            (await client.JsonAsync("/api/api-keys")).GetArrayLength().ShouldBe(others);
        }
        Directory.GetFiles(Path.Combine(node.Data, "engines")).ShouldBeEmpty();
    }

    [Fact]
    public async Task The_example_of_the_monitor_works()
    {
        using var node = new TestNode();
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        using var client = new HttpClient { BaseAddress = host.Url };
        var id = await client.StartModelAsync(Api.StartRequest(await client.NodeAsync("process")));
        await client.StatusAsync(id, "running");
        var script = Path.Combine(RealDocker.RepositoryRoot, "docs", "examples", "monitor.sh");
        File.GetUnixFileMode(script).HasFlag(UnixFileMode.UserExecute).ShouldBeTrue();

        var (exitCode, output) = await ShellAsync($"MODELHOST_URL=http://{host.Url.Authority} MODEL=demo/tiny-chat exec sh {script}");

        exitCode.ShouldBe(0, output);
        output.Split("{\"state\":2,").Length.ShouldBe(4, output);
        output.ShouldContain("\"loaded_models\":[{\"id\":\"demo/tiny-chat\"");
        output.ShouldEndWith("{\"message\":\"model stopped\"}\n");
        await EnginesGoneAsync(node);
    }

    [Fact]
    public async Task The_example_of_stores_works()
    {
        using var node = new TestNode();
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        var script = Path.Combine(RealDocker.RepositoryRoot, "docs", "examples", "stores.sh");
        File.GetUnixFileMode(script).HasFlag(UnixFileMode.UserExecute).ShouldBeTrue();

        var (exitCode, output) = await ShellAsync($"MODELHOST_URL=http://{host.Url.Authority} exec sh {script}");

        exitCode.ShouldBe(0, output);
        foreach (var step in (string[])["/set", "/find", "/get", "/delete"])
            output.ShouldContain(step);
    }

    [Fact]
    public async Task The_example_of_galleries_installs_a_backend_and_a_model_and_chats_with_it()
    {
        await NeedGrpcAsync();
        using var node = new TestNode();
        await using var images = await ImageServer.StartAsync();
        var files = images.Files;
        // as LocalAI's are: an image whose layer is the backend's folder
        var source = Path.Combine(RealDocker.RepositoryRoot, "tests", "bench", "backends", "python-backend");
        images.Push("backends/small", "1.0", Archives.Gzip(Archives.Tar(
            [.. Directory.GetFiles(source).Order(StringComparer.Ordinal).Select(path => Archives.File(Path.GetFileName(path), File.ReadAllBytes(path), File.GetUnixFileMode(path)))])));
        files.Put("/backends.yaml", Encoding.UTF8.GetBytes($"- {{name: small, version: '1.0', uri: 'oci://{images.Host}/backends/small:1.0'}}\n"));
        files.Put("/models.yaml", "- {name: tiny, config_file: {backend: small, parameters: {model: demo/tiny-chat}}}\n"u8.ToArray());
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free(), "Galleries:Backends:0:Name=own", $"Galleries:Backends:0:Url={files.Url("/backends.yaml")}",
            "Galleries:Models:0:Name=own", $"Galleries:Models:0:Url={files.Url("/models.yaml")}", $"Downloads:InsecureRegistries={images.Host}");
        using var client = new HttpClient { BaseAddress = host.Url };
        var id = await client.NodeAsync("process");
        var script = Path.Combine(RealDocker.RepositoryRoot, "docs", "examples", "gallery.sh");
        File.GetUnixFileMode(script).HasFlag(UnixFileMode.UserExecute).ShouldBeTrue();

        var (exitCode, output) = await ShellAsync($"MODELHOST_URL=http://{host.Url.Authority} NODE={id} BACKEND=small MODEL=own@tiny exec sh {script}");
        var (failed, reason) = await ShellAsync($"MODELHOST_URL=http://{host.Url.Authority} NODE={id} BACKEND=nothing exec sh {script}");

        exitCode.ShouldBe(0, output + string.Join('\n', host.Output));
        output.ShouldContain("\"chat.completion\"");
        // what the backend says, and nothing else does
        output.ShouldContain("user: Hello!", customMessage: output[output.IndexOf("chat.completion", StringComparison.Ordinal)..]);
        output.ShouldContain("backend installation started");
        output.ShouldContain("backend deleted");
        (await client.GetStringAsync("/backends", Ct)).ShouldBe("[]");
        failed.ShouldNotBe(0);
        reason.ShouldContain("no backend found with name");
        await EnginesGoneAsync(node);
    }

    [Fact]
    public async Task What_the_page_on_galleries_lays_into_the_data_folder_is_installed_without_a_network_and_chats()
    {
        await NeedGrpcAsync();
        var page = await File.ReadAllTextAsync(Path.Combine(RealDocker.RepositoryRoot, "docs", "galleries.md"), Ct);
        var section = page[page.IndexOf("### Without a network", StringComparison.Ordinal)..page.IndexOf("## Models", StringComparison.Ordinal)];
        var files = YamlBlocks().Matches(section).ToDictionary(block => block.Groups["path"].Value, block => block.Groups["yaml"].Value);
        var commands = section.Split('\n').Where(line => line.StartsWith("$ ", StringComparison.Ordinal)).Select(line => line[2..]).ToArray();
        using var node = new TestNode();
        foreach (var folder in (string[])["galleries", "packages"])
            Directory.CreateDirectory(Path.Combine(node.Data, folder));
        foreach (var (path, yaml) in files)
            await File.WriteAllTextAsync(Path.Combine(node.Data, path), yaml, Ct);
        await File.WriteAllTextAsync(Path.Combine(node.Data, "packages", "tiny.gguf"), "GGUF", Ct);
        await File.WriteAllBytesAsync(Path.Combine(node.Data, "packages", "chatter.tar"), SavedBackend(), Ct);
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free(), commands[0].Split(' ')[2..]);
        using var client = new HttpClient { BaseAddress = host.Url };
        await client.NodeAsync("process");

        var (installed, progress) = await ShellAsync($"exec {commands[1].Replace("modelhost ", $"{ModelHostProcess.Executable} ", StringComparison.Ordinal)} --url http://{host.Url.Authority} --data {node.Data}");
        var (chatted, answer) = await ShellAsync($"exec {commands[2].Replace("curl localhost:8000", $"curl -sS --fail-with-body http://{host.Url.Authority}", StringComparison.Ordinal)}");

        files.Keys.Order().ShouldBe(["galleries/backends.yaml", "galleries/index.yaml"]);
        commands.Length.ShouldBe(3);
        installed.ShouldBe(0, progress + string.Join('\n', host.Output));
        progress.ShouldEndWith("tiny: completed\n");
        chatted.ShouldBe(0, answer + string.Join('\n', host.Output));
        answer.ShouldContain("user: Hello!");
        foreach (var deployment in (await client.JsonAsync("/api/deployments")).EnumerateArray())
            await client.StopModelAsync(deployment.GetProperty("id").GetInt32());
    }

    // an image of one layer, which is the backend's folder, as docker save writes it
    private static byte[] SavedBackend()
    {
        var source = Path.Combine(RealDocker.RepositoryRoot, "tests", "bench", "backends", "python-backend");
        var layer = Archives.Tar([.. Directory.GetFiles(source).Order(StringComparer.Ordinal).Select(path => Archives.File(Path.GetFileName(path), File.ReadAllBytes(path), File.GetUnixFileMode(path)))]);
        var digest = Convert.ToHexStringLower(SHA256.HashData(layer));
        var config = $$$"""{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:{{{digest}}}"]}}""";
        var name = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(config)));
        return Archives.Tar(
            Archives.File($"{name}.json", config),
            Archives.File($"{digest}/layer.tar", layer),
            Archives.File("manifest.json", $$$"""[{"Config":"{{{name}}}.json","RepoTags":["chatter:1"],"Layers":["{{{digest}}}/layer.tar"]}]"""));
    }

    private static Task EnginesGoneAsync(TestNode node) =>
        Deadline.UntilAsync(() => Directory.GetFiles(Path.Combine(node.Data, "engines")).Length == 0, what: "the engines to be gone");

    private static async Task NeedGrpcAsync()
    {
        Assert.SkipWhen(!File.Exists("/usr/bin/python3"), "there is no /usr/bin/python3: install the package python3-grpcio");
        var (code, _) = await ShellAsync("exec /usr/bin/python3 -c 'import grpc, google.protobuf'");
        Assert.SkipWhen(code != 0, "there is no grpcio for /usr/bin/python3: install the packages python3-grpcio and python3-protobuf");
    }

    private static async Task<(int ExitCode, string Output)> ShellAsync(string script)
    {
        using var shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", script]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var output = shell.StandardOutput.ReadToEndAsync(Ct);
        var errors = shell.StandardError.ReadToEndAsync(Ct);
        await shell.WaitForExitAsync(Ct);
        return (shell.ExitCode, await output + await errors);
    }

    [GeneratedRegex("^```sh\n(?<commands>.*?)^```", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex ShellBlocks();

    [GeneratedRegex("`(?<path>galleries/[a-z]+\\.yaml)`[^\n]*:\n\n```yaml\n(?<yaml>.*?)^```", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex YamlBlocks();
}
