using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.IntegrationTests.Backends;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>A backend from a file that a real engine saved an image to.</summary>
public sealed class SavedImageTests(NodeScripts scripts, RealDockerFixture fixture)
{
    private const string Image = "modelhost-test/saved-engine:1";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_backend_is_installed_from_what_docker_save_wrote()
    {
        await TestBackends.SkipWithoutAsync(scripts, "python-backend");
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");
        var packages = Directory.CreateDirectory(Path.Combine(host.Node.Data, "packages")).FullName;
        var dockerfile = Path.Combine(packages, "Dockerfile");
        // the last layer is the first again, which is saved as a link
        await File.WriteAllTextAsync(dockerfile, "FROM scratch\nCOPY run.sh /\nCOPY backend.py /\nCOPY run.sh /\n", Ct);
        await fixture.Docker.CliAsync(Ct, "build", "-q", "-t", Image, "-f", dockerfile, Path.Combine(RealDocker.RepositoryRoot, "tests", "bench", "backends", "python-backend"));
        await fixture.Docker.CliAsync(Ct, "save", "-o", Path.Combine(packages, "engine.tar"), Image);

        using (var installed = await host.Client.PostAsJsonAsync($"/api/nodes/{node}/backends/install?wait=true", new { uri = "ocifile://packages/engine.tar", name = "saved-engine" }, Ct))
            (await installed.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("job").GetProperty("message").GetString().ShouldBe("completed");
        await host.Client.ServeAsync(TestBackends.Request(node, "saved-engine"));

        using var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", new { model = "tiny", messages = new[] { new { role = "user", content = "hello" } } }, Ct);
        answer.IsSuccessStatusCode.ShouldBeTrue(await answer.Content.ReadAsStringAsync(Ct));
    }
}
