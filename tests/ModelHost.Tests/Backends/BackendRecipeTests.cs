using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.Core.Backends;
using ModelHost.Features.Backends;
using ModelHost.Features.Galleries;
using ModelHost.TestKit;

namespace ModelHost.Tests.Backends;

/// <summary>Backends whose gallery says how they are started: deployments use them, and keep to what they were started with.</summary>
public sealed class BackendRecipeTests
{
    // started with flags of its own, and understood by words of its own
    private const string Recipe = """
        {"name": "other", "extends": "simulator", "tensor_parallel": "", "lora": [], "denied_options": ["model", "port", "seed"],
         "arguments": ["--port", "{engine_port}", "--host", "127.0.0.1", "--served-model-name={served_name}", "--model={model}"],
         "metrics": {"requests": ["vllm:request_success_total"]}, "failures": [{"code": "words_of_its_own", "final": true, "patterns": ["unrecognized arguments"], "message": "As its recipe says."}]}
        """;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Installed_recipe_starts_engines_that_keep_it_through_restart_upgrade_and_deletion()
    {
        await using var gallery = await BackendGallery.StartAsync();
        gallery.Serve(Index("1.0", Recipe));
        using var surroundings = new TestNode();
        int id;
        string run;
        await using (var first = await gallery.HostAsync(surroundings))
        {
            var node = await first.Client.NodeAsync("process");
            await InstallAsync(first.Client, "/api/nodes/1/backends/install?wait=true");
            var denied = await StartAsync(first.Client, node, "engine_args", """{"seed": 1}""");
            id = await first.Client.StartModelAsync(Api.StartRequest(node, backend: "other"));
            await first.Client.StatusAsync(id, "running");
            run = await RunAsync(first.Client, id);

            (denied.Status, denied.Body.GetProperty("code").GetString()).ShouldBe((400, "deployment.option_denied"));
        }
        // the node's own records go: what it has left is what the engine was started with
        Directory.Delete(Path.Combine(surroundings.Data, "runs"), recursive: true);
        gallery.Serve(Index("2.0", Recipe.Replace("words_of_its_own", "other_words", StringComparison.Ordinal)));
        await using var host = await gallery.HostAsync(surroundings);
        await host.Client.NodeAsync("process");
        await host.Client.StatusAsync(id, "running");
        using var chat = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 3), Ct);
        var metered = await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), one => one.GetProperty("total_requests").GetInt64() > 0);
        await InstallAsync(host.Client, "/api/nodes/1/backends/upgrade?wait=true");
        var same = await RunAsync(host.Client, id);
        var (inUse, why) = await PostAsync(host.Client, "/api/nodes/1/backends/delete", """{"backend":"other"}""");
        await host.Client.StopModelAsync(id);
        var (deleted, _) = await PostAsync(host.Client, "/api/nodes/1/backends/delete", """{"backend":"other"}""");
        var (unknown, reason) = await StartAsync(host.Client, 1);
        using var again = await host.Client.PostAsJsonAsync($"/api/deployments/{id}/restart", new { owner = "tests" }, Ct);
        await host.Client.StatusAsync(id, "running");

        chat.StatusCode.ShouldBe(HttpStatusCode.OK);
        metered.GetProperty("backend").GetString().ShouldBe("other");
        (unknown, reason.GetRawText().Contains("POST /api/nodes/1/backends/install", StringComparison.Ordinal)).ShouldBe((400, true), reason.GetRawText());
        same.ShouldBe(run, "an upgrade touches nothing that runs");
        (inUse, why.GetProperty("code").GetString()).ShouldBe((409, "backend.in_use"));
        deleted.ShouldBe(200);
        again.StatusCode.ShouldBe(HttpStatusCode.OK, await again.Content.ReadAsStringAsync(Ct));
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Failures_are_told_in_the_words_of_the_recipe()
    {
        await using var gallery = await BackendGallery.StartAsync();
        gallery.Serve(Index("1.0", Recipe));
        await using var host = await gallery.HostAsync();
        var node = await host.Client.NodeAsync("process");
        await InstallAsync(host.Client, "/api/nodes/1/backends/install?wait=true");

        var id = await host.Client.StartModelAsync(Api.StartRequest(node, backend: "other", change: request => request["extra_args"] = new System.Text.Json.Nodes.JsonArray("--no-such-option")));
        var failed = await host.Client.StatusAsync(id, "error");

        failed.GetProperty("error_code").GetString().ShouldBe("words_of_its_own", failed.GetRawText());
    }

    [Theory]
    [InlineData("""{"extends":"simulator","protocol":"grpc"}""", "protocol")]
    [InlineData("""{"extends":"simulator","command":["/bin/sh","-c","id"]}""", "command")]
    [InlineData("""{"extends":"simulator","allowed_variable_prefixes":[]}""", "allowed_variable_prefixes")]
    [InlineData("""{"extends":"simulator","allowed_variable_prefixes":["LD_"]}""", "allowed_variable_prefixes")]
    [InlineData("""{"extends":"simulator","ready_path":"//169.254.169.254/latest"}""", "ready_path")]
    [InlineData("""{"extends":"simulator","metrics_path":"http://elsewhere/"}""", "metrics_path")]
    [InlineData("""{"extends":"simulator","metrics_path":"/\\elsewhere"}""", "metrics_path")]
    [InlineData("""{"extends":"simulator","key_variable":"LD_PRELOAD"}""", "key_variable")]
    [InlineData("""{"extends":"simulator","gpu_variable":"PATH"}""", "gpu_variable")]
    [InlineData("""{"extends":"simulator","arguments":["--port","8000"]}""", "engine_port")]
    [InlineData("""{"extends":"simulator","failures":[{"code":"x","patterns":["(a)\\1"]}]}""", "regular expression")]
    [InlineData("""{"extends":"simulator","failures":null}""", "null")]
    [InlineData("""{"extends":"simulator","runtimes":["external"]}""", "runtimes")]
    [InlineData("""{"extends":"simulator","device":"/dev/mem"}""", "device")]
    [InlineData("""{"extends":"vllm","image":"--privileged"}""", "image")]
    [InlineData("""{"extends":"vllm","cache_mount":"/../etc"}""", "cache_mount")]
    [InlineData("""{"extends":"vllm","mounts":["/:/host"]}""", "mounts")]
    [InlineData("""{"extends":"vllm","privileged":true}""", "privileged")]
    [InlineData("""{"extends":"vllm","network_mode":"host"}""", "network_mode")]
    [InlineData("""{"extends":"vllm","config_options":{"context_size":"--max-model-len"}}""", "config_options")]
    [InlineData("""{"extends":"vllm","config_options":{"context size":"max_model_len"}}""", "config_options")]
    [InlineData("""{"extends":"vllm","config_options":{"a.b.c":"max_model_len"}}""", "config_options")]
    [InlineData("""{"extends":"vllm","config_options":{"a":{"b":"max_model_len"}}}""", "")]
    [InlineData("""{"extends":"vllm","config_options":["a"]}""", "")]
    [InlineData("""{"extends":"vllm","config_implied":{"../f16":true}}""", "config_implied")]
    [InlineData("""{"extends":"vllm","config_implied":{"f16":"a\u0007"}}""", "config_implied")]
    [InlineData("""{"extends":"vllm","file_options":["a b"]}""", "file_options")]
    [InlineData("""{"extends":"vllm","file_options":["--chat-template"]}""", "file_options")]
    [InlineData("""{"extends":"../../etc/passwd"}""", "no recipe")]
    [InlineData("[1]", "")]
    [InlineData("a: &a [1]", "")]
    public void Recipe_that_says_more_than_it_may_is_refused(string recipe, string why) =>
        Should.Throw<RecipeException>(() => RecipeRules.Read("x", recipe)).Message.ShouldContain(why);

    [Fact]
    public void Fields_of_configurations_are_bounded_and_the_public_name_is_never_a_flag()
    {
        string Recipe(int fields) => $$$"""{"extends":"vllm","control_options":[],"config_options":{{{{string.Join(',', Enumerable.Range(0, fields).Select(i => $"\"f{i}\":\"seed\""))}}}}}""";

        RecipeRules.Read("x", Recipe(96)).ControlOptions.ShouldBe(["served_model_name"]);
        Should.Throw<RecipeException>(() => RecipeRules.Read("x", Recipe(97))).Message.ShouldContain("config_options");
    }

    [Theory]
    [InlineData("\"/srv/eyes.gguf\"", true)]
    [InlineData("\"/srv/../eyes.gguf\"", false)]
    [InlineData("\"/srv/my eyes.gguf\"", false)]
    [InlineData("[\"/srv/eyes.gguf\"]", false)]
    [InlineData("null", true)]
    public void Option_for_a_file_takes_a_plain_path(string value, bool isTaken)
    {
        var options = new Dictionary<string, JsonElement> { ["mmproj"] = JsonSerializer.Deserialize<JsonElement>(value) };

        (EngineRequestRules.Check(GalleryRecipes.Of("llama-cpp-cpu"), options, [], []) is null).ShouldBe(isTaken);
    }

    [Fact]
    public void What_is_installed_under_a_name_says_how_it_is_started()
    {
        InstalledBackend[] rows =
        [
            new() { Name = "image", Alias = "kin", Uri = "a/b:2", Recipe = """{"extends":"vllm","image":"a/b"}""", Details = """{"form":1}""" },
            new() { Name = "family", MetaBackendFor = "image" }, new() { Name = "mine", MetaBackendFor = "vllm" }, new() { Name = "folder", Uri = "x" },
        ];
        (string Name, string Protocol, string Image) Found(string name, string version = "") =>
            BackendRecipes.Choose(rows, name, version).Match(found => (found.Recipe.Name, found.Recipe.Protocol, found.Recipe.Image), failure => (failure.Code, "", ""));

        foreach (var name in (string[])["image", "kin", "family"])
            Found(name).ShouldBe((name, "openai", "a/b:2"));
        Found("kin", "3").Image.ShouldBe("a/b:3");
        Found("mine").ShouldBe(("vllm", "openai", "vllm/vllm-openai"));
        Found("folder").ShouldBe(("folder", "grpc", ""));
        Found("nothing").Protocol.ShouldBe("grpc");
        Found("../x").Name.ShouldBe("validation");
    }

    [Fact]
    public void Recipe_of_a_deployment_is_judged_where_it_is_used_and_goes_with_it()
    {
        var spec = new Core.Deployments.LaunchSpec { ModelName = "m", Owner = "o", Backend = "other", Recipe = JsonSerializer.SerializeToElement(new { extends = "vllm", image = "a/b:1", device = "cpu" }) };
        var back = Core.Deployments.LaunchSpec.FromJson(spec.ToJson());
        var recipe = BackendCatalogue.Of(back).ShouldNotBeNull();

        (recipe.Name, recipe.Image, recipe.Device, recipe.ReadyPath).ShouldBe(("other", "a/b:1", "cpu", "/health"));
        BackendCatalogue.Of(back).ShouldBeSameAs(recipe);
        BackendCatalogue.Of(spec with { Recipe = JsonSerializer.SerializeToElement(new { extends = "vllm", image = "--bad" }) }).ShouldBeNull();
        // nobody takes the place of a backend that every node knows
        BackendCatalogue.Of(spec with { Backend = "vllm" }).ShouldBeNull();
        EngineCommandLine.Arguments(RecipeRules.Read("x", """{"extends":"vllm","arguments":["--alias","{served_name}","{engine_port}"]}"""), spec with { EngineArgs = new Dictionary<string, JsonElement> { ["served_model_name"] = JsonSerializer.SerializeToElement("public") } }, 41000)
            .ShouldBe(["--alias", "public", "41000"]);
    }

    [Fact]
    public void Recipes_of_the_own_gallery_keep_the_rules_and_give_each_engine_its_flags()
    {
        var recipes = GalleryRecipes.Read();
        string Line(string name) => string.Join(' ', EngineCommandLine.Arguments(recipes[name], new Core.Deployments.LaunchSpec
        {
            ModelName = "org/model",
            Owner = "o",
            GpuMemoryFraction = 0.5,
            TensorParallelSize = 2,
            EngineArgs = new Dictionary<string, JsonElement> { ["served_model_name"] = JsonSerializer.SerializeToElement("public") },
        }, 41000));

        recipes.ToDictionary(recipe => recipe.Key, recipe => recipe.Value.Device).ShouldBe(new Dictionary<string, string>
        {
            ["vllm-cuda"] = "nvidia",
            ["vllm-rocm"] = "amd",
            ["vllm-cpu"] = "cpu",
            ["sglang"] = "nvidia",
            ["llama-cpp-cuda"] = "nvidia",
            ["llama-cpp-rocm"] = "amd",
            ["llama-cpp-cpu"] = "cpu",
            ["embeddings-cuda"] = "nvidia",
            ["embeddings-cpu"] = "cpu",
        }, ignoreOrder: true);
        Line("sglang").ShouldBe("--model-path org/model --host 127.0.0.1 --port 41000 --mem-fraction-static 0.5 --served-model-name public --enable-metrics --tp-size 2");
        Line("llama-cpp-cuda").ShouldBe("--model org/model --host 127.0.0.1 --port 41000 --alias public --n-gpu-layers 999 --metrics");
        Line("embeddings-cpu").ShouldBe("--model-id org/model --hostname 127.0.0.1 --port 41000");
        Line("vllm-rocm").ShouldBe("--model org/model --host 127.0.0.1 --port 41000 --gpu-memory-utilization 0.5 --served-model-name public org/model --tensor-parallel-size 2");
        Line("vllm-cpu").ShouldBe("--model org/model --host 127.0.0.1 --port 41000 --served-model-name public org/model --tensor-parallel-size 2");
    }

    private static string Index(string version, string recipe) => $"- {{name: other, version: '{version}', recipe: {recipe.ReplaceLineEndings(" ")}}}";

    private static async Task InstallAsync(HttpClient client, string path)
    {
        // the gallery is asked anew after a second
        var (status, body) = await PostAsync(client, path, """{"backend":"other"}""");
        status.ShouldBe(202, body.GetRawText());
        body.GetProperty("job").GetProperty("message").GetString().ShouldBe("completed", body.GetRawText());
    }

    private static Task<(int Status, JsonElement Body)> StartAsync(HttpClient client, int node, string? field = null, string json = "{}") =>
        PostAsync(client, "/api/deployments/start", Api.StartRequest(node, 8109, "demo/another", "other", request =>
        {
            if (field is not null)
                request[field] = System.Text.Json.Nodes.JsonNode.Parse(json);
        }).ToJsonString());

    private static async Task<string> RunAsync(HttpClient client, int id) => (await client.JsonAsync($"/api/deployments/{id}/runs"))[0].GetProperty("id").GetString()!;

    private static async Task<(int Status, JsonElement Body)> PostAsync(HttpClient client, string path, string body)
    {
        using var answer = await client.PostAsync(path, new StringContent(body, System.Text.Encoding.UTF8, "application/json"), Ct);
        return ((int)answer.StatusCode, JsonSerializer.Deserialize<JsonElement>(await answer.Content.ReadAsStringAsync(Ct)));
    }
}
