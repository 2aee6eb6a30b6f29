using System.Formats.Tar;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;
using ModelHost.Agent;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Nodes;

namespace ModelHost.Tests.Artifacts;

/// <summary>Images that were saved to files.</summary>
public sealed class SavedImageTests : IAsyncLifetime
{
    private const string Blobs = "blobs/sha256/";
    private static readonly byte[] s_lower = Archives.Tar(Archives.File("run.sh", "#!/bin/sh\necho 1"), Archives.File("lib/old", "x"));
    private static readonly byte[] s_upper = Archives.Gzip(Archives.Tar(Archives.File("run.sh", "#!/bin/sh\necho 2"), Archives.File("lib/.wh.old", "")));

    private readonly TestNode _surroundings = new();
    private LocalNode _node = null!;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private static string Architecture => RuntimeInformation.OSArchitecture == System.Runtime.InteropServices.Architecture.Arm64 ? "arm64" : "amd64";

    public async ValueTask InitializeAsync()
    {
        _node = await NodeRuns.OpenAsync(_surroundings, Pulls.Options());
        Directory.CreateDirectory(Path.Combine(_surroundings.Data, "packages"));
    }

    [Theory]
    [InlineData("layout", false)]
    [InlineData("layout", true)]
    [InlineData("list", false)]
    [InlineData("docker", false)]
    [InlineData("docker", true)]
    public async Task Layers_are_unpacked_one_over_the_other(string form, bool isCompressed)
    {
        var saved = form switch { "layout" => Layout(), "list" => List(Architecture), _ => Docker("a/layer.tar", "b/layer.tar") };
        var content = isCompressed ? Archives.Gzip(saved) : saved;

        var pull = await PullAsync(content, Hash(content));

        (pull.Phase, pull.Error, pull.Digest).ShouldBe((PullPhase.Done, "", "sha256:" + Hash(content)));
        var backend = Path.Combine(_surroundings.Data, "backends/b");
        File.ReadAllText(Path.Combine(backend, "run.sh")).ShouldBe("#!/bin/sh\necho 2");
        Directory.GetFiles(Path.Combine(backend, "lib")).ShouldBeEmpty();
        Directory.Exists(Path.Combine(_surroundings.Data, "backends/.staging/b")).ShouldBeFalse();
    }

    [Fact]
    public async Task Layer_that_comes_twice_is_a_link()
    {
        var saved = Archives.Tar(
            Archives.File("a/layer.tar", s_lower), Archives.Entry(TarEntryType.SymbolicLink, "b/layer.tar", "../a/layer.tar"), Archives.File("manifest.json", DockerManifest("a/layer.tar", "b/layer.tar")));

        (await PullAsync(saved)).Phase.ShouldBe(PullPhase.Done);
    }

    public static TheoryData<string, byte[], string, string> Bad() => new()
    {
        { "no archive", "nothing"u8.ToArray(), "archive_invalid", "no tar" },
        { "another archive", Archives.Tar(Archives.File("run.sh", "#!/bin/sh")), "archive_invalid", "no saved image" },
        { "two images", Archives.Tar(Archives.File("manifest.json", "[{}, {}]")), "archive_invalid", "holds one image" },
        { "no layers", Archives.Tar(Archives.File("manifest.json", """[{"Layers": []}]""")), "archive_invalid", "names no layers" },
        { "layer from outside", Archives.Tar(Archives.File("manifest.json", """[{"Layers": ["../../admin-key"]}]""")), "archive_invalid", "names no layers" },
        { "layer through a link", Archives.Tar(Archives.Entry(TarEntryType.SymbolicLink, "a", "../../.."), Archives.File("manifest.json", DockerManifest("a/admin-key"))), "archive_invalid", "not a place in the archive" },
        { "links in a circle", Archives.Tar(Archives.Entry(TarEntryType.SymbolicLink, "a", "b"), Archives.Entry(TarEntryType.SymbolicLink, "b", "a"), Archives.File("manifest.json", DockerManifest("a"))), "archive_invalid", "no file a" },
        { "too many layers", Archives.Tar(Archives.File("a", s_lower), Archives.File("manifest.json", DockerManifest([.. Enumerable.Repeat("a", 501)]))), "archive_invalid", "more than 500" },
        { "missing layer", Archives.Tar(Archives.File("manifest.json", DockerManifest("a/layer.tar"))), "archive_invalid", "no file layer.tar" },
        { "folder for a layer", Archives.Tar(Archives.Entry(TarEntryType.Directory, "a"), Archives.File("manifest.json", DockerManifest("a"))), "archive_invalid", "no file a" },
        { "text for a manifest", Archives.Tar(Archives.File("manifest.json", "{")), "archive_invalid", "no JSON" },
        { "index is a list", Archives.Tar(Archives.File("index.json", "[]")), "answer_invalid", "no manifest" },
        { "index names itself", Endless(), "archive_invalid", "do not end" },
        { "other machine", List("s390x"), "not_found", "no image for linux" },
        { "spoiled layer", Layout(spoiled: true), "hash_mismatch", "another hash" },
        { "bomb", Archives.Gzip(Archives.Tar(Archives.File("index.json", new byte[80 << 20]))), "too_large", "times its size" },
    };

