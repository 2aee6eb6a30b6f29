using System.Runtime.InteropServices;
using System.Text.Json;
using ModelHost.Agent;
using ModelHost.Agent.Downloads;
using ModelHost.Core.Artifacts;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Nodes;

namespace ModelHost.Tests.Artifacts;

/// <summary>Where models and backends come from.</summary>
public sealed class SourceTests : IAsyncLifetime
{
    private readonly TestNode _surroundings = new();
    private readonly DownloadOptions _options = Pulls.Options();
    private FileServer _server = null!;
    private ImageServer _registry = null!;
    private LocalNode _node = null!;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private static string Architecture => RuntimeInformation.OSArchitecture == System.Runtime.InteropServices.Architecture.Arm64 ? "arm64" : "amd64";

    // as builders make them for steps that change nothing, many of the same digest
    private static byte[] Empty => Archives.Gzip(new byte[1024]);

    public async ValueTask InitializeAsync()
    {
        _server = await FileServer.StartAsync();
        _registry = await ImageServer.StartAsync(wantsToken: true);
        (_options.HuggingFaceUrl, _options.GitHubUrl, _options.OllamaUrl) = (_server.Address.AbsoluteUri, _server.Url("/raw"), _registry.Files.Address.AbsoluteUri);
        _options.InsecureRegistries = _registry.Host;
        _node = await NodeRuns.OpenAsync(_surroundings, _options);
    }

    [Theory]
    [InlineData("https://models.example/a/b.gguf?x=y", "Web", "b.gguf")]
    [InlineData("huggingface://o/r/d/f.gguf@v1", "HuggingFace", "f.gguf")]
    [InlineData("hf://o/r/f.gguf", "HuggingFace", "f.gguf")]
    [InlineData("hf://o/r", "HuggingFace", "")]
    [InlineData("hf.co/o/r/f.gguf", "HuggingFace", "f.gguf")]
    [InlineData("github:o/r/gallery/index.yaml@master", "GitHub", "index.yaml")]
    [InlineData("github://o/r/x.yaml", "GitHub", "x.yaml")]
    [InlineData("oci://quay.io/o/r:tag", "Image", "")]
    [InlineData("quay.io/go-skynet/local-ai-backends:latest-cpu", "Image", "")]
    [InlineData("oci://busybox", "Image", "")]
    [InlineData("ollama://gemma:2b", "Ollama", "gemma-2b.gguf")]
    [InlineData("file://models/a.gguf", "Local", "a.gguf")]
    [InlineData("ocifile://packages/backend.tar", "SavedImage", "backend.tar")]
    public void Addresses_are_read(string text, string kind, string fileName)
    {
        ArtifactUri.Parse(text).TryGet(out var uri, out _).ShouldBeTrue();
        (uri!.GetType().Name, uri.FileName).ShouldBe((kind, fileName));
    }

    [Theory]
    [InlineData("")]
    [InlineData("models.example/a")]
    [InlineData("ftp://models.example/a")]
    [InlineData("https://u:p@models.example/a")]
    [InlineData("https://models.example/a b")]
    [InlineData("hf://o")]
    [InlineData("hf://../r/f")]
    [InlineData("hf://o/r/../f")]
    [InlineData("hf://o/r/f@../../x")]
    [InlineData("github:o/r")]
    [InlineData("github:o/r/f@a b")]
    [InlineData("oci://UPPER/case:1")]
    [InlineData("oci://host.example/../x")]
    [InlineData("oci://host.example/r@sha256:12")]
    [InlineData("ollama://")]
    [InlineData("ollama://a/b/c")]
    [InlineData("file://")]
    [InlineData("file://../x")]
    [InlineData("file:///a/../../x")]
    [InlineData("ocifile://")]
    [InlineData("ocifile://../x.tar")]
    public void Addresses_that_are_none_are_refused(string text) => ArtifactUri.Parse(text).Failure!.Field.ShouldBe("uri");

    [Fact]
    public async Task File_of_Hugging_Face_comes_with_the_token_that_goes_nowhere_else()
    {
        await using var storage = await FileServer.StartAsync();
        var weights = storage.Put("/blob?signature=x", FileServer.Bytes(1000));
        _server.Put("/o/r/resolve/v1/d/f.gguf", []).RedirectTo = storage.Url("/blob?signature=x");
        var request = Pulls.Model("m", Pulls.From("hf://o/r/d/f.gguf@v1", sha256: weights.Sha256));
        request.HuggingFaceToken = "hf_token";

        (await Pulls.DoAsync(_node, request)).Phase.ShouldBe(PullPhase.Done);

        Content("models/m/f.gguf").ShouldBe(weights.Content);
        (_server.Requests.Single().Authorization, storage.Requests.Single().Authorization).ShouldBe(("Bearer hf_token", ""));
    }

