using System.Net;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Manifests: what they hold, and what is started from them. <c>MODELHOST_WRITE_GOLDEN=1</c> writes the files beside this one anew.</summary>
public sealed class ManifestTests
{
    private const string Everything = """
        "engine_args": {"max_model_len": 32768, "served_model_name": "chat", "enforce_eager": true, "seed": -1, "revision": "main", "rope_theta": 1.50,
          "hf_overrides": {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "chat_template": "{{ a }} \"quoted\" <ü> $HOME; rm -rf /",
          "allowed_origins": ["https://a.example", "*"], "limit-mm-per-prompt": {"image": 2}, "enable_prefix_caching": false},
        "extra_args": ["--max-num-seqs", "7", "-O3", "--note=a \"b\" 'c' ü"],
        "lora_modules": [{"name": "sql", "path": "org/sql-lora"}, {"name": "poems", "path": "org/poems-lora"}],
        "env_vars": [{"key": "HF_TOKEN", "value": "hush-hush"}, {"key": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}],
        "tensor_parallel_size": 2, "gpu_ids": [0, 2], "vllm_version": "0.9.1", "max_failed_restarts": 4, "duration_seconds": 600, "pinned": true, "start_on_demand": true
        """;

    // the keys of the published manifest; the backend and the start on demand are ours
    private static readonly string[] Keys =
    [
        "manifest_version", "deployment_id", "model", "served_model_name", "revision", "seed", "vllm_version", "image_digest", "container_runtime", "backend",
        "engine_args", "extra_args", "extra_packages", "lora_modules", "env_var_keys", "gpu", "node", "owner", "created_at", "duration_seconds", "start_on_demand", "status",
    ];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task An_export_imported_again_renders_the_same_command_line_byte_for_byte()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host, gpus: 3);
        var first = await PostAsync(host, "/start", $$"""{"node_id": {{node.Id}}, "model_name": "Qwen/Qwen3-8B", "port": 8101, "gpu_memory_fraction": 0.45, "owner": "team ü", "backend": "simulator", {{Everything}}}""");
        await node.ChangeAsync(first, row => row.ImageDigest = "sha256:abc");

        var text = await host.Client.GetStringAsync(new Uri($"/api/deployments/{first}/manifest", UriKind.Relative), Ct);
        await node.SetAsync(first, DeploymentStatus.Stopped);
        var second = await PostAsync(host, "/from-manifest", $$"""{"manifest": {{text}}, "node_id": {{node.Id}}, "port": 8102, "owner": "another", "env_vars": [{"key": "HF_TOKEN", "value": "other"}]}""");

        Matches("manifest.json", Stable(text));
        var specs = new[] { (await node.RowAsync(first)).ReadSpec(), (await node.RowAsync(second)).ReadSpec() };
        foreach (var spec in specs)
            Matches("manifest.command.txt", string.Concat(EngineCommandLine.Arguments(BackendCatalogue.BuiltIn["simulator"], spec, 41000).Select(argument => argument + "\n")));
        (specs[1].EngineVersion, specs[1].GpuMemoryFraction, specs[1].TensorParallelSize).ShouldBe(("0.9.1", 0.45, 2));
        specs[1].GpuIds.ShouldBe([0, 2]);
        specs[1].EnvVarKeys.ShouldBe(["HF_TOKEN"]);
        ((await node.RowAsync(second)).StartOnDemand, specs[1].StartOnDemand).ShouldBe((true, true));
        // placement, lease and owner are the request's; pin and restarts the new deployment's own
        (specs[1].Port, specs[1].Owner, specs[1].DurationSeconds, specs[1].Pinned, specs[1].MaxFailedRestarts).ShouldBe((8102, "another", null, false, null));
    }

    [Fact]
    public async Task Every_key_is_in_every_export_and_no_value_of_a_variable()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host, gpus: 2);
        var plain = await host.Client.StartModelAsync(Api.StartRequest(node.Id, change: r => r["env_vars"] = new JsonArray(new JsonObject { ["key"] = "HF_TOKEN", ["value"] = "hush-hush" })));

        var manifest = await host.Client.JsonAsync($"/api/deployments/{plain}/manifest");

        manifest.EnumerateObject().Select(key => key.Name).ShouldBe(Keys);
        manifest.GetProperty("env_var_keys").ToString().ShouldBe("""["HF_TOKEN"]""");
        manifest.ToString().ShouldNotContain("hush-hush");
        manifest.ToString().ShouldNotContain("****");
        foreach (var absent in (string[])["served_model_name", "revision", "seed", "vllm_version", "image_digest", "duration_seconds"])
            manifest.GetProperty(absent).ValueKind.ShouldBe(JsonValueKind.Null, absent);
        foreach (var empty in (string[])["extra_args", "extra_packages", "lora_modules"])
            manifest.GetProperty(empty).GetArrayLength().ShouldBe(0, empty);
        // GPUs that were chosen are chosen again
        manifest.GetProperty("gpu").ToString().ShouldBe("""{"ids":[],"memory_fraction":0.4,"tensor_parallel_size":null,"names":["GPU model 0"]}""");
        manifest.GetProperty("node").ToString().ShouldBe("""{"hostname":"quiet"}""");
    }

    [Fact]
    public async Task The_version_that_ran_is_the_version_exported()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        await node.ChangeAsync(id, row => row.EngineVersion = "0.28.0");

        (await host.Client.JsonAsync($"/api/deployments/{id}/manifest")).Text("vllm_version").ShouldBe("0.28.0");
    }

    [Theory]
    [InlineData("""{}""", "manifest.manifest_version")]
    [InlineData("""{"manifest_version":2,"model":7}""", "manifest.manifest_version")]
    [InlineData("""{"manifest_version":"1"}""", "manifest.manifest_version")]
    [InlineData("""{"manifest_version":1}""", "manifest.model")]
    [InlineData("""{"manifest_version":1,"model":""}""", "manifest.model")]
    [InlineData("""{"manifest_version":1,"model":7}""", "manifest.model")]
    [InlineData("""{"manifest_version":1,"model":"/etc/passwd","gpu":{"memory_fraction":0.5}}""", "manifest.model")]
    [InlineData("""{"manifest_version":1,"model":"a/b"}""", "manifest.gpu")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{}}""", "manifest.gpu.memory_fraction")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":"0.5"}}""", "manifest.gpu.memory_fraction")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":1.5}}""", "manifest.gpu.memory_fraction")]
    [InlineData("""{"manifest_version":1,"model":"a/b","backend":"simulator","gpu":{"memory_fraction":0.5,"ids":[7]}}""", "manifest.gpu.ids")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5,"tensor_parallel_size":0}}""", "manifest.gpu.tensor_parallel_size")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"engine_args":[]}""", "manifest.engine_args")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"engine_args":{"a b":1}}""", "manifest.engine_args")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"extra_args":["x"]}""", "manifest.extra_args")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"lora_modules":[{"name":"a","path":"/x"}]}""", "manifest.lora_modules")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"vllm_version":"a b"}""", "manifest.vllm_version")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"served_model_name":"x"}""", "manifest.served_model_name")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"seed":1,"engine_args":{"seed":2}}""", "manifest.seed")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"modle":"x"}""", "manifest.modle")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5,"idz":[0]}}""", "manifest.gpu.idz")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"seed":"\ud800","engine_args":{"seed":"\ud800"}}""", "manifest.engine_args")]
    [InlineData("""{"manifest_version":1,"model":"a/b","gpu":{"memory_fraction":0.5},"start_on_demand":"yes"}""", "manifest.start_on_demand")]
    [InlineData("[]", "manifest")]
    [InlineData("null", "manifest")]
    [InlineData("\"manifest\"", "manifest")]
    public async Task What_is_no_manifest_is_refused_by_the_name_of_the_fault(string manifest, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);

        using var content = new StringContent($$"""{"manifest":{{manifest}},"node_id":{{node.Id}},"port":8109,"owner":"tests"}""", Encoding.UTF8, "application/json");

        await host.Client.PostAsync(new Uri("/api/deployments/from-manifest", UriKind.Relative), content, Ct).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);

        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
    }

    [Theory]
    [InlineData("node_id", "null", "node_id")]
    [InlineData("port", "80", "port")]
    [InlineData("owner", "null", "owner")]
    [InlineData("owner", "\" \"", "owner")]
    [InlineData("duration_seconds", "0", "duration_seconds")]
    [InlineData("env_vars", "[{\"key\":\"HF_TOKEN\",\"value\":\"********\"}]", "env_vars")]
    [InlineData("env_vars", "[{\"key\":\"HF_TOKEN\"}]", "env_vars[0].value")]
    [InlineData("gpu_ids", "[0]", "gpu_ids")]
    public async Task The_rest_of_the_request_is_checked_as_a_start_is(string field, string value, string named)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var request = Request(node.Id, JsonNode.Parse("""{"manifest_version":1,"model":"a/b","backend":"simulator","gpu":{"memory_fraction":0.5}}"""));
        request[field] = JsonNode.Parse(value);

        await host.Client.PostAsync("/from-manifest", request).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", named);
    }

    [Fact]
    public async Task A_manifest_is_refused_for_what_stands_as_a_start_is()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        var manifest = JsonNode.Parse(await host.Client.GetStringAsync(new Uri($"/api/deployments/{id}/manifest", UriKind.Relative), Ct));

        await host.Client.PostAsync("/from-manifest", Request(node.Id, manifest!.DeepClone())).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.name_taken");
        await host.Client.PostAsync("/from-manifest", Request(987, manifest.DeepClone())).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "node.not_found");
        await host.Client.GetAsync(new Uri("/api/deployments/987/manifest", UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "deployment.not_found");
        await node.ChangeAsync(id, row => row.Spec = """{"version":99}""");
        await host.Client.GetAsync(new Uri($"/api/deployments/{id}/manifest", UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.newer");
    }

    private static JsonObject Request(int node, JsonNode? manifest) => new() { ["manifest"] = manifest, ["node_id"] = node, ["port"] = 8109, ["owner"] = "tests" };

    private static async Task<int> PostAsync(ControlPlane host, string path, string json)
    {
        using var content = new StringContent(json, Encoding.UTF8, "application/json");
        using var answer = await host.Client.PostAsync(new Uri("/api/deployments" + path, UriKind.Relative), content, Ct);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK, text);
        return JsonDocument.Parse(text).RootElement.Id();
    }

    private static string Stable(string manifest)
    {
        var read = JsonNode.Parse(manifest)!.AsObject();
        read["deployment_id"]!.GetValue<int>().ShouldBe(1);
        read["created_at"] = "CREATED";
        return read.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n";
    }

    private static void Matches(string file, string text, [CallerFilePath] string here = "")
    {
        var path = Path.Combine(Path.GetDirectoryName(here)!, file);
        if (Environment.GetEnvironmentVariable("MODELHOST_WRITE_GOLDEN") == "1")
            File.WriteAllText(path, text);

        text.ShouldBe(File.ReadAllText(path));
    }
}
