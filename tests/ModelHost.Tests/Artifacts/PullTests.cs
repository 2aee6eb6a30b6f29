using ModelHost.Agent;
using ModelHost.Agent.Artifacts;
using ModelHost.Agent.Downloads;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Nodes;

namespace ModelHost.Tests.Artifacts;

/// <summary>Pulls of files from servers that do not always behave.</summary>
public sealed class PullTests : IAsyncLifetime
{
    private readonly TestNode _surroundings = new();
    private readonly DownloadOptions _options = Pulls.Options();
    private FileServer _server = null!;
    private LocalNode _node = null!;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await FileServer.StartAsync();
        _node = await NodeRuns.OpenAsync(_surroundings, _options);
    }

    [Fact]
    public async Task Download_that_breaks_off_goes_on_where_it_was()
    {
        var file = _server.Put("/w", FileServer.Bytes(400_000));
        (file.Cuts, file.CutAfter) = (3, 100_000);

        var pull = await PullAsync("m", Pulls.From(_server.Url("/w"), sha256: file.Sha256));

        (pull.Phase, pull.Error).ShouldBe((PullPhase.Done, ""));
        Content("m/w").ShouldBe(file.Content);
        _server.Requests.Select(asked => asked.Range).ShouldBe(["", "bytes=100000-", "bytes=200000-", "bytes=300000-"]);
        _server.Requests.Skip(1).ShouldAllBe(asked => asked.IfRange == file.ETag);
    }

    [Fact]
    public async Task Signature_in_an_address_is_not_told_while_it_is_unpacked()
    {
        var (folders, progress, told) = (new ArtifactFolders(_surroundings.Data), new PullProgress(() => { }), new Pull());
        var request = Pulls.Model("m", Pulls.From("https://models.example/w?signature=secret", "w"));
        var part = Path.Combine(Directory.CreateDirectory(folders.StagingOf(request.Kind, request.Name)).FullName, "part");
        await File.WriteAllTextAsync(part, "w", Ct);
        var fetched = new Fetched(request.Files[0].Uri, new Source.Files([new RemoteFile(new Uri(request.Files[0].Uri), "w")], IsFolder: false), [new DownloadedFile(part, new string('0', 64), 1)]);

        await new TreeBuilder(folders, _options, new DiskRoom(_surroundings.Data, 0)).BuildAsync(request, [fetched], progress, Ct);
        progress.Write(told);

        told.Detail.ShouldBe("https://models.example/w");
    }

    [Fact]
    public async Task File_that_changes_meanwhile_is_begun_anew()
    {
        var file = _server.Put("/w", FileServer.Bytes(400_000));
        file.HoldAfter = 100_000;
        var request = Pulls.Model("m", Pulls.From(_server.Url("/w")));
        await _node.PullAsync(request, Ct);
        await Pulls.UntilAsync(_node, request.PullId, pull => pull.DoneBytes == 100_000);

        var changed = _server.Put("/w", FileServer.Bytes(300_000, seed: 9));
        (file.Cuts, file.CutAfter) = (0, 0);
        await RestartAsync();
        var pull = await Pulls.EndAsync(_node, request.PullId);

        (pull.Phase, pull.Error).ShouldBe((PullPhase.Done, ""));
        Content("m/w").ShouldBe(changed.Content);
        _server.Requests[1].Range.ShouldBe("bytes=100000-");
    }

    [Fact]
    public async Task Server_without_ranges_is_asked_from_the_beginning()
    {
        var file = _server.Put("/w", FileServer.Bytes(400_000));
        (file.Ranges, file.ETag, file.Cuts, file.CutAfter) = (false, null, 1, 200_000);

        (await PullAsync("m", Pulls.From(_server.Url("/w")))).Phase.ShouldBe(PullPhase.Done);

        Content("m/w").ShouldBe(file.Content);
        _server.Requests.Select(asked => asked.Range).ShouldBe(["", ""]); // without ETag and hash, the rest might be of another file
    }

    [Fact]
    public async Task Pull_goes_on_by_itself_when_the_node_comes_back()
    {
        var (first, second) = (_server.Put("/a", FileServer.Bytes(50_000)), _server.Put("/b", FileServer.Bytes(400_000)));
        second.HoldAfter = 150_000;
        var request = Pulls.Model("m", Pulls.From(_server.Url("/a"), sha256: first.Sha256), Pulls.From(_server.Url("/b"), sha256: second.Sha256));
        request.HuggingFaceToken = "hf_x";
        await _node.PullAsync(request, Ct);
        // all bytes of the first have come before it is written down that it is whole
        await Pulls.UntilAsync(_node, request.PullId, pull => pull.DoneBytes == 200_000 && pull.FilesDone == 1);

        await RestartAsync();
        second.Release();
        var pull = await Pulls.EndAsync(_node, request.PullId);
        await RestartAsync();
        var still = await Pulls.StateAsync(_node, request.PullId);

        (pull.Phase, pull.DoneBytes, pull.TotalBytes, pull.FilesDone).ShouldBe((PullPhase.Done, 450_000, 450_000, 2));
        Content("m/b").ShouldBe(second.Content);
        _server.Requests.Count(asked => asked.Path == "/a").ShouldBe(1);
        _server.Requests[^1].Range.ShouldBe("bytes=150000-");
        still.ShouldBe(pull);
    }

    [Fact]
    public async Task Failed_pull_leaves_its_parts_to_the_next_of_the_name()
    {
        var (file, other) = (_server.Put("/w", FileServer.Bytes(400_000)), _server.Put("/x", FileServer.Bytes(10)));
        file.HoldAfter = 200_000;
        (other.HoldAfter, other.Cuts, other.CutAfter) = (5, 1, 5);
        var request = Pulls.Model("m", Pulls.From(_server.Url("/w"), sha256: file.Sha256), Pulls.From(_server.Url("/x")));
        await _node.PullAsync(request, Ct);
        await Pulls.UntilAsync(_node, request.PullId, pull => pull.DoneBytes == 200_005);
        for (var i = 0; i < 10; i++)
            other.Statuses.Enqueue(500);
        other.Release();
        var failed = await Pulls.EndAsync(_node, request.PullId);
        other.Statuses.Clear();
        file.Release();

        var pull = await PullAsync("m", Pulls.From(_server.Url("/w"), sha256: file.Sha256), Pulls.From(_server.Url("/x")));

        (failed.Phase, failed.ErrorCode, pull.Phase).ShouldBe((PullPhase.Failed, "http_status", PullPhase.Done));
        Content("m/w").ShouldBe(file.Content);
        _server.Requests.Where(asked => asked.Path == "/w").Select(asked => asked.Range).ShouldBe(["", "bytes=200000-"]);
    }

    [Fact]
    public async Task Mirror_is_asked_after_an_address_that_fails_for_good()
    {
        _server.Put("/wrong", FileServer.Bytes(1000, seed: 3));
        var good = _server.Put("/good", FileServer.Bytes(1000));

        var pull = await PullAsync("m", Pulls.From(_server.Url("/gone"), "w", good.Sha256, _server.Url("/wrong"), "http://192.0.2.1/w", _server.Url("/good")));

        (pull.Phase, pull.Error).ShouldBe((PullPhase.Done, ""));
        Content("m/w").ShouldBe(good.Content);
        (await Pulls.InstalledAsync(_node, "m"))!.Uris.ShouldBe([_server.Url("/good")]);
    }

    [Fact]
    public async Task Pull_that_was_put_off_goes_on_at_another_address_of_the_same_hash()
    {
        var (first, second) = (_server.Put("/first", FileServer.Bytes(400_000)), _server.Put("/second", FileServer.Bytes(400_000)));
        (first.HoldAfter, second.ETag) = (100_000, "\"another\"");
        var request = Pulls.Model("m", Pulls.From(_server.Url("/first"), "w", first.Sha256));
        await _node.PullAsync(request, Ct);
        await Pulls.UntilAsync(_node, request.PullId, pull => pull.DoneBytes == 100_000);
        await _node.CancelPullAsync(new CancelPullRequest { PullId = request.PullId, KeepPartial = true }, Ct);
        await Pulls.EndAsync(_node, request.PullId);

        var pull = await PullAsync("m", Pulls.From(_server.Url("/second"), "w", first.Sha256));

        pull.Phase.ShouldBe(PullPhase.Done);
        Content("m/w").ShouldBe(second.Content);
        (_server.Requests[^1].Range, _server.Requests[^1].IfRange).ShouldBe(("bytes=100000-", ""));
    }

    [Fact]
    public async Task Trouble_that_passes_is_waited_out()
    {
        var file = _server.Put("/w", FileServer.Bytes(1000));
        file.Statuses.Enqueue(503);
        file.Statuses.Enqueue(429);

        (await PullAsync("m", Pulls.From(_server.Url("/w")))).Phase.ShouldBe(PullPhase.Done);
        _server.Requests.Count.ShouldBe(3);
    }

    [Fact]
    public async Task Trouble_that_does_not_pass_ends_it()
    {
        var file = _server.Put("/w", FileServer.Bytes(1000));
        for (var i = 0; i < 10; i++)
            file.Statuses.Enqueue(502);

        var pull = await PullAsync("m", Pulls.From(_server.Url("/w")));

        (pull.Phase, pull.ErrorCode).ShouldBe((PullPhase.Failed, "http_status"));
        _server.Requests.Count.ShouldBe(3);
    }

    [Fact]
    public async Task File_of_unknown_length_is_taken_whole()
    {
        var file = _server.Put("/w", FileServer.Bytes(400_000));
        file.Chunked = true;

        (await PullAsync("m", Pulls.From(_server.Url("/w"), sha256: file.Sha256))).Phase.ShouldBe(PullPhase.Done);
        Content("m/w").ShouldBe(file.Content);
    }

    [Fact]
    public async Task What_is_too_large_or_finds_no_room_is_refused_before_it_comes()
    {
        var file = _server.Put("/w", FileServer.Bytes(400_000));
        _options.MaxFileBytes = 100_000;
        var large = await PullAsync("m", Pulls.From(_server.Url("/w")));
        file.Chunked = true;
        var untold = await PullAsync("m", Pulls.From(_server.Url("/w")));
        (_options.MaxFileBytes, _options.ReservedDiskBytes, file.Chunked) = (long.MaxValue, long.MaxValue / 2, false);
        await RestartAsync();
        var full = await PullAsync("m", Pulls.From(_server.Url("/w"), mirrors: _server.Url("/w?mirror")));

        (large.ErrorCode, untold.ErrorCode, full.ErrorCode).ShouldBe(("too_large", "too_large", "disk_full"));
        _server.Requests.ShouldAllBe(asked => asked.Path == "/w"); // a mirror has no more room
        Directory.Exists(Path.Combine(_surroundings.Data, "models", "m")).ShouldBeFalse();
    }

    [Theory]
    [InlineData("model.bin", new byte[] { 0x80, 2, (byte)'}', (byte)'q', 0, (byte)'.' })]
    [InlineData("weights.dat", new byte[] { 0x80, 4, 0x95, 1, 0, 0, 0, 0, 0, 0, 0, (byte)'.' })]
    [InlineData("notes.txt", new byte[] { (byte)'c', (byte)'o', (byte)'s', 10, (byte)'s', (byte)'y', (byte)'s', (byte)'t', (byte)'e', (byte)'m', 10, (byte)'(' })]
    public async Task Pickle_is_refused_by_what_is_in_it_unless_it_is_allowed(string name, byte[] content)
    {
        _server.Put("/" + name, content);
        var request = Pulls.Model("m", Pulls.From(_server.Url("/" + name)));
        var allowed = request.Clone();
        (allowed.PullId, allowed.AllowPickle) = (Guid.NewGuid().ToString(), true);

        var refused = await Pulls.DoAsync(_node, request);
        var taken = await Pulls.DoAsync(_node, allowed);

        (refused.Phase, refused.ErrorCode, taken.Phase).ShouldBe((PullPhase.Failed, "pickle_refused", PullPhase.Done));
    }

    [Fact]
    public async Task Pickle_in_an_archive_or_a_zip_of_PyTorch_is_refused()
    {
        _server.Put("/a.tar", Archives.Tar(Archives.File("deep/model.pkl", "x")));
        _server.Put("/w.bin", Archives.Zip(("readme", [1], 0), ("archive/data.pkl", [1], 0)));
        var inTar = Pulls.From(_server.Url("/a.tar"));
        inTar.Unpack = true;

        (await PullAsync("m", inTar)).ErrorCode.ShouldBe("pickle_refused");
        (await PullAsync("m", Pulls.From(_server.Url("/w.bin")))).ErrorCode.ShouldBe("pickle_refused");
    }

    [Fact]
    public async Task Archive_is_unpacked_into_its_folder()
    {
        var archive = _server.Put("/voices.tar.gz", Archives.Gzip(Archives.Tar(Archives.File("a/one.onnx", "1"), Archives.File("two.onnx", "2"))));
        var file = Pulls.From(_server.Url("/voices.tar.gz"), "voices", archive.Sha256);
        file.Unpack = true;

        var pull = await PullAsync("m", file);

        (pull.Phase, pull.Digest).ShouldBe((PullPhase.Done, "sha256:" + archive.Sha256));
        (File.ReadAllText(Path.Combine(_surroundings.Data, "models/m/voices/a/one.onnx")), File.ReadAllText(Path.Combine(_surroundings.Data, "models/m/voices/two.onnx"))).ShouldBe(("1", "2"));
    }

    [Fact]
    public async Task Bad_archive_fails_the_pull_and_changes_nothing()
    {
        _server.Put("/bad.tar", Archives.Tar(Archives.File("run.sh", "#!"), Archives.File("../../../evil", "x")));

        var pull = await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From(_server.Url("/bad.tar"))));

        (pull.Phase, pull.ErrorCode).ShouldBe((PullPhase.Failed, "archive_invalid"));
        Directory.EnumerateFiles(_surroundings.Data, "evil", SearchOption.AllDirectories).ShouldBeEmpty();
        Directory.Exists(Path.Combine(_surroundings.Data, "backends", "b")).ShouldBeFalse();
    }

    [Fact]
    public async Task Backend_needs_something_to_run_and_gets_its_metadata()
    {
        _server.Put("/empty.zip", Archives.Zip(("readme", [1], 0)));
        _server.Put("/v1.zip", Archives.Zip(("run.sh", "#!/bin/sh"u8.ToArray(), 0), ("metadata.json", """{"alias":"brought","name":"x"}"""u8.ToArray(), 0)));
        var request = Pulls.Backend("b", Pulls.From(_server.Url("/v1.zip")));
        request.Version = "1.2";

        var empty = await Pulls.DoAsync(_node, Pulls.Backend("b", Pulls.From(_server.Url("/empty.zip"))));
        var pull = await Pulls.DoAsync(_node, request);

        (empty.ErrorCode, empty.Error.Contains("run.sh", StringComparison.Ordinal)).ShouldBe(("install_failed", true));
        pull.Phase.ShouldBe(PullPhase.Done);
        var folder = Path.Combine(_surroundings.Data, "backends", "b");
        File.GetUnixFileMode(Path.Combine(folder, "run.sh")).HasFlag(UnixFileMode.UserExecute).ShouldBeTrue();
        var metadata = System.Text.Json.JsonDocument.Parse(await File.ReadAllTextAsync(Path.Combine(folder, "metadata.json"), Ct)).RootElement;
        (metadata.GetProperty("name").GetString(), metadata.GetProperty("alias").GetString(), metadata.GetProperty("version").GetString(), metadata.GetProperty("digest").GetString())
            .ShouldBe(("x", "brought", "1.2", pull.Digest));
        metadata.GetProperty("installed_at").GetDateTimeOffset().ShouldBeGreaterThan(DateTimeOffset.UtcNow.AddHours(-1));
    }

    [Fact]
    public async Task Pulls_of_one_name_come_one_after_the_other()
    {
        var (slow, quick) = (_server.Put("/1", FileServer.Bytes(1000)), _server.Put("/2", FileServer.Bytes(1000, seed: 2)));
        slow.HoldAfter = 500;
        var (first, second) = (Pulls.Model("m", Pulls.From(_server.Url("/1"), "w")), Pulls.Model("m", Pulls.From(_server.Url("/2"), "w")));

        await _node.PullAsync(first, Ct);
        await Pulls.UntilAsync(_node, first.PullId, pull => pull.DoneBytes == 500);
        await _node.PullAsync(second, Ct);
        var waiting = await Pulls.StateAsync(_node, second.PullId);
        var refused = await Should.ThrowAsync<InvalidOperationException>(() => _node.DeleteArtifactAsync(new DeleteArtifactRequest { Kind = ArtifactKind.Model, Name = "m" }, Ct));
        slow.Release();
        await Pulls.EndAsync(_node, second.PullId);

        (waiting!.Phase, refused.Message.Contains("at work", StringComparison.Ordinal)).ShouldBe((PullPhase.Queued, true));
        Content("m/w").ShouldBe(quick.Content);
    }

    [Fact]
    public async Task File_that_is_there_with_the_right_hash_is_not_downloaded_again()
    {
        var (same, old, next) = (_server.Put("/same", FileServer.Bytes(1000)), _server.Put("/old", FileServer.Bytes(10)), _server.Put("/next", FileServer.Bytes(20)));
        await PullAsync("m", Pulls.From(_server.Url("/same"), "a", same.Sha256), Pulls.From(_server.Url("/old"), "b", old.Sha256));

        var upgrade = await PullAsync("m", Pulls.From(_server.Url("/same"), "c", same.Sha256), Pulls.From(_server.Url("/next"), "b", next.Sha256));
        await File.WriteAllTextAsync(Path.Combine(_surroundings.Data, "models/m/c"), "spoiled", Ct);
        var repair = await PullAsync("m", Pulls.From(_server.Url("/same"), "c", same.Sha256));

        (upgrade.Phase, upgrade.DoneBytes, repair.Phase).ShouldBe((PullPhase.Done, 1020, PullPhase.Done));
        Directory.GetFiles(Path.Combine(_surroundings.Data, "models/m")).Select(Path.GetFileName).Order().ShouldBe([".modelhost.json", "c"]);
        Content("m/c").ShouldBe(same.Content);
        _server.Requests.Select(asked => asked.Path).Count(path => path == "/same").ShouldBe(2); // once, and for the repair
    }

    [Fact]
    public async Task Pull_after_an_interrupted_exchange_finds_the_old_one_again()
    {
        var file = _server.Put("/w", FileServer.Bytes(1000));
        await PullAsync("m", Pulls.From(_server.Url("/w")));
        var staging = Directory.CreateDirectory(Path.Combine(_surroundings.Data, "models", ".staging", "m")).FullName;
        Directory.Move(Path.Combine(_surroundings.Data, "models", "m"), Path.Combine(staging, "old"));

        await RestartAsync();

        Content("m/w").ShouldBe(file.Content);
    }

    public async ValueTask DisposeAsync()
    {
        await _node.DisposeAsync();
        await _server.DisposeAsync();
        _surroundings.Dispose();
    }

    private async Task RestartAsync()
    {
        await _node.DisposeAsync();
        _node = await NodeRuns.OpenAsync(_surroundings, _options);
    }

    private Task<Pull> PullAsync(string name, params PullFile[] files) => Pulls.DoAsync(_node, Pulls.Model(name, files));

    private byte[] Content(string path) => File.ReadAllBytes(Path.Combine(_surroundings.Data, "models", path));
}
