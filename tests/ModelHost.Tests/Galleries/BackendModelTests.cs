using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Features.Deployments;
using ModelHost.Features.Galleries;
using ModelHost.TestKit;
using ModelHost.Tests.Backends;
using ModelHost.Tests.Cluster;
using ModelHost.Tests.Deployments;

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

    [Fact]
    public async Task A_backend_with_a_recipe_is_installed_with_its_model_and_started_by_the_first_request()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var files = await FileServer.StartAsync();
        files.Put("/w.gguf", FileServer.Bytes(10_000));
        gallery.Serve(Family("1.0", "first_words"));
        await using var host = await ControlPlane.StartAsync(configuration: [.. gallery.Configuration, "Gateway:HoldTimeout=00:02:00"]);
        await host.Client.NodeAsync("process");

        var job = await ApplyAsync(host, "family", files, Eyes);

        job.Message.ShouldBe("completed; not used with backend family: gpu_layers, roles, parameters.temperature, template.chat");
        var deployment = await OnlyAsync(host);
        var folder = Path.Combine(host.Node.Data, "models", "tiny");
        (deployment.Text("backend"), deployment.Text("status"), deployment.Text("model_name")).ShouldBe(("family", "stopped", Path.Combine(folder, "w.gguf")));
        deployment.GetProperty("engine_args").GetRawText().ShouldBe($$"""{"max_model_len":4096,"chat_template":"{{folder}}/eyes.gguf","served_model_name":"tiny"}""");
        (await host.Client.JsonAsync("/backends")).EnumerateArray().Select(one => one.Text("Name")).ShouldBe(["family", "other"]);
        await ChatAsync(host);
        var id = deployment.GetProperty("id").GetInt32();
        await host.Client.StatusAsync(id, "running");

        (await ApplyAsync(host, "family", files, Eyes)).Error.ShouldBeNull("it goes on");
        (await OnlyAsync(host)).Text("status").ShouldBe("running");
        await host.Client.PostedAsync($"/{id}/start-on-demand", new JsonObject { ["start_on_demand"] = false });
        await host.Client.StopModelAsync(id);
        // what the node has goes before what galleries offer
        gallery.Serve($"- {{name: family, description: changed, uri: '{gallery.At("nothing/run.sh")}'}}");
        await Deadline.UntilAsync(() => host.Client.GetStringAsync("/backends/available", Ct), text => text.Contains("changed", StringComparison.Ordinal));
        (await ApplyAsync(host, "family", files, Eyes)).Error.ShouldBeNull("it is there");
        (await OnlyAsync(host)).GetProperty("id").GetInt32().ShouldBe(id, "nothing is new");
        (await SpecAsync(host, id)).ShouldContain("first_words");

        gallery.Serve(Family("2.0", "later_words"));
        await Deadline.UntilAsync(async () =>
        {
            using var upgraded = await host.Client.PostAsync(new Uri("/backends/upgrade/other?wait=true", UriKind.Relative), null, Ct);
            return await host.Client.JsonAsync("/backends");
        }, list => list.GetRawText().Contains("\"2.0\"", StringComparison.Ordinal), what: "the upgrade");
        (await ApplyAsync(host, "family", files, Eyes)).Error.ShouldBeNull();
        var next = (await OnlyAsync(host)).GetProperty("id").GetInt32();
        (await SpecAsync(host, next)).ShouldContain("later_words");
        await ChatAsync(host);
        await host.Client.StopModelAsync(next);
    }

    [Theory]
    [InlineData("nowhere", "backend nowhere, which tiny needs, could not be installed: no backend found with name \"nowhere\"")]
    [InlineData("boxed", "has no runtime for backend 'boxed': needed docker")]
    [InlineData("greedy", "greedy cannot be started as its gallery says: ")]
    [InlineData("SIMILAR", "the gallery own calls it similar")]
    [InlineData("similar", "'seed' is set by ModelHost", """{"engine_args":{"seed":1}}""")]
    [InlineData("similar", "mmproj: names none of the model's files", """{"mmproj":"elsewhere.gguf"}""")]
    [InlineData("broken", "backend broken, which tiny needs, could not be installed")]
    public async Task A_backend_that_cannot_be_installed_fails_the_model_before_anything_of_it_is_there(string backend, string reason, string overrides = "{}")
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var files = await FileServer.StartAsync();
        files.Put("/w.gguf", FileServer.Bytes(10_000));
        gallery.Serve($$"""
            - {name: boxed, uri: 'oci://127.0.0.1:9/boxed:1', recipe: {extends: vllm, name: boxed, image: 127.0.0.1:9/boxed, runtimes: [docker]} }
            - {name: broken, uri: '{{gallery.At("nothing/run.sh")}}'}
            - {name: greedy, recipe: {extends: simulator, name: greedy, privileged: true} }
            - {name: similar, recipe: {extends: simulator, name: similar, denied_options: [seed], config_options: {mmproj: chat_template}, file_options: [chat_template]} }
            """);
        await using var host = await gallery.HostAsync();
        await host.Client.NodeAsync("process");

        var job = await ApplyAsync(host, backend, files, model => model["overrides"] = JsonNode.Parse(overrides));

        job.Error.ShouldNotBeNull().ShouldContain(reason);
        (await host.Client.JsonAsync("/backends")).GetArrayLength().ShouldBe(0);
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

        var job = await ApplyAsync(cluster.Host, "echo", files, [other]);

        job.Error.ShouldBeNull();
        File.Exists(Path.Combine(agent.Node.Data, "backends", "cuda-echo", "run.sh")).ShouldBeTrue();
        File.Exists(Path.Combine(agent.Node.Data, "models", "tiny", "w.gguf")).ShouldBeTrue();
        Directory.Exists(Path.Combine(cluster.Host.Node.Data, "backends", "cpu-echo")).ShouldBeFalse("it was not asked for there");
        (await cluster.Host.Client.JsonAsync("/api/deployments")).EnumerateArray().ShouldHaveSingleItem().GetProperty("node_id").GetInt32().ShouldBe(other);
    }

    [Fact]
    public async Task Nodes_with_different_builds_are_served_in_one_job_each_in_its_own_way()
    {
        await using var gallery = await BackendGallery.StartAsync();
        await using var files = await FileServer.StartAsync();
        files.Put("/w.gguf", FileServer.Bytes(10_000));
        gallery.Serve($$"""
            - {name: both, capabilities: {default: both-image, nvidia: both-folder} }
            - {name: both-image, recipe: {extends: simulator, name: both-image} }
            - {name: both-folder, uri: '{{gallery.At("plain/run.sh")}}'}
            """);
        await using var cluster = await TestCluster.StartAsync(null, [.. gallery.Configuration, "Galleries:Capabilities:gpu-1=nvidia-cuda-13"]);
        await using var agent = await cluster.AgentAsync();
        var other = await cluster.StatusAsync("gpu-1", "online");
        var own = (await cluster.Host.Client.JsonAsync("/api/nodes")).EnumerateArray().Single(node => node.GetProperty("id").GetInt32() != other);

        var job = await ApplyAsync(cluster.Host, "both", files, [own.GetProperty("id").GetInt32(), other]);

        job.Error.ShouldBeNull();
        job.Message.ShouldBe($"completed; on {own.Text("hostname")} not used with backend both: gpu_layers, roles, parameters.temperature, template.chat; on gpu-1 not used with backend both: roles, template.chat");
        var deployments = (await cluster.Host.Client.JsonAsync("/api/deployments")).EnumerateArray().ToDictionary(one => one.GetProperty("node_id").GetInt32(), one => one.GetProperty("engine_args").GetRawText());
        deployments[own.GetProperty("id").GetInt32()].ShouldBe("""{"max_model_len":4096,"served_model_name":"tiny"}""");
        deployments[other].ShouldBe("""{"temperature":0.1,"context_size":4096,"gpu_layers":0,"served_model_name":"tiny"}""");
        File.Exists(Path.Combine(agent.Node.Data, "backends", "both-folder", "run.sh")).ShouldBeTrue();
        Directory.Exists(Path.Combine(cluster.Host.Node.Data, "backends", "both-folder")).ShouldBeFalse();
    }

    /// <summary>A family of one backend that is started as the simulator is, and fails in words of its own.</summary>
    private static string Family(string version, string code) => $$"""
        - {name: family, capabilities: {default: other} }
        - name: other
          version: '{{version}}'
          recipe:
            extends: simulator
            name: other
            config_options: {context_size: max_model_len, mmproj: chat_template}
            file_options: [chat_template]
            failures: [{code: {{code}}, patterns: [nothing], message: As the gallery says.}]
        """;

    private static void Eyes(JsonObject model)
    {
        model["overrides"] = new JsonObject { ["mmproj"] = "eyes.gguf" };
        model["files"]!.AsArray().Add(new JsonObject { ["filename"] = "eyes.gguf", ["uri"] = model["files"]![0]!["uri"]!.GetValue<string>() });
    }

    private static async Task<JsonElement> OnlyAsync(ControlPlane host) => (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().ShouldHaveSingleItem();

    private static async Task<string> SpecAsync(ControlPlane host, int id) => (await host.Services.GetRequiredService<DeploymentReads>().FindSpecAsync(id, Ct))!.ToJson();

    private static async Task ChatAsync(ControlPlane host)
    {
        using var chat = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("tiny", maxTokens: 3), Ct);
        ((int)chat.StatusCode).ShouldBe(200, await chat.Content.ReadAsStringAsync(Ct));
    }

    private static Task<JobStatus> ApplyAsync(ControlPlane host, string backend, FileServer files, Action<JsonObject>? change = null) => ApplyAsync(host, backend, files, [], change);

    private static async Task<JobStatus> ApplyAsync(ControlPlane host, string backend, FileServer files, int[] nodes, Action<JsonObject>? change = null)
    {
        var model = new JsonObject
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
        };
        change?.Invoke(model);
        using var answer = await host.Client.PostAsJsonAsync("/models/apply?wait=true", model, Ct);
        return (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("job").Deserialize<JobStatus>(GalleryJson.Options)!;
    }
}
