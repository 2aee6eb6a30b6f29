using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.IntegrationTests.Backends;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>A model of a gallery on a real gRPC backend of another gallery, from nothing to an answer.</summary>
public sealed class BackendModelTests(NodeScripts scripts)
{
    private const string Folder = "tests/bench/backends/python-backend";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_model_is_applied_with_its_backend_and_started_by_the_first_request()
    {
        await TestBackends.SkipWithoutAsync(scripts, "python-backend");
        await using var server = await FileServer.StartAsync();
        var program = Path.Combine(RealDocker.RepositoryRoot, Folder);
        const UnixFileMode Runs = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        server.Put("/engine.tar.gz", Archives.Gzip(Archives.Tar(
            Archives.File("run.sh", await File.ReadAllBytesAsync(Path.Combine(program, "run.sh"), Ct), Runs),
            Archives.File("backend.py", await File.ReadAllBytesAsync(Path.Combine(program, "backend.py"), Ct)))));
        server.Put("/tiny.gguf", FileServer.Bytes(20_000));
        server.Put("/eyes.gguf", FileServer.Bytes(100));
        server.Put("/backends.yaml", Encoding.UTF8.GetBytes($$"""
            - {name: new-engine, capabilities: {default: cpu-new-engine} }
            - {name: cpu-new-engine, uri: '{{server.Url("/engine.tar.gz")}}'}
            """));
        server.Put("/models.yaml", Encoding.UTF8.GetBytes($$"""
            - name: tiny
              overrides: {backend: new-engine, context_size: 2048, gpu_layers: 5, mmproj: eyes.gguf, parameters: {model: tiny.gguf, temperature: 0.5}, template: {chat: x} }
              files:
                - {filename: tiny.gguf, uri: '{{server.Url("/tiny.gguf")}}'}
                - {filename: eyes.gguf, uri: '{{server.Url("/eyes.gguf")}}'}
            """));
        await using var host = await ControlPlane.StartAsync(configuration:
        [
            "Galleries:Models:0:Name=own", $"Galleries:Models:0:Url={server.Url("/models.yaml")}", "Galleries:Backends:0:Name=own", $"Galleries:Backends:0:Url={server.Url("/backends.yaml")}",
            "Gateway:HoldTimeout=00:02:00",
        ]);
        await host.Client.NodeAsync("process");
        using (var applied = await host.Client.PostAsJsonAsync("/models/apply?wait=true", new { id = "tiny" }, Ct))
            (await applied.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("job").GetProperty("message").GetString().ShouldBe("completed; not used with backend new-engine: template.chat");
        var id = (await host.Client.JsonAsync("/api/deployments"))[0].GetProperty("id").GetInt32();

        var answers = await Task.WhenAll(AskAsync(host), AskAsync(host), AskAsync(host));

        answers.ShouldAllBe(answer => answer.Status == HttpStatusCode.OK);
        var loaded = JsonNode.Parse(answers[0].Text)!;
        var folder = Path.Combine(host.Node.Data, "models", "tiny");
        (loaded["Model"]!.GetValue<string>(), loaded["ModelFile"]!.GetValue<string>(), loaded["ModelPath"]!.GetValue<string>()).ShouldBe(("tiny.gguf", Path.Combine(folder, "tiny.gguf"), folder));
        (loaded["MMProj"]!.GetValue<string>(), loaded["ContextSize"]!.GetValue<int>(), loaded["NGPULayers"]!.GetValue<int>()).ShouldBe((Path.Combine(folder, "eyes.gguf"), 2048, 5));
        (await host.Client.LoadedAsync(id, "tiny.gguf")).ShouldBe(1, "it was started once");
        using (var shut = await host.Client.PostAsJsonAsync("/backend/shutdown", new { model = "tiny" }, Ct))
            shut.StatusCode.ShouldBe(HttpStatusCode.OK, await shut.Content.ReadAsStringAsync(Ct));
        await host.Client.StatusAsync(id, "stopped");
        (await AskAsync(host)).Status.ShouldBe(HttpStatusCode.OK);
        using (var deleted = await host.Client.PostAsync(new Uri("/models/delete/tiny?wait=true", UriKind.Relative), null, Ct))
            (await deleted.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("job").GetProperty("message").GetString().ShouldBe("completed");
        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
        Directory.Exists(folder).ShouldBeFalse();
    }

    private static async Task<(HttpStatusCode Status, string Text)> AskAsync(ControlPlane host)
    {
        using var answer = await host.Client.PostAsJsonAsync("/v1/completions", new { model = "tiny", prompt = "options" }, Ct);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        return (answer.StatusCode, answer.IsSuccessStatusCode ? body.GetProperty("choices")[0].GetProperty("text").GetString()! : body.ToString());
    }
}
