using System.Text;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Features.Events;
using ModelHost.Features.Galleries;
using ModelHost.TestKit;

namespace ModelHost.Tests.Galleries;

/// <summary>Galleries are added, removed and read, whatever some of them do.</summary>
public sealed class GalleryTests
{
    private const string Index = "- {name: phi, license: mit, files: [{filename: phi.gguf, uri: 'hf://a/b/phi.gguf'}]}\n";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Galleries_are_added_and_removed_and_the_new_list_is_the_answer()
    {
        using var node = new TestNode();
        await using (var host = await ControlPlane.StartAsync(node))
        {
            (await host.Client.GetStringAsync("/models/galleries", Ct)).ShouldBe("""[{"url":"builtin:models","name":"modelhost"}]""");
            (await host.Client.GetStringAsync("/backends/galleries", Ct)).ShouldBe("""[{"url":"builtin:backends","name":"modelhost"}]""");

            (await SendAsync(host, HttpMethod.Post, """{"name":"own","url":"github:owner/repo/index.yaml@master","mirrors":["https://example.org/i.yaml"]}""")).ShouldBe((200,
                """[{"url":"builtin:models","name":"modelhost"},{"url":"github:owner/repo/index.yaml@master","mirrors":["https://example.org/i.yaml"],"name":"own"}]"""));
            (await SendAsync(host, HttpMethod.Post, """{"name":"OWN","url":"https://example.org/"}""")).ShouldBe((500, """{"error":{"code":500,"message":"OWN already exists","type":""}}"""));
            (await SendAsync(host, HttpMethod.Delete, """{"name":"modelhost"}""")).Status.ShouldBe(200);
            (await SendAsync(host, HttpMethod.Delete, """{"name":"modelhost"}""")).ShouldBe((500, """{"error":{"code":500,"message":"modelhost is not currently registered","type":""}}"""));
        }
        await using var again = await ControlPlane.StartAsync(node);
        (await again.Client.JsonAsync("/models/galleries")).EnumerateArray().Select(gallery => gallery.GetProperty("name").GetString()).ShouldBe(["own"]);
        (await SendAsync(again, HttpMethod.Post, """{"name":"modelhost","url":"builtin:models"}""")).Status.ShouldBe(200);
        (await SendAsync(again, HttpMethod.Delete, """{"name":"own"}""")).Body.ShouldBe("""[{"url":"builtin:models","name":"modelhost"}]""");
    }

