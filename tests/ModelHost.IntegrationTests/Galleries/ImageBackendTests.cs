using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Docker;
using ModelHost.IntegrationTests.Lifecycle;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>A backend that is an image with a recipe, installed from a gallery on a real Docker engine.</summary>
public sealed class ImageBackendTests(RealDockerFixture fixture)
{
    private const string Repository = "modelhost-test/other-server";

    private readonly int _port = TestPorts.Free();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Image_of_a_gallery_serves_is_adopted_and_goes_on_while_it_is_upgraded()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        // another name, another entry point, other flags, and a tag that no version of vLLM has
        foreach (var tag in (string[])["1.7", "1.8"])
            await fixture.Docker.CliAsync(Ct, "tag", $"{RealDocker.SimulatorRepository}:{RealDocker.SimulatorTag}", $"{Repository}:{tag}");
        await using var files = await FileServer.StartAsync();
        Offer(files, "1.7", "first_words");
        string[] configuration = ["Galleries:Backends:0:Name=own", $"Galleries:Backends:0:Url={files.Url("/index.yaml")}", "Galleries:CacheTime=00:00:01", "Node:ImageRepository=registry.example.com/mirror/vllm"];
        var first = await ModelHostProcess.ServeAsync(node.Surroundings, _port, configuration);
        using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{_port}") };
        var (nodeId, model) = (await client.NodeAsync("docker"), EngineNode.NewModel());
        await DoneAsync(client, $"/api/nodes/{nodeId}/backends/install", "family");
        var refused = await client.RefusedStartAsync(Request(nodeId, EngineNode.NewModel(), 8108, request => request["engine_args"] = new JsonObject { ["trust_remote_code"] = true }));
        var id = await client.RunModelAsync(Request(nodeId, model, 8107));
        await client.ChatAsync(model);
        var before = await node.ContainerAsync();
        await first.DisposeAsync();
        // all that is left is what the container carries
        foreach (var file in Directory.GetFiles(node.Surroundings.Data, "modelhost.db*"))
            File.Delete(file);
        Directory.Delete(Path.Combine(node.Surroundings.Data, "runs"), recursive: true);

        await using var second = await ModelHostProcess.ServeAsync(node.Surroundings, _port, configuration);
        await Deadline.UntilAsync(() => client.JsonAsync("/api/deployments"), all => all.GetArrayLength() == 1 && all[0].Status() == "running");
        var adopted = await client.JsonAsync($"/api/deployments/{id}");
        await client.ChatAsync(model);
        await Deadline.UntilAsync(() => client.JsonAsync($"/api/deployments/{id}"), one => one.GetProperty("total_requests").GetInt64() > 0);
        await DoneAsync(client, $"/api/nodes/{nodeId}/backends/install", "family");
        Offer(files, "1.8", "later_words");
        await Deadline.UntilAsync(async () =>
        {
            await DoneAsync(client, $"/api/nodes/{nodeId}/backends/upgrade", "other");
            return await client.JsonAsync($"/api/nodes/{nodeId}/backends");
        }, list => list.EnumerateArray().Single(one => one.Text("name") == "other").Text("version") == "1.8", what: "the upgrade");
        var after = await node.ContainerAsync();
        var (inUse, code, _) = await PostAsync(client, $"/api/nodes/{nodeId}/backends/delete", new { backend = "other" });
        await client.StopModelAsync(id);
        var gone = await node.ContainersAsync();
        using var again = await client.PostAsJsonAsync($"/api/deployments/{id}/restart", new { owner = "tests" }, Ct);
        await client.ReachAsync(id, "running");
        var restarted = await node.ContainerAsync();
        await client.StopModelAsync(id);
        var next = await client.RunModelAsync(Request(nodeId, model, 8109));
        var upgraded = await node.ContainerAsync();
        await client.StopModelAsync(next);
        var failed = await client.StartModelAsync(Request(nodeId, model, 8110, request => request["extra_args"] = new JsonArray("--no-such-option")));
        var ended = await client.ReachAsync(failed, "error");