    [Fact]
    public async Task Repository_of_Hugging_Face_comes_whole_of_one_commit_and_without_pickles()
    {
        var sha = new string('a', 40);
        var weights = _server.Put($"/o/r/resolve/{sha}/model.safetensors", FileServer.Bytes(5000));
        _server.Put($"/o/r/resolve/{sha}/sub/config.json", "{}"u8.ToArray());
        _server.Put("/api/models/o/r/revision/main?blobs=true", JsonSerializer.SerializeToUtf8Bytes(new
        {
            sha,
            siblings = new object[]
            {
                new { rfilename = "model.safetensors", size = 5000, lfs = new { sha256 = weights.Sha256 } }, new { rfilename = "sub/config.json", size = 2 }, new { rfilename = "pytorch_model.bin", size = 7 },
            },
        }));

        var pull = await Pulls.DoAsync(_node, Pulls.Model("m", Pulls.From("huggingface://o/r")));

        (pull.Phase, pull.Error, pull.TotalBytes, pull.Files).ShouldBe((PullPhase.Done, "", 5002, 2));
        Content("models/m/model.safetensors").ShouldBe(weights.Content);
        Content("models/m/sub/config.json").ShouldBe("{}"u8.ToArray());
    }

    [Fact]
    public async Task Repository_of_pickles_alone_is_refused()
    {
        _server.Put("/api/models/o/r/revision/main?blobs=true", JsonSerializer.SerializeToUtf8Bytes(new { sha = new string('a', 40), siblings = new[] { new { rfilename = "pytorch_model.bin", size = 7 } } }));

        (await Pulls.DoAsync(_node, Pulls.Model("m", Pulls.From("hf://o/r")))).ErrorCode.ShouldBe("pickle_refused");
    }

    [Fact]
    public async Task File_of_GitHub_comes_from_its_branch()
    {
        var file = _server.Put("/raw/o/r/master/gallery/index.yaml", "- name: x"u8.ToArray());

        (await Pulls.DoAsync(_node, Pulls.Model("m", Pulls.From("github:o/r/gallery/index.yaml@master")))).Phase.ShouldBe(PullPhase.Done);
        Content("models/m/index.yaml").ShouldBe(file.Content);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Image_is_unpacked_for_this_machine_with_a_token_of_its_registry(bool isList)
    {
        var image = _registry.Push("team/backend", isList ? "image" : "v1",
            Archives.Tar(Archives.File("run.sh", "#!/bin/sh\necho 1"), Archives.File("lib/old", "x")),
            Empty, Archives.Gzip(Archives.Tar(Archives.File("run.sh", "#!/bin/sh\necho 2"), Archives.File("lib/.wh.old", ""))), Empty,
            new ZstdSharp.Compressor().Wrap(Archives.Tar(Archives.File("lib/new", "y"))).ToArray());
        if (isList)
            image = _registry.PushIndex("team/backend", "v1", ("s390x", "sha256:" + new string('0', 64)), (Architecture, image));

        var pull = await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From($"oci://{_registry.Host}/team/backend:v1", sha256: image["sha256:".Length..])));