    [Theory]
    [InlineData("""{"url":"https://example.org"}""", "name")]
    [InlineData("""{"name":"a@b","url":"https://example.org"}""", "name")]
    [InlineData("""{"name":"../x","url":"https://example.org"}""", "name")]
    [InlineData("""{"name":"a"}""", "url")]
    [InlineData("""{"name":"a","url":"ftp://example.org"}""", "url")]
    [InlineData("""{"name":"a","url":"https://user:secret@example.org"}""", "url")]
    [InlineData("""{"name":"a","url":"file:///etc/passwd"}""", "url")]
    [InlineData("""{"name":"a","url":"file://../galleries/x"}""", "url")]
    [InlineData("""{"name":"a","url":"file://admin-key"}""", "url")]
    [InlineData("""{"name":"a","url":"github:owner"}""", "url")]
    [InlineData("""{"name":"a","url":"https://example.org","mirrors":["x"]}""", "mirrors")]
    [InlineData("""{"name":"a","url":"https://example.org","mirrors":[null]}""", "mirrors")]
    [InlineData("""{"name":"a","url":"https://example.org","verification":[]}""", "verification")]
    public async Task Bad_galleries_are_refused_by_the_name_of_the_field(string body, string field)
    {
        await using var host = await ControlPlane.StartAsync();

        var (status, answer) = await SendAsync(host, HttpMethod.Post, body);

        status.ShouldBe(400);
        var error = JsonNode.Parse(answer)!["error"]!;
        error["message"]!.GetValue<string>().ShouldStartWith($"{field}: ");
        answer.ShouldNotContain("secret");
        (await host.Client.JsonAsync("/models/galleries")).GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task Changes_of_galleries_are_told()
    {
        await using var host = await ControlPlane.StartAsync();
        using var changes = host.Services.GetRequiredService<ChangeFeed>().Subscribe(10_000);
        await SendAsync(host, HttpMethod.Post, """{"name":"a","url":"https://example.org"}""");
        await SendAsync(host, HttpMethod.Delete, """{"name":"a"}""");
        await SendAsync(host, HttpMethod.Delete, """{"name":"a"}""");
        changes.Dispose();

        (await changes.ReadAllAsync(Ct).ToListAsync(Ct)).Count(change => change.Kind == ChangeKind.Galleries).ShouldBe(2);
    }

    [Fact]
    public async Task A_gallery_is_asked_once_and_then_whether_it_has_changed()
    {
        await using var server = await FileServer.StartAsync();
        var url = Put(server, "/index.yaml", Index);
        using var node = new TestNode();
        await using (var host = await StartAsync(node))
        {
            (await ReadAsync(host, url)).Entries.Single().Name.ShouldBe("phi");
            (await ReadAsync(host, url)).Error.ShouldBeNull();
        }
        await using var again = await StartAsync(node);
        (await ReadAsync(again, url)).Entries.Single().Name.ShouldBe("phi");

        var etag = server.Requests[1].IfNoneMatch;
        etag.ShouldNotBeEmpty();
        server.Requests.Select(request => request.IfNoneMatch).ShouldBe(["", etag]);
    }

    [Fact]
    public async Task Mirrors_and_then_the_copy_stand_in()
    {
        await using var server = await FileServer.StartAsync();
        var url = Put(server, "/index.yaml", "");
        var mirror = Put(server, "/mirror.yaml", Index);
        // the first reading, and the one that is tested
        server.Files["/index.yaml"].Statuses.Enqueue(503);
        server.Files["/index.yaml"].Statuses.Enqueue(503);
        using var node = new TestNode();
        await using (var host = await StartAsync(node))
            (await ReadAsync(host, url, mirror)).Error.ShouldBeNull();
        Put(server, "/mirror.yaml", "- [");
        await using var again = await StartAsync(node);

        var content = await ReadAsync(again, url, mirror);

        content.Entries.Single().Name.ShouldBe("phi");
        content.Error.ShouldNotBeNull().ShouldContain("503");
        content.Error.ShouldContain("is no gallery");
    }

    [Fact]
    public async Task A_gallery_that_hangs_breaks_or_has_no_end_hides_no_other()
    {
        await using var server = await FileServer.StartAsync();
        var fine = Put(server, "/fine.yaml", Index);
        var hangs = server.Put("/hangs.yaml", new byte[5000]);
        hangs.HoldAfter = 100;
        var cut = server.Put("/cut.yaml", new byte[50_000]);
        (cut.Cuts, cut.CutAfter) = (100, 20_000);
        server.Put("/endless.yaml", new byte[5_000_000]).Chunked = true;
        server.Put("/loop.yaml", []).RedirectTo = server.Url("/loop.yaml");
        Put(server, "/text.yaml", "<html></html>");
        var bad = new Dictionary<string, string>
        {
            ["has not answered yet"] = server.Url("/hangs.yaml"),
            ["longer"] = server.Url("/endless.yaml"),
            ["cut.yaml"] = server.Url("/cut.yaml"),
            ["404"] = server.Url("/none.yaml"),
            ["is no gallery"] = server.Url("/text.yaml"),
            ["redirects more"] = server.Url("/loop.yaml"),
        };
        using var node = new TestNode();
        await using var host = await StartAsync(node, "Galleries:Timeout=00:05:00", "Downloads:StallTimeout=00:05:00", "Galleries:Patience=00:00:01", "Galleries:MaxIndexBytes=2000000");
        var galleries = bad.Values.Append(fine).Select((url, i) => new GalleryRead { Name = $"g{i}", Url = url }).ToArray();

        var contents = await Deadline.UntilAsync(
            () => host.Services.GetRequiredService<GalleryReader>().ReadAsync(galleries, Ct), read => read.Count(one => one.Error == "it has not answered yet") == 1, 60, "all but the one that hangs to be read");

        contents[^1].Error.ShouldBeNull();
        contents[^1].Entries.Single().Name.ShouldBe("phi");
        foreach (var (expected, content) in bad.Keys.Zip(contents))
        {
            content.Entries.ShouldBeEmpty();
            content.Error.ShouldNotBeNull().ShouldContain(expected);
        }
    }

    [Fact]
    public async Task A_gallery_that_hangs_is_given_up()
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/hangs.yaml", new byte[5000]).HoldAfter = 100;
        using var node = new TestNode();
        await using var host = await StartAsync(node, "Galleries:Timeout=00:00:01");

        (await ReadAsync(host, server.Url("/hangs.yaml"))).Error.ShouldNotBeNull().ShouldEndWith("did not answer in 1 s");
    }