        (refused.Status, refused.Code).ShouldBe((400, "deployment.option_denied"));
        (before.ImageName, before.Entrypoint.Count, before.NetworkMode).ShouldBe(($"{Repository}:1.7", 3, "host"));
        before.Labels["modelhost.spec"].ShouldContain("first_words");
        before.Env.ShouldContain(variable => variable.StartsWith("OTHER_KEY=", StringComparison.Ordinal));
        adopted.Text("backend").ShouldBe("family");
        (after.Id, after.State.StartedAt).ShouldBe((before.Id, before.State.StartedAt), "an upgrade touches nothing that runs");
        (inUse, code).ShouldBe((409, "backend.in_use"));
        gone.ShouldBeEmpty();
        restarted.ImageName.ShouldBe($"{Repository}:1.7", "as it was launched");
        upgraded.ImageName.ShouldBe($"{Repository}:1.8");
        ended.Text("error_code").ShouldBe("later_words", ended.ToString());
    }

    [Fact]
    public async Task Model_is_applied_with_the_image_that_serves_it_and_started_by_the_first_request()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await fixture.Docker.CliAsync(Ct, "tag", $"{RealDocker.SimulatorRepository}:{RealDocker.SimulatorTag}", $"{Repository}:1.7");
        await using var files = await FileServer.StartAsync();
        Offer(files, "1.7", "first_words");
        files.Put("/w.gguf", FileServer.Bytes(20_000));
        files.Put("/eyes.gguf", FileServer.Bytes(100));
        files.Put("/models.yaml", Encoding.UTF8.GetBytes($$"""
            - name: tiny
              overrides: {backend: family, context_size: 2048, f16: true, mmproj: eyes.gguf, parameters: {model: w.gguf, temperature: 0.5}, template: {chat: x} }
              files:
                - {filename: w.gguf, uri: '{{files.Url("/w.gguf")}}'}
                - {filename: eyes.gguf, uri: '{{files.Url("/eyes.gguf")}}'}
            - {name: absent, overrides: {backend: not-there}, files: &other [{filename: v.gguf, uri: '{{files.Url("/v.gguf")}}'}] }
            - {name: lost, overrides: {backend: gone}, files: *other}
            """));
        await using var process = await ModelHostProcess.ServeAsync(node.Surroundings, _port,
        [
            "Galleries:Backends:0:Name=own", $"Galleries:Backends:0:Url={files.Url("/index.yaml")}", "Galleries:Models:0:Name=own", $"Galleries:Models:0:Url={files.Url("/models.yaml")}",
            "Gateway:HoldTimeout=00:02:00",
        ]);
        using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{_port}"), Timeout = TimeSpan.FromMinutes(3) };
        await client.NodeAsync("docker");

        var failed = await ApplyAsync(client, "absent");
        var unpulled = await ApplyAsync(client, "lost");
        var before = (await client.JsonAsync("/api/deployments")).GetArrayLength();
        var backends = await client.GetStringAsync(new Uri("/backends", UriKind.Relative), Ct);
        var job = await ApplyAsync(client, "tiny");
        var deployment = (await client.JsonAsync("/api/deployments")).EnumerateArray().ShouldHaveSingleItem();
        await client.ChatAsync("tiny");
        var container = await node.ContainerAsync();
        var again = await ApplyAsync(client, "tiny");
        var same = await node.ContainerAsync();
        var after = (await client.JsonAsync("/api/deployments")).EnumerateArray().ShouldHaveSingleItem();
        using (var deleted = await client.PostAsync(new Uri("/models/delete/tiny?wait=true", UriKind.Relative), null, Ct))
            deleted.IsSuccessStatusCode.ShouldBeTrue();

        failed.Text("error").ShouldContain("backend not-there, which absent needs, could not be installed");
        unpulled.Text("error").ShouldContain("backend gone, which lost needs, could not be installed");
        (before, files.Requests.Any(request => request.Path == "/v.gguf"), backends.Contains("gone", StringComparison.Ordinal)).ShouldBe((0, false, false));
        job.Text("message").ShouldBe("completed; not used with backend family: parameters.temperature, template.chat");
        (deployment.Status(), deployment.Text("backend"), deployment.GetProperty("start_on_demand").GetBoolean()).ShouldBe(("stopped", "family", true));
        var folder = Path.Combine(node.Surroundings.Data, "models", "tiny");
        container.ImageName.ShouldBe($"{Repository}:1.7");
        string.Join(' ', container.Command).ShouldContain($"--model {folder}/w.gguf");
        string.Join(' ', container.Command).ShouldContain($"--max-model-len 2048 --chat-template {folder}/eyes.gguf");
        container.Mounts.ShouldBe([new BindMount($"{folder}/w.gguf", $"{folder}/w.gguf", ReadOnly: true), new BindMount($"{folder}/eyes.gguf", $"{folder}/eyes.gguf", ReadOnly: true)], ignoreOrder: true);
        again.Text("message").ShouldBe(job.Text("message"));
        (same.Id, after.GetProperty("id").GetInt32(), after.Status()).ShouldBe((container.Id, deployment.GetProperty("id").GetInt32(), "running"));
        (await node.ContainersAsync()).ShouldBeEmpty();
    }

    private static async Task<JsonElement> ApplyAsync(HttpClient client, string id)
    {
        var (status, _, body) = await PostAsync(client, "/models/apply?wait=true", new { id });
        status.ShouldBe(200, body.ToString());
        return body.GetProperty("job");
    }

    private static void Offer(FileServer files, string version, string code) => files.Put("/index.yaml", Encoding.UTF8.GetBytes($$"""
        - {name: family, capabilities: {default: other, nvidia: other} }
        - {name: gone, uri: 'oci://127.0.0.1:9/gone:1', recipe: {extends: vllm, name: gone, image: 127.0.0.1:9/gone} }
        - name: other
          alias: kin
          version: '{{version}}'
          uri: oci://docker.io/{{Repository}}:{{version}}
          recipe:
            name: other
            protocol: openai
            runtimes: [docker]
            device: cpu
            image: {{Repository}}
            command: [dotnet, /app/modelhost.dll, simulate]
            arguments: [--model, "{model}", --host, 127.0.0.1, --port, "{engine_port}", --served-model-name, "{served_name}"]
            key_variable: OTHER_KEY
            control_options: [served_model_name, disable_sleep_mode]
            denied_options: [host, port, model, served-model-name, trust-remote-code]
            config_options: {context_size: max_model_len, mmproj: chat_template}
            config_implied: {f16: true}
            file_options: [chat_template]
            metrics_path: /metrics
            ready_lines: ["Application startup complete"]
            failures: [{code: {{code}}, final: true, patterns: ["unrecognized arguments"], message: As the gallery says. }]
            metrics:
              requests: ["vllm:request_success_total"]
              prompt_tokens: ["vllm:prompt_tokens_total"]
              generation_tokens: ["vllm:generation_tokens_total"]
        """));

    private static JsonObject Request(int nodeId, string model, int port, Action<JsonObject>? change = null) => Api.StartRequest(nodeId, port, model, "family", change);

    private static async Task DoneAsync(HttpClient client, string path, string backend)
    {
        var (status, _, body) = await PostAsync(client, path + "?wait=true", new { backend });
        status.ShouldBe(202, body.ToString());
        body.GetProperty("job").Text("message").ShouldBe("completed", body.ToString());
    }

    private static async Task<(int Status, string Code, JsonElement Body)> PostAsync(HttpClient client, string path, object request)
    {
        using var answer = await client.PostAsJsonAsync(path, request, Ct);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        return ((int)answer.StatusCode, body.TryGetProperty("code", out var code) ? code.GetString()! : "", body);
    }
}
