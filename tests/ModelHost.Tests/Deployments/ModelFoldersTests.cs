using System.Text.Json;
using Microsoft.Extensions.Options;
using ModelHost.Agent;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Models and adapters by their path on the node.</summary>
public sealed class ModelFoldersTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("mh-models-").FullName;

    private static NodeIdentity Identity { get; } = new("cluster", "node", "/srv/modelhost");

    private string Allowed => Path.Combine(_root, "allowed");

    public ModelFoldersTests()
    {
        foreach (var folder in (string[])["allowed/qwen/sub", "allowed-too", "secret/model"])
            Directory.CreateDirectory(Path.Combine(_root, folder));
        File.WriteAllText(Path.Combine(Allowed, "tiny.gguf"), "x");
        File.CreateSymbolicLink(Path.Combine(Allowed, "link"), Path.Combine(_root, "secret/model"));
        File.CreateSymbolicLink(Path.Combine(Allowed, "inner"), Path.Combine(Allowed, "qwen"));
        File.CreateSymbolicLink(Path.Combine(Allowed, "dangling"), "nowhere");
        File.CreateSymbolicLink(Path.Combine(_root, "way"), Allowed);
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Theory]
    [InlineData("allowed/qwen")]
    [InlineData("allowed/qwen/sub")]
    [InlineData("allowed/tiny.gguf")]
    [InlineData("allowed")]
    public void What_lies_in_an_allowed_folder_is_taken(string path) => Resolve(Path.Combine(_root, path)).ShouldBe([Path.Combine(_root, path)]);

    [Theory]
    [InlineData("secret/model", "in none of the folders")]
    [InlineData("allowed-too", "in none of the folders")]
    [InlineData("allowed/../secret/model", "'.' or '..'")]
    [InlineData("allowed//qwen", "no plain absolute path")]
    [InlineData("allowed/link", "symbolic link")]
    [InlineData("allowed/link/sub", "symbolic link")]
    [InlineData("allowed/inner", "symbolic link")]
    [InlineData("allowed/inner/sub", "symbolic link")]
    [InlineData("allowed/dangling", "symbolic link")]
    [InlineData("allowed/absent", "not on the node")]
    public void What_leads_out_of_it_or_nowhere_is_not(string path, string reason)
    {
        var full = $"{_root}/{path}";

        Refused(() => Resolve(full)).ShouldBe($"model_name: {full} ", reason);
        Refused(() => Resolve("org/model", full)).ShouldBe($"lora_modules: {full} ", reason);
    }

    [Fact]
    public void A_folder_reached_by_a_link_is_to_be_named_itself()
    {
        var folders = new ModelFolders(new NodeOptions { ModelFolders = Path.Combine(_root, "way") }, Identity);

        Refused(() => folders.Resolve(Spec(Path.Combine(_root, "way", "qwen")))).ShouldBe("model_name: ", "symbolic link");
    }

    [Fact]
    public void A_link_laid_after_the_first_start_is_found_at_the_next()
    {
        var path = Path.Combine(Allowed, "qwen");
        Resolve(path);

        Directory.Move(path, path + "-old");
        File.CreateSymbolicLink(path, Path.Combine(_root, "secret/model"));

        Refused(() => Resolve(path)).ShouldBe("model_name: ", "symbolic link");
    }

    [Fact]
    public void Each_path_is_shown_once_and_none_within_another()
    {
        var qwen = Path.Combine(Allowed, "qwen");

        Resolve(qwen, qwen + "/sub", Path.Combine(Allowed, "tiny.gguf"), qwen, "org/lora").ShouldBe([qwen, Path.Combine(Allowed, "tiny.gguf")]);
        Resolve("org/model").ShouldBeEmpty();
    }

    [Fact]
    public void A_file_that_an_option_names_is_shown_and_judged_as_a_model_is()
    {
        var recipe = JsonSerializer.SerializeToElement(new { extends = "vllm", image = "a/b:1", file_options = new[] { "chat-template" } });
        var folders = new ModelFolders(new NodeOptions { ModelFolders = Allowed }, Identity);
        LaunchSpec With(string path) => Spec("org/model") with { Backend = "other", Recipe = recipe, EngineArgs = new Dictionary<string, JsonElement> { ["chat_template"] = JsonSerializer.SerializeToElement(path) } };

        folders.Resolve(With(Path.Combine(Allowed, "tiny.gguf"))).ShouldBe([Path.Combine(Allowed, "tiny.gguf")]);
        Refused(() => folders.Resolve(With("/etc/passwd"))).ShouldBe("chat_template: /etc/passwd ", "in none of the folders");
    }

    [Fact]
    public void Without_folders_no_path_is_taken() =>
        Refused(() => new ModelFolders(new NodeOptions(), Identity).Resolve(Spec("/etc/passwd"))).ShouldBe("model_name: /etc/passwd ", "allows none");

    [Theory]
    [InlineData("Node:ModelFolders=models")]
    [InlineData("Node:ModelFolders=/")]
    [InlineData("Node:ModelFolders=/srv/../etc")]
    [InlineData("Node:ModelFolders=/srv/models,~/models")]
    [InlineData("Node:ModelFolders=/srv/my models")]
    [InlineData("Node:PackageIndexUrl=ftp://x")]
    [InlineData("Node:PackageIndexUrl=index.example/simple")]
    [InlineData("Node:PackageTimeout=00:00:00")]
    public async Task A_setting_that_cannot_be_is_refused_at_start(string setting)
    {
        var failure = await Should.ThrowAsync<OptionsValidationException>(ControlPlane.StartAsync(configuration: setting));

        failure.Message.ShouldContain(setting);
    }

    [Fact]
    public async Task The_login_of_an_index_is_refused_and_not_shown()
    {
        var failure = await Should.ThrowAsync<OptionsValidationException>(ControlPlane.StartAsync(configuration: "Node:PackageIndexUrl=https://me:s3cret@index.example/simple"));

        failure.Message.ShouldContain("Node:PackageIndexUrl");
        failure.Message.ShouldNotContain("s3cret");
    }

    private IReadOnlyList<string> Resolve(string model, params string[] adapters) =>
        new ModelFolders(new NodeOptions { ModelFolders = $"/srv/not/there, {Allowed}/" }, Identity).Resolve(Spec(model, adapters));

    private static LaunchSpec Spec(string model, params string[] adapters) =>
        new() { ModelName = model, Owner = "tests", LoraModules = [.. adapters.Select((path, i) => new LoraModule($"lora-{i}", path))] };

    private static Refusal Refused(Action resolve)
    {
        var failure = Should.Throw<RuntimeException>(resolve).Failure.ShouldNotBeNull();
        failure.Code.ShouldBe("model_path");
        return new(failure.Message);
    }

    private sealed record Refusal(string Message)
    {
        public void ShouldBe(string beginning, string reason)
        {
            Message.ShouldStartWith(beginning);
            Message.ShouldContain(reason);
        }
    }
}
