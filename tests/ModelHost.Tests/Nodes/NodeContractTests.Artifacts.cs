using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Artifacts;
using ModelHost.Tests.Docker;

namespace ModelHost.Tests.Nodes;

/// <content>What every node promises about models and backends.</content>
public abstract partial class NodeContractTests
{
    [Fact]
    public async Task Model_is_pulled_listed_and_deleted()
    {
        await using var node = await StartAsync();
        await using var server = await FileServer.StartAsync();
        var (weights, config) = (server.Put("/weights.gguf", FileServer.Bytes(300_000)), server.Put("/config.json", "{}"u8.ToArray()));
        var request = Pulls.Model("tiny", Pulls.From(server.Url("/weights.gguf"), "weights/w.gguf", weights.Sha256), Pulls.From(server.Url("/config.json")));
        (request.Version, request.Metadata) = ("1.0", """{"licence":"mit"}""");

        var pull = await Pulls.DoAsync(node.Link, request);
        var installed = await Pulls.InstalledAsync(node.Link, "tiny");
        await node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Model, Name = "tiny" }, Ct);
        var after = await Pulls.InstalledAsync(node.Link, "tiny");
        await node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Model, Name = "tiny" }, Ct);

        (pull.Phase, pull.Error, pull.DoneBytes, pull.TotalBytes, pull.Files, pull.FilesDone).ShouldBe((PullPhase.Done, "", 300_002, 300_002, 2, 2));
        pull.Digest.ShouldBe(installed!.Digest);
        (installed.Version, installed.Metadata, installed.PullId, installed.SizeBytes).ShouldBe(("1.0", """{"licence":"mit"}""", request.PullId, 300_002));
        installed.Files.Select(file => $"{file.Path} {file.SizeBytes} {file.Sha256}").ShouldBe([$"weights/w.gguf 300000 {weights.Sha256}", $"config.json 2 {config.Sha256}"], ignoreOrder: true);
        after.ShouldBeNull();
        Directory.Exists(Path.Combine(node.Data, "models", "tiny")).ShouldBeFalse();
    }

    [Fact]
    public async Task Pull_that_is_asked_for_again_is_not_done_again()
    {
        await using var node = await StartAsync();
        await using var server = await FileServer.StartAsync();
        server.Put("/a.gguf", FileServer.Bytes(1000));
        var request = Pulls.Model("again", Pulls.From(server.Url("/a.gguf")));

        await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => node.Link.PullAsync(request, Ct)));
        await Pulls.EndAsync(node.Link, request.PullId);
        await Pulls.DoAsync(node.Link, request);

        server.Requests.Count.ShouldBe(1);
    }

    [Fact]
    public async Task Failed_pull_says_why_and_leaves_what_was_there()
    {
        await using var node = await StartAsync();
        await using var server = await FileServer.StartAsync();
        var good = server.Put("/v1", FileServer.Bytes(1000));
        server.Put("/v2", FileServer.Bytes(1000, seed: 2));
        await Pulls.DoAsync(node.Link, Pulls.Model("kept", Pulls.From(server.Url("/v1"), "w.gguf")));

        var pull = await Pulls.DoAsync(node.Link, Pulls.Model("kept", Pulls.From(server.Url("/v2"), "w.gguf", new string('0', 64))));
        var missing = await Pulls.DoAsync(node.Link, Pulls.Model("kept", Pulls.From(server.Url("/v3"), "w.gguf")));

        (pull.Phase, pull.ErrorCode).ShouldBe((PullPhase.Failed, "hash_mismatch"));
        (missing.Phase, missing.ErrorCode).ShouldBe((PullPhase.Failed, "not_found"));
        File.ReadAllBytes(Path.Combine(node.Data, "models", "kept", "w.gguf")).ShouldBe(good.Content);
        (await Pulls.InstalledAsync(node.Link, "kept"))!.Digest.ShouldBe("sha256:" + good.Sha256);
    }

    [Fact]
    public async Task Held_pull_takes_its_place_when_it_may_and_not_before()
    {
        await using var node = await StartAsync();
        await using var server = await FileServer.StartAsync();
        var (before, after) = (server.Put("/v1", FileServer.Bytes(1000)), server.Put("/v2", FileServer.Bytes(300_000, seed: 2)));
        after.HoldAfter = 1000;
        await Pulls.DoAsync(node.Link, Pulls.Model("held", Pulls.From(server.Url("/v1"), "w.gguf")));
        var request = Pulls.Held("held", Pulls.From(server.Url("/v2"), "w.gguf", after.Sha256));
        var commit = new CommitPullRequest { PullId = request.PullId };
        byte[] Content() => File.ReadAllBytes(Path.Combine(node.Data, "models", "held", "w.gguf"));

        var unknown = await Should.ThrowAsync<InvalidOperationException>(() => node.Link.CommitPullAsync(commit, Ct));
        await node.Link.PullAsync(request, Ct);
        await Pulls.UntilAsync(node.Link, request.PullId, pull => pull.DoneBytes == 1000);
        var early = await Should.ThrowAsync<InvalidOperationException>(() => node.Link.CommitPullAsync(commit, Ct));
        after.Release();
        var staged = await Pulls.UntilAsync(node.Link, request.PullId, pull => pull.Phase == PullPhase.Staged);
        var (content, installed) = (Content(), await Pulls.InstalledAsync(node.Link, "held"));
        await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => node.Link.CommitPullAsync(commit, Ct)));
        var done = await Pulls.EndAsync(node.Link, request.PullId);
        await node.Link.CommitPullAsync(commit, Ct);

        (unknown.Message, early.Message).ShouldBe(("the pull is not known here", "the pull is not whole yet"));
        (staged.DoneBytes, staged.HasEndedAt, staged.Digest).ShouldBe((300_000, false, "sha256:" + after.Sha256));
        content.ShouldBe(before.Content);
        installed!.Digest.ShouldBe("sha256:" + before.Sha256);
        done.Phase.ShouldBe(PullPhase.Done);
        Content().ShouldBe(after.Content);
        (await Pulls.InstalledAsync(node.Link, "held"))!.PullId.ShouldBe(request.PullId);
    }

    [Fact]
    public async Task Cancelled_pull_ends_and_leaves_nothing()
    {
        await using var node = await StartAsync();
        await using var server = await FileServer.StartAsync();
        server.Put("/big", FileServer.Bytes(500_000)).HoldAfter = 200_000;
        var request = Pulls.Model("ended", Pulls.From(server.Url("/big"), "w.gguf"));

        await node.Link.PullAsync(request, Ct);
        var before = await Pulls.UntilAsync(node.Link, request.PullId, pull => pull.DoneBytes == 200_000);
        await node.Link.CancelPullAsync(new CancelPullRequest { PullId = request.PullId }, Ct);
        var pull = await Pulls.EndAsync(node.Link, request.PullId);
        await node.Link.CancelPullAsync(new CancelPullRequest { PullId = request.PullId }, Ct);

        (before.Phase, before.TotalBytes).ShouldBe((PullPhase.Downloading, 500_000));
        pull.Phase.ShouldBe(PullPhase.Cancelled);
        Directory.GetFileSystemEntries(Path.Combine(node.Data, "models", ".staging")).ShouldBeEmpty();
        (await Pulls.InstalledAsync(node.Link, "ended")).ShouldBeNull();
    }

    [Fact]
    public async Task Pull_that_was_cancelled_before_it_came_does_not_begin()
    {
        await using var node = await StartAsync();
        await using var server = await FileServer.StartAsync();
        server.Put("/a", FileServer.Bytes(10));
        var (late, other) = (Pulls.Model("late", Pulls.From(server.Url("/a"))), Pulls.Model("other", Pulls.From(server.Url("/a"))));

        await node.Link.CancelPullAsync(new CancelPullRequest { PullId = late.PullId }, Ct);
        await node.Link.PullAsync(late, Ct);
        await Pulls.DoAsync(node.Link, other);

        (await Pulls.InstalledAsync(node.Link, "late")).ShouldBeNull();
        server.Requests.Count.ShouldBe(1);
    }

    [Fact]
    public async Task Pulls_that_make_no_sense_are_an_ArgumentException()
    {
        await using var node = await StartAsync();
        var good = Pulls.Model("m", Pulls.From("https://models.example/a.gguf"));
        (string Says, Action<PullRequest> Spoil)[] bad =
        [
            ("pull_id", r => r.PullId = "../../x"),
            ("kind", r => r.Kind = ArtifactKind.Unspecified),
            ("name", r => r.Name = "../m"),
            ("name", r => r.Name = ".staging"),
            ("name", r => r.Name = "huggingface"),
            ("name", r => r.Name = ""),
            ("files", r => r.Files.Clear()),
            ("files[0].uri", r => r.Files[0].Uri = "ftp://models.example/a"),
            ("files[0].uri", r => r.Files[0].Uri = "https://user:secret@models.example/a"),
            ("files[0].uri", r => r.Files[0].Mirrors.Add("file://../../etc/shadow")),
            ("files[0].uri", r => r.Files[0].Uri = "https://models.example/pytorch_model.bin"),
            ("files[0].uri", r => r.Files[0].Uri = "https://models.example/a.ckpt"),
            ("files[0].path", r => r.Files[0].Path = "../a"),
            ("files[0].path", r => r.Files[0].Path = "/etc/passwd"),
            ("files[0].path", r => r.Files[0].Path = ".modelhost.json"),
            ("files[0].sha256", r => r.Files[0].Sha256 = "abc"),
            ("files[1].uri", r => r.Files.Add(r.Files[0].Clone())),
            ("files[1].path", r => { r.Files[0].Path = "a"; r.Files.Add(Pulls.From("https://models.example/b.gguf", "a")); }),
            ("metadata", r => r.Metadata = "[1]"),
            ("metadata", r => r.Metadata = "{"),
            ("hugging_face_token", r => r.HuggingFaceToken = "a\r\nX-Evil: 1"),
            ("name", r => (r.Kind, r.Name) = (ArtifactKind.Image, "busybox")),
            ("hold", r => (r.Kind, r.Name, r.Hold) = (ArtifactKind.Image, "busybox:1", true)),
        ];

        foreach (var (says, spoil) in bad)
        {
            var request = good.Clone();
            spoil(request);
            if (request.Kind == ArtifactKind.Image)
                request.Files.Clear();
            (await Should.ThrowAsync<ArgumentException>(() => node.Link.PullAsync(request, Ct), says)).Message.ShouldStartWith(says + ":");
        }
        await Should.ThrowAsync<ArgumentException>(() => node.Link.CancelPullAsync(new CancelPullRequest { PullId = "x" }, Ct));
        await Should.ThrowAsync<ArgumentException>(() => node.Link.CommitPullAsync(new CommitPullRequest { PullId = "x" }, Ct));
        await Should.ThrowAsync<ArgumentException>(() => node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Model, Name = ".." }, Ct));
        await Should.ThrowAsync<ArgumentException>(() => node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Image, Name = "busybox" }, Ct));
        await Should.ThrowAsync<ArgumentException>(() => node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Image, Name = "-f/../x:1" }, Ct));
        await Should.ThrowAsync<ArgumentException>(() => node.Link.ArtifactsAsync(new ArtifactsRequest { ImageRepositories = { "Not A Repository" } }, Ct));
        (await node.Link.ReportAsync(new ReportRequest(), Ct)).Pulls.ShouldBeEmpty();
    }

    [Fact]
    public async Task What_no_pull_installed_is_listed_and_stays()
    {
        await using var node = await StartAsync();
        var folder = Directory.CreateDirectory(Path.Combine(node.Data, "backends", "mine")).FullName;
        await File.WriteAllTextAsync(Path.Combine(folder, "metadata.json"), """{"name":"mine"}""", Ct);

        var listed = await Pulls.InstalledAsync(node.Link, "mine");
        var refused = await Should.ThrowAsync<InvalidOperationException>(
            () => node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Backend, Name = "mine" }, Ct));

        (listed!.PullId, listed.Metadata).ShouldBe(("", """{"name":"mine"}"""));
        refused.Message.ShouldContain("'mine'");
        Directory.Exists(folder).ShouldBeTrue();
    }

    [Fact]
    public async Task Image_is_pulled_listed_and_deleted_when_nothing_uses_it()
    {
        await using var engine = await ImageEngine.StartAsync();
        await using var node = await StartAsync(engine.Endpoint);
        var deletion = new DeleteArtifactRequest { Kind = ArtifactKind.Image, Name = "registry.example/team/engine:v1" };
        engine.Images["registry.example/team/engine:v0"] = "sha256:0";

        await Pulls.DoAsync(node.Link, new PullRequest { PullId = Guid.NewGuid().ToString(), Kind = ArtifactKind.Image, Name = deletion.Name });
        var listed = (await node.Link.ArtifactsAsync(new ArtifactsRequest { ImageRepositories = { "registry.example/team/engine" } }, Ct)).Artifacts.ToDictionary(image => image.Version);
        engine.Containers.Enqueue(("web", "exited", engine.Next));
        var used = await Should.ThrowAsync<InvalidOperationException>(() => node.Link.DeleteArtifactAsync(deletion, Ct));
        engine.Containers.Clear();
        await node.Link.DeleteArtifactAsync(deletion, Ct);
        await node.Link.DeleteArtifactAsync(deletion, Ct);
        var others = await Should.ThrowAsync<InvalidOperationException>(() => node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Image, Name = "registry.example/team/engine:v0" }, Ct));

        (listed["v0"].HasInstalledAt, listed["v1"].HasInstalledAt).ShouldBe((false, true));
        (used.Message, others.Message).ShouldBe(("container web uses it (exited)", "it was not pulled by ModelHost"));
        engine.Images.Keys.ShouldBe(["registry.example/team/engine:v0"]);
    }

    [Fact]
    public async Task Images_of_an_engine_that_is_silent_are_not_taken_for_gone()
    {
        await using var node = await StartAsync();

        var failure = await Should.ThrowAsync<Exception>(() => node.Link.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Image, Name = "registry.example/team/engine:v1" }, Ct));

        (failure is InvalidOperationException or ArgumentException).ShouldBeFalse(failure.ToString());
        failure.Message.ShouldContain("no-docker.sock");
    }

    [Fact]
    public async Task Token_stands_in_no_report_and_no_list()
    {
        await using var node = await StartAsync();
        await using var server = await FileServer.StartAsync();
        server.Put("/a", FileServer.Bytes(10));
        var request = Pulls.Model("secret", Pulls.From(server.Url("/a")));
        request.HuggingFaceToken = "hf_not-for-anybody";

        await Pulls.DoAsync(node.Link, request);
        var report = await node.Link.ReportAsync(new ReportRequest(), Ct);
        var list = await node.Link.ArtifactsAsync(new ArtifactsRequest(), Ct);

        (report.ToString() + list).ShouldNotContain("hf_not-for-anybody");
        FolderText.Read(node.Data).ShouldAllBe(text => !text.Contains("hf_not-for-anybody"));
        server.Requests.ShouldAllBe(asked => asked.Authorization == ""); // it is not the address of Hugging Face
    }
}
