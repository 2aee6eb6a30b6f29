using System.IO.Compression;
using System.Text.Json.Nodes;
using ModelHost.Core.Packages;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>Extra packages, installed by a real pip into an image on a real engine, from wheels made here and from nowhere else.</summary>
public sealed class PackageTests(RealDockerFixture fixture) : IDisposable
{
    private readonly string _wheels = Directory.CreateTempSubdirectory("mh-wheels-").FullName;

    // unlike those of any other test: images are shared by what is in them
    private readonly string _mark = $"mh{Guid.NewGuid():N}"[..10];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public void Dispose() => Directory.Delete(_wheels, recursive: true);

    [Fact]
    public async Task Deployments_with_the_same_packages_share_one_image_whatever_their_order()
    {
        await using var node = await NodeAsync();
        MakeWheel("plugin", "1.0", "told = 'plugin 1.0'", requires: $"{_mark}-dep");
        MakeWheel("dep", "2.0", "told = 'dep 2.0'");
        var other = MakeWheel("other", "1.0", "told = 'other 1.0'");
        await using var host = await StartAsync(node);
        var nodeId = await host.Client.NodeAsync("docker");

        var first = await host.Client.StartModelAsync(Request(node, nodeId, 8101, $"{_mark}-plugin >= 1.0, < 2", other));
        var details = new HashSet<string>();
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{first}"), deployment =>
        {
            details.Add(deployment.Text("detail"));
            return deployment.Status() is "running" or "error";
        }, 180);
        var running = await host.Client.ReachAsync(first, "running");
        var second = await host.Client.RunModelAsync(Request(node, nodeId, 8102, other, $"{_mark.ToUpperInvariant()}_Plugin<2,>=1.0"));
        var containers = await Task.WhenAll((await node.ContainersAsync()).Select(id => node.Client.InspectContainerAsync(id, Ct)));
        var said = await fixture.Docker.CliAsync(Ct, "exec", containers[0].Id, "python3", "-c",
            $"import {_mark}_plugin, {_mark}_dep, {_mark}_other; print({_mark}_plugin.told, {_mark}_dep.told, {_mark}_other.told)");
        var (log, secondLog) = (await host.Client.LogAsync(first), await host.Client.LogAsync(second));
        var image = await node.Client.InspectImageAsync(containers[0].ImageName, Ct);

        details.ShouldContain("building image");
        containers.Select(container => container.Image).Distinct().ShouldHaveSingleItem().ShouldBe(image.Id);
        containers[0].ImageName.ShouldStartWith(PackageImage.Repository + ":");
        said.Trim().ShouldBe("plugin 1.0 dep 2.0 other 1.0");
        running.Text("vllm_version").ShouldBe("0.28.0");
        running.Text("image_digest").ShouldBe(image.Id);
        running.GetProperty("extra_packages").EnumerateArray().Select(package => package.GetString()).ShouldBe([$"{_mark}-plugin >= 1.0, < 2", other]);
        log.ShouldContain(line => line.Contains("[build] Successfully installed", StringComparison.Ordinal));
        secondLog.ShouldAllBe(line => !line.Contains("[build]", StringComparison.Ordinal));

