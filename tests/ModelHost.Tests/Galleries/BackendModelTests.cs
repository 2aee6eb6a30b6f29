using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Features.Galleries;
using ModelHost.TestKit;
using ModelHost.Tests.Backends;
using ModelHost.Tests.Cluster;

namespace ModelHost.Tests.Galleries;

/// <summary>Models of backends that nodes do not have yet.</summary>
public sealed class BackendModelTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_backend_that_a_model_needs_is_installed_with_it_once()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var files = await FileServer.StartAsync();
        files.Put("/w.gguf", FileServer.Bytes(10_000));
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");

        var job = await ApplyAsync(host, "echo", files);

        job.Message.ShouldBe("completed; not used with backend echo: roles, template.chat");
        (job.Processed, job.Progress, job.Error, job.Nodes!.Single().Status).ShouldBe((true, 100, null, "success"));
        File.Exists(Path.Combine(host.Node.Data, "backends", "cpu-echo", "run.sh")).ShouldBeTrue();
        var deployment = (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().ShouldHaveSingleItem();
        (deployment.GetProperty("backend").GetString(), deployment.GetProperty("status").GetString(), deployment.GetProperty("start_on_demand").GetBoolean()).ShouldBe(("echo", "stopped", true));
        deployment.GetProperty("model_name").GetString().ShouldBe(Path.Combine(host.Node.Data, "models", "tiny", "w.gguf"));
        deployment.GetProperty("engine_args").GetRawText().ShouldBe("""{"temperature":0.1,"context_size":4096,"gpu_layers":0,"served_model_name":"tiny"}""");
        (await host.Client.JsonAsync("/v1/models")).GetProperty("data").EnumerateArray().Single().GetProperty("id").GetString().ShouldBe("tiny");
        (await host.Client.JsonAsync("/backends")).EnumerateArray().Select(one => one.GetProperty("Name").GetString()).ShouldBe(["cpu-echo", "echo"]);

        gallery.Break("cpu-echo/run.sh");
        (await ApplyAsync(host, "echo", files)).Error.ShouldBeNull("it is there");
    }

    [Theory]
    [InlineData("nowhere", "backend nowhere, which tiny needs, could not be installed: no backend found with name \"nowhere\"")]
    [InlineData("boxed", "boxed of the gallery own is an image")]
    [InlineData("broken", "backend broken, which tiny needs, could not be installed")]
    public async Task A_backend_that_cannot_be_installed_fails_the_model_before_anything_of_it_is_there(string backend, string reason)
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var files = await FileServer.StartAsync();
        files.Put("/w.gguf", FileServer.Bytes(10_000));
        gallery.Serve($$"""
            - {name: boxed, uri: 'oci://127.0.0.1:9/boxed:1', recipe: {extends: vllm, name: boxed, image: 127.0.0.1:9/boxed, runtimes: [docker]} }
            - {name: broken, uri: '{{gallery.At("nothing/run.sh")}}'}
            """);
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");

        var job = await ApplyAsync(host, backend, files);

        job.Error.ShouldNotBeNull().ShouldContain(reason);
        files.Requests.ShouldBeEmpty();
        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
        Directory.Exists(Path.Combine(host.Node.Data, "models", "tiny")).ShouldBeFalse();
    }

    [Fact]
    public async Task Each_node_gets_the_build_that_is_for_it()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var files = await FileServer.StartAsync();
        files.Put("/w.gguf", FileServer.Bytes(10_000));
        await using var cluster = await TestCluster.StartAsync(null, [.. gallery.Configuration, "Galleries:Capabilities:gpu-1=nvidia-cuda-13"]);
        await using var agent = await cluster.AgentAsync();
        var other = await cluster.StatusAsync("gpu-1", "online");

        var job = await ApplyAsync(cluster.Host, "echo", files, other);

        job.Error.ShouldBeNull();
        File.Exists(Path.Combine(agent.Node.Data, "backends", "cuda-echo", "run.sh")).ShouldBeTrue();
        File.Exists(Path.Combine(agent.Node.Data, "models", "tiny", "w.gguf")).ShouldBeTrue();
        Directory.Exists(Path.Combine(cluster.Host.Node.Data, "backends", "cpu-echo")).ShouldBeFalse("it was not asked for there");
        (await cluster.Host.Client.JsonAsync("/api/deployments")).EnumerateArray().ShouldHaveSingleItem().GetProperty("node_id").GetInt32().ShouldBe(other);
    }

    private static async Task<JobStatus> ApplyAsync(ControlPlane host, string backend, FileServer files, params int[] nodes)
    {
        using var answer = await host.Client.PostAsJsonAsync("/models/apply?wait=true", new JsonObject
        {
            ["name"] = "tiny",
            ["nodes"] = new JsonArray([.. nodes.Select(node => JsonValue.Create(node))]),
            ["config_file"] = new JsonObject
            {
                ["backend"] = backend,
                ["context_size"] = 4096,
                ["gpu_layers"] = 0,
                ["roles"] = new JsonObject { ["user"] = "User:" },
                ["parameters"] = new JsonObject { ["model"] = "w.gguf", ["temperature"] = 0.1 },
                ["template"] = new JsonObject { ["chat"] = "{{.Input}}" },
            },
            ["files"] = new JsonArray(new JsonObject { ["filename"] = "w.gguf", ["uri"] = files.Url("/w.gguf") }),
        }, Ct);
        return (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("job").Deserialize<JobStatus>(GalleryJson.Options)!;
    }
}