    [Theory]
    [MemberData(nameof(Bad))]
    public async Task What_is_no_image_is_refused(string what, byte[] content, string code, string says)
    {
        await File.WriteAllTextAsync(Path.Combine(_surroundings.Data, "admin-key"), "secret", Ct);

        var pull = await PullAsync(content);

        (pull.Phase, pull.ErrorCode).ShouldBe((PullPhase.Failed, code), $"{what}: {pull.Error}");
        pull.Error.ShouldContain(says);
        (await Pulls.InstalledAsync(_node, "b")).ShouldBeNull();
    }

    [Fact]
    public async Task File_is_where_it_may_be_and_what_it_is_said_to_be()
    {
        (await PullAsync(Layout(), new string('0', 64))).ErrorCode.ShouldBe("hash_mismatch");
        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From("ocifile://packages")))).ErrorCode.ShouldBe("uri_invalid");
        Directory.CreateDirectory(Path.Combine(_surroundings.Data, "packages/folder"));
        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From("ocifile://packages/folder")))).ErrorCode.ShouldBe("uri_invalid");
        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From("ocifile:///etc/passwd")))).ErrorCode.ShouldBe("uri_invalid");
        (await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From("ocifile://packages/none.tar")))).ErrorCode.ShouldBe("not_found");
    }

    private async Task<Pull> PullAsync(byte[] saved, string sha256 = "")
    {
        await File.WriteAllBytesAsync(Path.Combine(_surroundings.Data, "packages/backend.tar"), saved, Ct);
        return await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From("ocifile://packages/backend.tar", sha256: sha256)));
    }

    private static byte[] Docker(string lower, string upper) =>
        Archives.Tar(Archives.File(lower, s_lower), Archives.File(upper, s_upper), Archives.File("manifest.json", DockerManifest(lower, upper)));

    private static string DockerManifest(params string[] layers) => JsonSerializer.Serialize(new[] { new { Config = "config.json", RepoTags = new[] { "team/backend:v1" }, Layers = layers } });

    private static byte[] Manifest() => JsonSerializer.SerializeToUtf8Bytes(new { schemaVersion = 2, layers = new[] { Descriptor(s_lower), Descriptor(s_upper) } });

    // as newer engines save: an index, and the old manifest beside it
    private static byte[] Layout(bool spoiled = false) => Archives.Tar(
        Archives.File(Blobs + Hash(s_lower), spoiled ? s_upper : s_lower), Archives.File(Blobs + Hash(s_upper), s_upper), Archives.File(Blobs + Hash(Manifest()), Manifest()),
        Archives.File("index.json", JsonSerializer.SerializeToUtf8Bytes(new { manifests = new[] { Descriptor(Manifest()) } })), Archives.File("manifest.json", "[]"), Archives.File("oci-layout", "{}"));

    private static byte[] List(string architecture)
    {
        var list = JsonSerializer.SerializeToUtf8Bytes(new
        {
            manifests = new[]
            {
                new { digest = "sha256:" + new string('0', 64), size = 1, platform = new { os = "unknown", architecture = "unknown" } },
                new { digest = "sha256:" + Hash(Manifest()), size = 1, platform = new { os = "linux", architecture } },
            },
        });
        return Archives.Tar(
            Archives.File(Blobs + Hash(s_lower), s_lower), Archives.File(Blobs + Hash(s_upper), s_upper), Archives.File(Blobs + Hash(Manifest()), Manifest()), Archives.File(Blobs + Hash(list), list),
            Archives.File("index.json", JsonSerializer.SerializeToUtf8Bytes(new { manifests = new[] { Descriptor(list) } })));
    }

    private static byte[] Endless()
    {
        var entries = new List<TarEntry>();
        var next = "{\"manifests\": []}"u8.ToArray();
        for (var i = 0; i < 10; i++)
        {
            entries.Add(Archives.File(Blobs + Hash(next), next));
            next = JsonSerializer.SerializeToUtf8Bytes(new { manifests = new[] { Descriptor(next) } });
        }
        return Archives.Tar([.. entries, Archives.File("index.json", next)]);
    }

    private static object Descriptor(byte[] content) => new { digest = "sha256:" + Hash(content), size = content.Length };

    private static string Hash(byte[] content) => Convert.ToHexStringLower(SHA256.HashData(content));

    public async ValueTask DisposeAsync()
    {
        await _node.DisposeAsync();
        _surroundings.Dispose();
    }
}