        // nobody removes it but on demand, and only when it is not used
        var mine = new Dictionary<string, string?> { [PackageImage.Label] = image.Labels[PackageImage.Label] };
        (await fixture.PruneAsync(node.Client, mine, danglingOnly: false)).Untagged.ShouldBeEmpty();
        await host.Client.StopModelAsync(first);
        await host.Client.StopModelAsync(second);
        (await node.Client.ListImagesAsync(containers[0].ImageName, Ct)).ShouldHaveSingleItem();
        (await fixture.PruneAsync(node.Client, mine, danglingOnly: false)).Untagged.ShouldBe([containers[0].ImageName]);
    }

    [Fact]
    public async Task Another_wheel_of_the_same_name_is_another_image()
    {
        await using var node = await NodeAsync();
        var wheel = MakeWheel("plugin", "1.0", "told = 'old'");
        await using var host = await StartAsync(node);
        var nodeId = await host.Client.NodeAsync("docker");
        await host.Client.RunModelAsync(Request(node, nodeId, 8101, wheel));
        var old = await node.ContainerAsync();

        MakeWheel("plugin", "1.0", "told = 'new'");
        await host.Client.RunModelAsync(Request(node, nodeId, 8102, wheel));
        var container = await node.Client.InspectContainerAsync((await node.ContainersAsync()).Single(id => id != old.Id), Ct);
        var said = await fixture.Docker.CliAsync(Ct, "exec", container.Id, "python3", "-c", $"import {_mark}_plugin; print({_mark}_plugin.told)");
        await RemoveImagesAsync(node, old.ImageName, container.ImageName);

        said.Trim().ShouldBe("new");
        container.ImageName.ShouldNotBe(old.ImageName);
    }

    [Theory]
    [InlineData("no-such-package==1.0", "No matching distribution found for no-such-package==1.0")]
    [InlineData("absent-1.0-py3-none-any.whl", "there is no absent-1.0-py3-none-any.whl")]
    [InlineData("link-1.0-py3-none-any.whl", "there is no link-1.0-py3-none-any.whl")]
    [InlineData("broken-1.0-py3-none-any.whl", "broken-1.0-py3-none-any.whl")]
    public async Task Package_that_cannot_be_installed_is_the_cause_of_the_failure(string package, string cause)
    {
        await using var node = await NodeAsync();
        await File.WriteAllTextAsync(Path.Combine(_wheels, "broken-1.0-py3-none-any.whl"), "this is no archive", Ct);
        var good = MakeWheel("good", "1.0", "");
        File.CreateSymbolicLink(Path.Combine(_wheels, "link-1.0-py3-none-any.whl"), "/etc/hostname");
        await using var host = await StartAsync(node);

        var id = await host.Client.StartModelAsync(Request(node, await host.Client.NodeAsync("docker"), 8101, good, package));
        var failed = await host.Client.StatusAsync(id, "error");
        var log = await host.Client.LogAsync(id);

        failed.Text("last_error").ShouldContain("extra_packages");
        failed.Text("last_error").ShouldContain(cause);
        log.ShouldContain(line => line.Contains("failed (packages_failed)", StringComparison.Ordinal));
        (await node.ContainersAsync()).ShouldBeEmpty();
        (await BuildsAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Image_without_an_installer_is_the_cause_of_the_failure()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var wheel = MakeWheel("plugin", "1.0", "");
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: [$"Node:WheelFolder={_wheels}", "Node:PackageNoIndex=true"]);

        var id = await host.Client.StartModelAsync(Request(node, await host.Client.NodeAsync("docker"), 8101, wheel));

        (await host.Client.StatusAsync(id, "error")).Text("last_error").ShouldContain("python3");
    }

    [Fact]
    public async Task Stop_ends_the_build_of_the_engine()
    {
        await using var node = await NodeAsync();
        // nobody listens there, and pip tries again and again
        await using var host = await StartAsync(node, "Node:PackageNoIndex=false", "Node:PackageIndexUrl=http://127.0.0.1:9/simple");
        var id = await host.Client.StartModelAsync(Request(node, await host.Client.NodeAsync("docker"), 8101, $"{_mark}-far-away"));
        await Deadline.UntilAsync(BuildsAsync, builds => builds.Length > 0, what: "the build to run");

        await host.Client.StopModelAsync(id);
        await Deadline.UntilAsync(BuildsAsync, builds => builds.Length == 0, what: "the build to end");

        (await node.ContainersAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Build_that_takes_too_long_is_given_up()
    {
        await using var node = await NodeAsync();
        await using var host = await StartAsync(
            node, "Node:PackageNoIndex=false", "Node:PackageIndexUrl=http://127.0.0.1:9/simple", "Node:PackageTimeout=00:00:03");

        var id = await host.Client.StartModelAsync(Request(node, await host.Client.NodeAsync("docker"), 8101, $"{_mark}-far-away"));
        var failed = await host.Client.StatusAsync(id, "error");
        await Deadline.UntilAsync(BuildsAsync, builds => builds.Length == 0, what: "the build to end");

        failed.Text("last_error").ShouldContain("Node:PackageTimeout");
    }

    [Fact]
    public async Task Option_that_the_newest_image_on_the_node_does_not_have_fails_the_run_before_anything_starts()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var repository = $"modelhost-test/engine-{Guid.NewGuid():N}";
        await node.Client.TagImageAsync($"{RealDocker.SimulatorRepository}:{RealDocker.SimulatorTag}", repository, "v0.28.0", Ct);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: $"Node:ImageRepository={repository}");

        var id = await host.Client.StartModelAsync(node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request =>
        {
            request.Remove("vllm_version");
            request["engine_args"] = new JsonObject { ["swap_space"] = 4 };
        }));
        var failed = await host.Client.StatusAsync(id, "error");
        await fixture.Docker.CliAsync(Ct, "rmi", $"{repository}:v0.28.0");

        failed.Text("last_error").ShouldStartWith("engine_args.swap_space: vllm 0.28.0 has no option --swap-space: releases from 0.18.0 on do not have it.");
        (await host.Client.LogAsync(id)).ShouldContain(line => line.Contains("failed (option_unsupported)", StringComparison.Ordinal));
        (await node.ContainersAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Models_and_adapters_on_the_node_are_shown_to_the_engine_under_their_paths_and_read_only()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        var models = Path.Combine(node.Surroundings.Data, "weights");
        foreach (var folder in (string[])["qwen", "qwen/lora", "sql"])
            Directory.CreateDirectory(Path.Combine(models, folder));
        await File.WriteAllTextAsync(Path.Combine(models, "qwen", "config.json"), "{}", Ct);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: $"Node:ModelFolders={models}");
        await host.Client.RunModelAsync(node.Request(await host.Client.NodeAsync("docker"), $"{models}/qwen", change: request =>
        {
            request["engine_args"] = new JsonObject { ["served_model_name"] = EngineNode.NewModel() };
            request["lora_modules"] = new JsonArray(Module("inner", $"{models}/qwen/lora"), Module("sql", $"{models}/sql"));
        }));

        var container = await node.ContainerAsync();
        var read = await fixture.Docker.CliAsync(Ct, "exec", container.Id, "cat", $"{models}/qwen/config.json");
        var write = await Should.ThrowAsync<InvalidOperationException>(fixture.Docker.CliAsync(Ct, "exec", container.Id, "touch", $"{models}/qwen/x"));

        container.Mounts.ShouldBe(
        [
            new(Path.Combine(node.Surroundings.Data, "models", "huggingface"), "/root/.cache/huggingface", ReadOnly: false),
            new($"{models}/qwen", $"{models}/qwen", ReadOnly: true),
            new($"{models}/sql", $"{models}/sql", ReadOnly: true),
        ], ignoreOrder: true);
        read.ShouldBe("{}");
        write.Message.ShouldContain("Read-only");
    }

    private static JsonObject Module(string name, string path) => new() { ["name"] = $"{name}-{Guid.NewGuid():N}", ["path"] = path };

    private static JsonObject Request(EngineNode node, int nodeId, int port, params string[] packages) =>
        node.Request(nodeId, EngineNode.NewModel(), port, request => request["extra_packages"] = new JsonArray([.. packages.Select(package => JsonValue.Create(package))]));

    private async Task<EngineNode> NodeAsync()
    {
        var node = await EngineNode.MakeAsync(fixture);
        var why = await fixture.Docker.NeedPythonAsync();
        Assert.SkipWhen(why is not null, why ?? "");
        return node;
    }

    private Task<ControlPlane> StartAsync(EngineNode node, params string[] configuration) => ControlPlane.StartAsync(node.Surroundings, configuration:
        [$"Node:ImageRepository={RealDocker.PythonRepository}", $"Node:WheelFolder={_wheels}", "Node:PackageNoIndex=true", .. configuration]);

    /// <summary>Commands of the builds of this test that run now.</summary>
    private async Task<string[]> BuildsAsync() =>
        [.. (await fixture.Docker.CliAsync(Ct, "ps", "-a", "--no-trunc", "--format", "{{.Command}}")).Split('\n').Where(command => command.Contains(_mark, StringComparison.Ordinal))];

    private static async Task RemoveImagesAsync(EngineNode node, params string[] images)
    {
        foreach (var image in images)
            await node.Client.RemoveImageAsync(image, force: true, Ct);
    }

    /// <summary>A wheel of this test with one module, <c>MARK_name</c>.</summary>
    private string MakeWheel(string name, string version, string module, string? requires = null)
    {
        var project = $"{_mark}_{name}";
        var file = $"{project}-{version}-py3-none-any.whl";
        var info = $"{project}-{version}.dist-info";
        using var archive = new ZipArchive(File.Create(Path.Combine(_wheels, file)), ZipArchiveMode.Create);
        (string Path, string Text)[] entries =
        [
            ($"{project}.py", module + "\n"),
            ($"{info}/METADATA", $"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n{(requires is null ? "" : $"Requires-Dist: {requires} (>=1) ; python_version >= '3'\n")}"),
            ($"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: modelhost-tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ];
        foreach (var (path, text) in entries.Append(($"{info}/RECORD", string.Concat(entries.Select(entry => entry.Path + ",,\n")) + $"{info}/RECORD,,\n")))
        {
            using var writer = new StreamWriter(archive.CreateEntry(path).Open());
            writer.Write(text);
        }
        return file;
    }
}