    [Fact]
    public async Task Indexes_that_come_at_the_same_time_lie_on_the_disk_and_none_is_left_there()
    {
        const int Many = 12, Size = 3_000_000;
        await using var server = await FileServer.StartAsync();
        // all but their last byte have come, and none can be taken apart yet
        var urls = Enumerable.Range(0, Many).Select(i => Put(server, $"/{i}.yaml", Index + new string('#', Size))).ToArray();
        foreach (var file in server.Files.Values)
            file.HoldAfter = Size;
        using var node = new TestNode();
        await using var host = await StartAsync(node, "Galleries:Timeout=00:05:00", "Downloads:StallTimeout=00:05:00");
        var folder = host.Services.GetRequiredService<GalleryCopies>().Folder;
        FileInfo[] Buffers() => new DirectoryInfo(folder).GetFiles("ASPNETCORE_*.tmp");

        var reading = host.Services.GetRequiredService<GalleryReader>().ReadAsync([.. urls.Select((url, i) => new GalleryRead { Name = $"g{i}", Url = url })], Ct);
        await Deadline.UntilAsync(() => Buffers().Length == Many && Buffers().All(file => file.Length > Size / 2), seconds: 60, what: "all of them to come at the same time");
        foreach (var file in server.Files.Values)
            file.Release();
        await reading;
        foreach (var url in urls)
            await Deadline.UntilAsync(() => ReadAsync(host, url), content => content.Entries.Count == 1, 60);

        Buffers().ShouldBeEmpty();
    }

    [Fact]
    public async Task What_was_being_fetched_when_the_process_was_killed_is_gone_after_the_next_start()
    {
        using var node = new TestNode();
        var folder = Directory.CreateDirectory(Path.Combine(node.Data, "cache", "galleries")).FullName;
        foreach (var left in (string[])["ASPNETCORE_left.tmp", "0a.yaml.5c.tmp", "0a.json.5c.tmp"])
            await File.WriteAllTextAsync(Path.Combine(folder, left), "x", Ct);
        await using var host = await StartAsync(node);

        host.Services.GetRequiredService<GalleryCopies>().Folder.ShouldBe(folder);
        Directory.GetFiles(folder).ShouldBeEmpty();
    }

