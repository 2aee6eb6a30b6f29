using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using ModelHost.IntegrationTests.Lifecycle;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>Images are deleted from a real Docker engine when nothing there uses them.</summary>
public sealed class ImageDeletionTests(RealDockerFixture fixture)
{
    private const string Old = UpgradeLab.Old, New = UpgradeLab.New;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Version_goes_from_a_node_when_neither_a_deployment_nor_a_container_uses_it()
    {
        await using var lab = await UpgradeLab.StartApartAsync(fixture);
        var client = lab.Client;
        var node = await client.NodeAsync("docker");
        var image = $"{lab.Registry.Repository}:v{New}";
        (await lab.EndAsync(await lab.UpgradeAsync(New, node))).Text("message").ShouldBe("completed");

        var foreign = await DeleteAsync(client, node, "vllm", Old);
        var id = await client.RunModelAsync(lab.Node.Request(node, EngineNode.NewModel(), 8101, request => request["vllm_version"] = New));
        var running = await DeleteAsync(client, node, "vllm", New);
        await client.StopModelAsync(id);
        var atRest = await DeleteAsync(client, node, "vllm", New);
        using (var deleted = await client.DeleteAsync(new Uri($"/api/deployments/{id}", UriKind.Relative), Ct))
            deleted.EnsureSuccessStatusCode();
        var container = (await fixture.Docker.CliAsync(Ct, "create", image)).Trim();
        // now the engine itself would take the name away
        await fixture.Docker.CliAsync(Ct, "tag", image, $"{lab.Registry.Repository}:other");
        var held = await DeleteAsync(client, node, "vllm", New);
        var listed = (await lab.BackendAsync(node)).GetProperty("images").EnumerateArray().ToDictionary(one => one.Text("version"));
        await fixture.Docker.CliAsync(Ct, "rm", container);
        await fixture.Docker.CliAsync(Ct, "rmi", $"{lab.Registry.Repository}:other");
        var gone = await DeleteAsync(client, node, "vllm", New);
        var again = await DeleteAsync(client, node, "vllm", New);

        (foreign.Status, foreign.Says).ShouldBe((HttpStatusCode.Conflict, $"image {lab.Registry.Repository}:v{Old} stays on node gpu-1: it was not pulled by ModelHost"));
        (running.Status, running.Says).ShouldBe((HttpStatusCode.Conflict, $"image {image} stays on node gpu-1: deployment {id} is started from it"));
        atRest.ShouldBe(running);
        held.Status.ShouldBe(HttpStatusCode.Conflict);
        held.Says.ShouldStartWith($"image {image} stays on node gpu-1: container ");
        held.Says.ShouldEndWith(" uses it (created)");
        (listed[New].GetProperty("size_bytes").GetInt64() > 1_000_000, listed[New].TryGetProperty("pulled_at", out _), listed[Old].TryGetProperty("pulled_at", out _)).ShouldBe((true, true, false));
        (gone.Status, gone.Says).ShouldBe((HttpStatusCode.OK, "version deleted"));
        again.Status.ShouldBe(HttpStatusCode.NotFound);
        (await lab.TagsAsync()).ShouldBe([$"v{Old}"]);
    }

    [Fact]
    public async Task Image_goes_with_its_backend_and_is_not_deleted_from_under_a_container()
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var files = await FileServer.StartAsync();
        var image = $"{registry.Repository}:{StandInEngine.Tag}";
        files.Put("/index.yaml", Encoding.UTF8.GetBytes($"- {{name: other, uri: 'oci://{image}', recipe: {{extends: vllm, name: other, image: '{registry.Repository}'}} }}"));
        await using var process = await ModelHostProcess.ServeAsync(node.Surroundings, 0, ["Galleries:Backends:0:Name=own", $"Galleries:Backends:0:Url={files.Url("/index.yaml")}"]);
        using var client = new HttpClient { BaseAddress = process.Url };
        var id = await client.NodeAsync("docker");
        await InstallAsync(client, id);
        var container = (await fixture.Docker.CliAsync(Ct, "create", image)).Trim();

        var kept = await DeleteAsync(client, id, "other");
        var still = await node.Client.ListImagesAsync(image, Ct);
        await InstallAsync(client, id);
        await fixture.Docker.CliAsync(Ct, "rm", container);
        var gone = await DeleteAsync(client, id, "other");

        kept.Status.ShouldBe(HttpStatusCode.OK);
        kept.Says.ShouldStartWith($"backend deleted; image {image} stays on node ");
        kept.Says.ShouldEndWith(" uses it (created)");
        still.ShouldHaveSingleItem();
        (gone.Status, gone.Says).ShouldBe((HttpStatusCode.OK, "backend deleted"));
        (await node.Client.ListImagesAsync(image, Ct)).ShouldBeEmpty();
        (await client.JsonAsync($"/api/nodes/{id}/backends")).EnumerateArray().Select(one => one.Text("name")).ShouldNotContain("other");
    }

    private static async Task InstallAsync(HttpClient client, int node)
    {
        using var answer = await client.PostAsJsonAsync($"/api/nodes/{node}/backends/install?wait=true", new { backend = "other" }, Ct);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        body.GetProperty("job").Text("message").ShouldBe("completed", body.ToString());
    }

    private static async Task<(HttpStatusCode Status, string Says)> DeleteAsync(HttpClient client, int node, string backend, string? version = null)
    {
        using var answer = await client.PostAsJsonAsync($"/api/nodes/{node}/backends/delete", new { backend, version }, Ct);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        return (answer.StatusCode, body.Text(answer.IsSuccessStatusCode ? "message" : "detail"));
    }
}
