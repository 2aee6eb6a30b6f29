using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Backends;

/// <summary>Images go with the backends that consist of them, and versions one by one, unless something on their node wants them.</summary>
public sealed class ImageDeletionTests
{
    private const string Repository = "team/other";
    private const string Index = $$$"""
        - {name: family, capabilities: {default: other}}
        - &other {name: other, version: '1.7', uri: 'oci://docker.io/{{{Repository}}}:1.7', recipe: {extends: vllm, name: other, image: "{{{Repository}}}" }}
        - {<<: *other, name: twin}
        """;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Image_goes_with_its_backend_and_what_upgrades_left_of_it_too()
    {
        await using var lab = await Lab.StartAsync();
        lab.Has($"{Repository}:1.6");
        await lab.InstallAsync("family");

        var before = (await lab.Client.JsonAsync($"/api/nodes/{lab.Node.Id}/backends")).EnumerateArray().Single(one => one.GetProperty("name").GetString() == "other").GetProperty("images");
        var (status, body) = await lab.DeleteAsync("family");

        before.EnumerateArray().Select(image => $"{image.GetProperty("version")} {image.GetProperty("name")} {image.GetProperty("size_bytes")} {image.TryGetProperty("pulled_at", out _)}")
            .ShouldBe([$"1.6 {Repository}:1.6 7 True", $"1.7 {Repository}:1.7 0 False"]);
        (status, body.GetProperty("message").GetString()).ShouldBe((HttpStatusCode.OK, "backend deleted"));
        lab.Node.Deleted.ShouldBe([$"{Repository}:1.6", $"{Repository}:1.7"]);
        (await lab.NamesAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Image_of_another_backend_stays_until_that_goes_too()
    {
        await using var lab = await Lab.StartAsync();
        await lab.InstallAsync("other");
        await lab.InstallAsync("twin");
        lab.Has($"{Repository}:1.6");

        var first = await lab.JobAsync("other");
        var deleted = lab.Node.Deleted.ToArray();
        var second = await lab.JobAsync("twin");

        first.GetProperty("message").GetString().ShouldBe($"completed; image {Repository}:1.7 stays on node quiet: it is backend twin");
        deleted.ShouldBeEmpty();
        second.GetProperty("message").GetString().ShouldBe("completed");
        lab.Node.Deleted.ShouldBe([$"{Repository}:1.7", $"{Repository}:1.6"], ignoreOrder: true);
    }

    [Fact]
    public async Task Image_that_a_deployment_at_rest_was_started_from_stays()
    {
        await using var lab = await Lab.StartAsync();
        await lab.InstallAsync("other");
        var id = await lab.DeploymentAsync(request => request["backend"] = "other");

        var running = await lab.DeleteAsync("other");
        await lab.Node.SetAsync(id, DeploymentStatus.Stopped);
        var job = await lab.JobAsync("other");

        (running.Status, running.Body.GetProperty("code").GetString()).ShouldBe((HttpStatusCode.Conflict, "backend.in_use"));
        job.GetProperty("message").GetString().ShouldBe($"completed; image {Repository}:1.7 stays on node quiet: deployment {id} is started from it");
        lab.Node.Deleted.ShouldBeEmpty();
        (await lab.NamesAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Image_that_the_node_keeps_is_told_and_the_backend_is_gone_all_the_same()
    {
        await using var lab = await Lab.StartAsync();
        await lab.InstallAsync("other");
        lab.Node.Deletes = _ => throw new InvalidOperationException("container web uses it");

        var (status, body) = await lab.DeleteAsync("other");

        (status, body.GetProperty("message").GetString()).ShouldBe((HttpStatusCode.OK, $"backend deleted; image {Repository}:1.7 stays on node quiet: container web uses it"));
        (await lab.NamesAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Agent_of_the_version_before_keeps_images_and_that_is_said()
    {
        await using var lab = await Lab.StartAsync();
        await lab.InstallAsync("other");
        lab.Has("vllm/vllm-openai:v0.9.2", "vllm/vllm-openai:v0.10.0");
        lab.Node.Deletes = _ => throw new ArgumentException("kind: it is to be a model or a backend");

        var (status, body) = await lab.DeleteAsync("other");
        var version = await lab.DeleteAsync("vllm", "0.9.2");

        (status, body.GetProperty("message").GetString()).ShouldBe((HttpStatusCode.OK, $"backend deleted; image {Repository}:1.7 stays on node quiet: the agent there is of an older version, which deletes no images; update it"));
        (version.Status, version.Body.GetProperty("code").GetString()).ShouldBe((HttpStatusCode.Conflict, "backend.image_kept"));
        version.Body.GetProperty("detail").GetString().ShouldBe("image vllm/vllm-openai:v0.9.2 stays on node quiet: the agent there is of an older version, which deletes no images; update it");
    }

    [Fact]
    public async Task Node_that_cannot_be_asked_or_does_not_know_its_images_loses_nothing()
    {
        await using var lab = await Lab.StartAsync();
        await lab.InstallAsync("other");

        lab.Node.Deletes = _ => throw new IOException("the line is cut");
        var cut = await lab.DeleteAsync("other");
        lab.Node.Has.ImageError = "Docker does not answer";
        var silent = await lab.DeleteAsync("other");
        var version = await lab.DeleteAsync("vllm", "0.9.2");
        var asked = lab.Node.Deleted.ToArray();
        lab.Node.Has.ImageError = "";
        var still = await lab.NamesAsync();
        lab.Node.FallsSilent();
        var gone = await lab.JobAsync("other");

        (cut.Status, cut.Body.GetProperty("detail").GetString()).ShouldBe((HttpStatusCode.ServiceUnavailable, $"node quiet could not be asked to delete {Repository}:1.7: the line is cut"));
        (silent.Status, silent.Body.GetProperty("detail").GetString()).ShouldBe((HttpStatusCode.ServiceUnavailable, "the images of node quiet are not known, and nothing was deleted: Docker does not answer"));
        version.Status.ShouldBe(HttpStatusCode.ServiceUnavailable);
        asked.Length.ShouldBe(1);
        still.ShouldBe(["other"]);
        gone.GetProperty("error").GetString().ShouldBe("node quiet does not answer, and nothing was deleted");
    }

    [Fact]
    public async Task Deletion_that_takes_long_is_waited_for()
    {
        await using var lab = await Lab.StartAsync();
        await lab.InstallAsync("other");
        lab.Node.Deletes = _ => new DeleteArtifactReply { UnderWay = lab.Node.Deleted.Count < 3 };

        var (status, _) = await lab.DeleteAsync("other");

        status.ShouldBe(HttpStatusCode.OK);
        lab.Node.Deleted.Count.ShouldBe(3);
    }

    [Fact]
    public async Task Versions_of_vLLM_are_deleted_one_by_one()
    {
        await using var lab = await Lab.StartAsync();
        lab.Has("vllm/vllm-openai:v0.9.2", "vllm/vllm-openai:v0.10.0", "vllm/vllm-openai:v0.10.1", "vllm/vllm-openai:nightly");

        var (status, body) = await lab.DeleteAsync("vllm", "0.9.2");
        var job = await lab.JobAsync("vllm", "nightly");
        var again = await lab.DeleteAsync("vllm", "0.9.2");
        var whole = await lab.DeleteAsync("vllm");
        var wrong = await lab.DeleteAsync("vllm", "../x");
        var versions = (await lab.Client.JsonAsync($"/api/nodes/{lab.Node.Id}/backends"))[0].GetProperty("versions").EnumerateArray().Select(version => version.GetString()).ToArray();

        (status, body.GetProperty("message").GetString()).ShouldBe((HttpStatusCode.OK, "version deleted"));
        job.GetProperty("message").GetString().ShouldBe("completed");
        lab.Node.Deleted.ShouldBe(["vllm/vllm-openai:v0.9.2", "vllm/vllm-openai:nightly"]);
        (again.Status, again.Body.GetProperty("detail").GetString()).ShouldBe((HttpStatusCode.NotFound, "version 0.9.2 of backend vllm is not installed on it"));
        (whole.Status, whole.Body.GetProperty("detail").GetString()).ShouldBe((HttpStatusCode.Conflict, "vllm is part of node quiet, and is not deleted; its versions are, one by one"));
        wrong.Status.ShouldBe(HttpStatusCode.BadRequest);
        versions.ShouldBe(["0.10.0", "0.10.1"]);
    }

    [Theory]
    [InlineData("0.10.0", "0.10.0", true)]
    [InlineData("v0.10.0", "0.10.0", true)]
    [InlineData(null, "0.10.1", true)] // offline it would be started with the newest that is there
    [InlineData(null, "0.9.2", false)]
    [InlineData("0.10.0", "0.9.2", false)]
    public async Task Version_that_a_deployment_at_rest_is_started_with_stays(string? asked, string deleted, bool stays)
    {
        await using var lab = await Lab.StartAsync();
        lab.Has("vllm/vllm-openai:v0.9.2", "vllm/vllm-openai:v0.10.0", "vllm/vllm-openai:v0.10.1");
        var id = await lab.DeploymentAsync(request => (request["vllm_version"], request["backend"]) = (asked, "vllm"));
        await lab.Node.SetAsync(id, DeploymentStatus.Stopped);

        var (status, body) = await lab.DeleteAsync("vllm", deleted);

        status.ShouldBe(stays ? HttpStatusCode.Conflict : HttpStatusCode.OK, body.ToString());
        if (stays)
            (body.GetProperty("code").GetString(), body.GetProperty("detail").GetString()).ShouldBe(("backend.in_use", $"image vllm/vllm-openai:v{deleted} stays on node quiet: deployment {id} is started from it"));
        lab.Node.Deleted.Count.ShouldBe(stays ? 0 : 1);
    }

    [Fact]
    public async Task Version_that_an_engine_runs_stays_and_so_does_the_one_that_is_installed()
    {
        await using var lab = await Lab.StartAsync();
        lab.Has("vllm/vllm-openai:v0.9.2", "vllm/vllm-openai:v0.10.1", $"{Repository}:1.6");
        await lab.InstallAsync("family");
        var id = await lab.DeploymentAsync(request => request["backend"] = "vllm");
        await lab.Node.ChangeAsync(id, row => row.EngineVersion = "0.9.2");

        var running = await lab.DeleteAsync("vllm", "0.9.2");
        var installed = await lab.DeleteAsync("family", "1.7");
        var old = await lab.DeleteAsync("family", "1.6");

        running.Body.GetProperty("detail").GetString().ShouldBe($"image vllm/vllm-openai:v0.9.2 stays on node quiet: deployment {id} is started from it");
        installed.Body.GetProperty("detail").GetString().ShouldBe($"image {Repository}:1.7 stays on node quiet: it is backend other");
        old.Status.ShouldBe(HttpStatusCode.OK);
        lab.Node.Deleted.ShouldBe([$"{Repository}:1.6"]);
        (await lab.NamesAsync()).ShouldBe(["family", "other", "vllm"]);
    }

    [Fact]
    public async Task Version_of_what_is_no_image_is_refused()
    {
        await using var lab = await Lab.StartAsync();
        lab.Node.Has.Artifacts.Add(new Artifact { Kind = ArtifactKind.Backend, Name = "folder", PullId = Guid.NewGuid().ToString() });

        var (status, body) = await lab.DeleteAsync("folder", "1.0");

        (status, body.GetProperty("detail").GetString()).ShouldBe((HttpStatusCode.BadRequest, "version: folder is no image on node quiet, and has no versions there"));
        lab.Node.Deleted.ShouldBeEmpty();
    }

    private sealed class Lab : IAsyncDisposable
    {
        private readonly BackendGallery _gallery;
        private readonly ControlPlane _host;
        private int _port = 8200;

        private Lab(BackendGallery gallery, ControlPlane host, QuietNode node) => (_gallery, _host, Node) = (gallery, host, node);

        public QuietNode Node { get; }

        public HttpClient Client => _host.Client;

        public static async Task<Lab> StartAsync()
        {
            var gallery = await BackendGallery.StartAsync();
            gallery.Serve(Index);
            var host = await gallery.HostAsync();
            await host.Client.NodeAsync("process");
            var node = await QuietNode.AddAsync(host);
            node.Says(new NodeReport { Hostname = "quiet", Runtimes = { "docker", "process" } });
            return new Lab(gallery, host, node);
        }

        public void Has(params string[] images) => Node.Has.Artifacts.AddRange(images.Select(image => new Artifact
        {
            Kind = ArtifactKind.Image,
            Name = image,
            Version = image[(image.LastIndexOf(':') + 1)..],
            Digest = $"sha256:{image}",
            SizeBytes = 7,
            InstalledAt = 1_700_000_000,
        }));

        public async Task InstallAsync(string backend)
        {
            var body = await PostAsync($"/api/nodes/{Node.Id}/backends/install?wait=true", new { backend });
            body.Body.GetProperty("job").GetProperty("message").GetString().ShouldBe("completed", body.Body.ToString());
        }

        public Task<(HttpStatusCode Status, JsonElement Body)> DeleteAsync(string backend, string? version = null) => PostAsync($"/api/nodes/{Node.Id}/backends/delete", new { backend, version });

        public async Task<JsonElement> JobAsync(string backend, string? version = null) =>
            (await PostAsync($"/backends/delete/{backend}?wait=true{(version is null ? "" : $"&version={version}")}", null)).Body.GetProperty("job");

        public Task<int> DeploymentAsync(Action<System.Text.Json.Nodes.JsonObject> change) => Client.StartModelAsync(Api.StartRequest(Node.Id, _port++, change: change));

        public async Task<string?[]> NamesAsync() => [.. (await Client.JsonAsync($"/api/nodes/{Node.Id}/backends")).EnumerateArray().Select(one => one.GetProperty("name").GetString())];

        public async ValueTask DisposeAsync()
        {
            await _host.DisposeAsync();
            await _gallery.DisposeAsync();
        }

        private async Task<(HttpStatusCode Status, JsonElement Body)> PostAsync(string path, object? body)
        {
            using var answer = await Client.PostAsJsonAsync(path, body, Ct);
            return (answer.StatusCode, await answer.Content.ReadFromJsonAsync<JsonElement>(Ct));
        }
    }
}