        (pull.Phase, pull.Error, pull.Digest, pull.Files).ShouldBe((PullPhase.Done, "", image, 5));
        Content("backends/b/run.sh").ShouldBe("#!/bin/sh\necho 2"u8.ToArray());
        Directory.GetFiles(Path.Combine(_surroundings.Data, "backends/b/lib")).Select(Path.GetFileName).ShouldBe(["new"]);
        (await Pulls.InstalledAsync(_node, "b"))!.Digest.ShouldBe(image);
        _registry.Files.Requests.Count(asked => asked.Path.StartsWith("/token", StringComparison.Ordinal)).ShouldBe(1);
    }

    [Fact]
    public async Task Layer_that_is_not_what_the_manifest_says_is_refused()
    {
        var layer = Archives.Tar(Archives.File("run.sh", "#!/bin/sh"));
        _registry.Push("team/bad", "v1", layer);
        _registry.BlobOf("team/bad", layer).Content = Archives.Tar(Archives.File("run.sh", "#!/bin/ev"));
        var missing = _registry.PushIndex("team/other", "v1", ("s390x", "sha256:" + new string('0', 64)));

        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From($"oci://{_registry.Host}/team/bad:v1")))).ErrorCode.ShouldBe("hash_mismatch");
        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From($"oci://{_registry.Host}/team/other:v1")))).Error.ShouldContain($"no image for linux/{Architecture}");
        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From($"oci://{_registry.Host}/team/other@{missing}", sha256: new string('1', 64))))).ErrorCode.ShouldBe("hash_mismatch");
        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From($"oci://{_registry.Host}/team/none:v1")))).ErrorCode.ShouldBe("not_found");
        (await Pulls.InstalledAsync(_node, "b")).ShouldBeNull();
    }

    [Fact]
    public async Task Weights_of_an_Ollama_model_are_taken_out_of_it()
    {
        var weights = FileServer.Bytes(3000);
        _registry.Push("library/tiny", "1b", ("application/vnd.ollama.image.template", "{{ .Prompt }}"u8.ToArray()), ("application/vnd.ollama.image.model", weights));

        (await Pulls.DoAsync(_node, Pulls.Model("m", Pulls.From("ollama://tiny:1b")))).Phase.ShouldBe(PullPhase.Done);
        Content("models/m/tiny-1b.gguf").ShouldBe(weights);
    }

    [Fact]
    public async Task File_of_the_data_folder_is_copied_and_nothing_else_is()
    {
        var galleries = Directory.CreateDirectory(Path.Combine(_surroundings.Data, "galleries", "offline")).FullName;
        await File.WriteAllTextAsync(Path.Combine(galleries, "w.gguf"), "weights", Ct);
        await File.WriteAllTextAsync(Path.Combine(_surroundings.Data, "admin-key"), "secret", Ct);
        File.CreateSymbolicLink(Path.Combine(galleries, "link"), "../../admin-key");
        File.CreateSymbolicLink(Path.Combine(_surroundings.Data, "galleries", "up"), "..");

        var relative = await Pulls.DoAsync(_node, Pulls.Model("m", Pulls.From("file://galleries/offline/w.gguf")));
        var absolute = await Pulls.DoAsync(_node, Pulls.Model("n", Pulls.From($"file://{galleries}/w.gguf", "v/w.gguf")));

        (relative.Phase, absolute.Phase).ShouldBe((PullPhase.Done, PullPhase.Done));
        (File.ReadAllText(Path.Combine(_surroundings.Data, "models/m/w.gguf")), File.ReadAllText(Path.Combine(_surroundings.Data, "models/n/v/w.gguf"))).ShouldBe(("weights", "weights"));
        foreach (var uri in (string[])["file://admin-key", "file:///etc/passwd", $"file://{_surroundings.Data}/admin-key", "file://galleries/offline/link", "file://galleries/up/admin-key", "file://galleries/offline"])
            (await Pulls.DoAsync(_node, Pulls.Model("x", Pulls.From(uri)))).ErrorCode.ShouldBe("uri_invalid", uri);
        (await Pulls.DoAsync(_node, Pulls.Model("x", Pulls.From("file://galleries/none")))).ErrorCode.ShouldBe("not_found");
    }

    [Fact]
    public async Task Folder_of_the_data_folder_becomes_a_backend()
    {
        var folder = Directory.CreateDirectory(Path.Combine(_surroundings.Data, "backends", "made")).FullName;
        Directory.CreateDirectory(Path.Combine(folder, "lib"));
        await File.WriteAllTextAsync(Path.Combine(folder, "run.sh"), "#!/bin/sh", Ct);
        await File.WriteAllTextAsync(Path.Combine(folder, "lib", "a"), "a", Ct);

        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From("file://backends/made")))).Phase.ShouldBe(PullPhase.Done);
        File.Exists(Path.Combine(_surroundings.Data, "backends/b/lib/a")).ShouldBeTrue();
    }

    public async ValueTask DisposeAsync()
    {
        await _node.DisposeAsync();
        await _registry.DisposeAsync();
        await _server.DisposeAsync();
        _surroundings.Dispose();
    }

    private byte[] Content(string path) => File.ReadAllBytes(Path.Combine(_surroundings.Data, path));
}