    [Fact]
    public async Task A_copy_that_cannot_be_written_leaves_nothing_behind()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node);
        var copies = host.Services.GetRequiredService<GalleryCopies>();

        await copies.KeepAsync("file://x", null, new EndsOnce(), Ct);

        Directory.GetFiles(copies.Folder).ShouldBeEmpty();
    }

    /// <summary>Can be read once; then it breaks, as what is written to a full disk does.</summary>
    private sealed class EndsOnce() : MemoryStream(new byte[100_000])
    {
        private bool _isRead;

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (_isRead)
                throw new IOException("No space left on device");
            var read = await base.ReadAsync(buffer, cancellationToken);
            _isRead = read == 0;
            return read;
        }
    }

    [Fact]
    public async Task A_slow_gallery_is_waited_for_no_longer_than_the_patience_and_read_on_behind_it()
    {
        await using var server = await FileServer.StartAsync();
        var slow = Put(server, "/slow.yaml", Index + new string('#', 20_000));
        server.Files["/slow.yaml"].HoldAfter = 100;
        using var node = new TestNode();
        await using var host = await StartAsync(node, "Galleries:Patience=00:00:00.2");

        (await ReadAsync(host, slow)).Error.ShouldBe("it has not answered yet");
        server.Files["/slow.yaml"].Release();

        await Deadline.UntilAsync(() => ReadAsync(host, slow), content => content.Entries.Count == 1);
        server.Requests.Count.ShouldBe(1);
    }

    [Fact]
    public async Task Private_networks_are_not_asked_unless_that_is_allowed()
    {
        await using var server = await FileServer.StartAsync();
        var url = Put(server, "/index.yaml", Index);
        using var node = new TestNode { Downloads = [] };
        await using var host = await ControlPlane.StartAsync(node);

        var content = await ReadAsync(host, url);

        content.Error.ShouldNotBeNull().ShouldContain("no public address");
        server.Requests.ShouldBeEmpty();
    }

    [Fact]
    public async Task Files_of_the_folder_are_read_and_no_others()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node);
        var folder = Directory.CreateDirectory(Path.Combine(node.Data, "galleries")).FullName;
        await File.WriteAllTextAsync(Path.Combine(folder, "index.yaml"), Index, Ct);
        File.CreateSymbolicLink(Path.Combine(folder, "link.yaml"), Path.Combine(node.Data, "admin-key"));
        Directory.CreateSymbolicLink(Path.Combine(folder, "up"), node.Data);
        Directory.CreateDirectory(Path.Combine(folder, "folder.yaml"));

        (await ReadAsync(host, "file://galleries/index.yaml")).Entries.Single().Name.ShouldBe("phi");
        (await ReadAsync(host, $"file://{folder}/index.yaml")).Error.ShouldBeNull();
        foreach (var path in (string[])["link.yaml", "up/admin-key", "up/galleries/../admin-key", "none.yaml", "folder.yaml", "up/lock"])
        {
            var error = (await ReadAsync(host, $"file://galleries/{path}")).Error;
            error.ShouldNotBeNull();
            error.ShouldNotContain(host.AdminKey);
        }
    }

    [Fact]
    public async Task A_reference_leads_to_an_index_beside_it()
    {
        await using var server = await FileServer.StartAsync();
        Put(server, "/a/v2/index.yaml", Index);
        var reference = Put(server, "/a/latest.ref", "v2/index.yaml\n");
        var other = Put(server, "/a/other.ref", "https://example.org/x");
        using var node = new TestNode();
        await using var host = await StartAsync(node);

        (await ReadAsync(host, reference)).Entries.Single().Name.ShouldBe("phi");
        (await ReadAsync(host, other)).Error.ShouldNotBeNull();
    }

    [Theory]
    [InlineData("Galleries:Models:0:Name=a b", "Galleries:Models:0:Name=a b")]
    [InlineData("Galleries:Models:0:Name=a", "Galleries:Models:0:  ")]
    [InlineData("Galleries:Nothing=1", "Nothing")]
    public async Task A_wrong_configuration_stops_the_start(string setting, string expected)
    {
        var failure = await Should.ThrowAsync<Exception>(() => ControlPlane.StartAsync(configuration: [setting, "Galleries:Models:1:Name=b", "Galleries:Models:1:Url=https://example.org"]));

        failure.ToString().ShouldContain(expected.Trim());
    }

    private static Task<ControlPlane> StartAsync(TestNode node, params string[] configuration) =>
        ControlPlane.StartAsync(node, configuration: configuration);

    private static string Put(FileServer server, string path, string text)
    {
        server.Put(path, Encoding.UTF8.GetBytes(text));
        return server.Url(path);
    }

    private static async Task<GalleryContent> ReadAsync(ControlPlane host, string url, params string[] mirrors) =>
        (await host.Services.GetRequiredService<GalleryReader>().ReadAsync([new GalleryRead { Name = "own", Url = url, Mirrors = mirrors }], Ct))[0];

    private static async Task<(int Status, string Body)> SendAsync(ControlPlane host, HttpMethod method, string body)
    {
        using var request = new HttpRequestMessage(method, "/models/galleries") { Content = new StringContent(body, Encoding.UTF8, "application/json") };
        using var answer = await host.Client.SendAsync(request, Ct);
        return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct));
    }
}
