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
        using var changes = host.Services.GetRequiredService<ChangeFeed>().Subscribe(16);
        await SendAsync(host, HttpMethod.Post, """{"name":"a","url":"https://example.org"}""");
        await SendAsync(host, HttpMethod.Delete, """{"name":"a"}""");
        await SendAsync(host, HttpMethod.Delete, """{"name":"a"}""");
        changes.Dispose();

        (await changes.ReadAllAsync(Ct).ToListAsync(Ct)).Count(change => change.Kind == ChangeKind.Galleries).ShouldBe(2);
    }

    [Fact]
    public async Task A_gallery_is_asked_once_and_then_whether_it_has_changed()
    {
        await using var server = await GalleryServer.StartAsync();
        var url = server.Serve("index.yaml", Index, "\"1\"");
        using var node = new TestNode();
        await using (var host = await StartAsync(node))
        {
            (await ReadAsync(host, url.ToString())).Entries.Single().Name.ShouldBe("phi");
            (await ReadAsync(host, url.ToString())).Error.ShouldBeNull();
        }
        await using var again = await StartAsync(node);
        (await ReadAsync(again, url.ToString())).Entries.Single().Name.ShouldBe("phi");

        server.Requests.Select(request => (request.Status, request.IfNoneMatch)).ShouldBe([(200, ""), (304, "\"1\"")]);
    }

    [Fact]
    public async Task Mirrors_and_then_the_copy_stand_in()
    {
        await using var server = await GalleryServer.StartAsync();
        var url = server.Serve("index.yaml", new ServedFile([]) { Status = 503 });
        var mirror = server.Serve("mirror.yaml", Index);
        using var node = new TestNode();
        await using (var host = await StartAsync(node))
            (await ReadAsync(host, url.ToString(), mirror.ToString())).Error.ShouldBeNull();
        server.Serve("mirror.yaml", "- [");
        await using var again = await StartAsync(node);

        var content = await ReadAsync(again, url.ToString(), mirror.ToString());

        content.Entries.Single().Name.ShouldBe("phi");
        content.Error.ShouldNotBeNull().ShouldContain("503");
        content.Error.ShouldContain("is no gallery");
    }

    [Fact]
    public async Task A_gallery_that_hangs_breaks_or_has_no_end_hides_no_other()
    {
        await using var server = await GalleryServer.StartAsync();
        var fine = server.Serve("fine.yaml", Index);
        var bad = new Dictionary<string, Uri>
        {
            ["did not answer"] = server.Serve("hangs.yaml", new ServedFile(new byte[5000]) { HangsAfter = 100 }),
            ["longer"] = server.Serve("endless.yaml", new ServedFile([]) { Endless = 500L * 1024 * 1024 }),
            ["broke"] = server.Serve("cut.yaml", new ServedFile(new byte[50_000]) { Cut = (20_000, 100) }),
            ["404"] = server.At("none.yaml"),
            ["is no gallery"] = server.Serve("text.yaml", "<html></html>"),
            ["redirects more"] = server.Serve("loop.yaml", new ServedFile([]) { Redirect = server.At("loop.yaml") }),
        };
        using var node = new TestNode();
        await using var host = await StartAsync(node, "Galleries:Timeout=00:00:03", "Galleries:MaxIndexBytes=2000000");
        var galleries = bad.Values.Append(fine).Select((url, i) => new GalleryRead { Name = $"g{i}", Url = url.ToString() }).ToArray();

        var contents = await host.Services.GetRequiredService<GalleryReader>().ReadAsync(galleries, Ct);

        contents[^1].Error.ShouldBeNull();
        contents[^1].Entries.Single().Name.ShouldBe("phi");
        foreach (var (expected, content) in bad.Keys.Zip(contents))
        {
            content.Entries.ShouldBeEmpty();
            content.Error.ShouldNotBeNull().ShouldContain(expected == "broke" ? "cut.yaml" : expected);
        }
    }

    [Fact]
    public async Task A_slow_gallery_is_waited_for_no_longer_than_the_patience_and_read_on_behind_it()
    {
        await using var server = await GalleryServer.StartAsync();
        var slow = server.Serve("slow.yaml", new ServedFile(Encoding.UTF8.GetBytes(Index + new string('#', 20_000))) { BytesPerSecond = 8000 });
        using var node = new TestNode();
        await using var host = await StartAsync(node, "Galleries:Patience=00:00:00.2");

        (await ReadAsync(host, slow.ToString())).Error.ShouldBe("it has not answered yet");

        await Deadline.UntilAsync(() => ReadAsync(host, slow.ToString()), content => content.Entries.Count == 1);
        server.Count("slow.yaml").ShouldBe(1);
    }

    [Fact]
    public async Task Private_networks_are_not_asked_unless_that_is_allowed()
    {
        await using var server = await GalleryServer.StartAsync();
        var url = server.Serve("index.yaml", Index);
        using var node = new TestNode();
        await using var host = await ControlPlane.StartAsync(node);

        var content = await ReadAsync(host, url.ToString());

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
        await using var server = await GalleryServer.StartAsync();
        server.Serve("a/v2/index.yaml", Index);
        var reference = server.Serve("a/latest.ref", "v2/index.yaml\n");
        var other = server.Serve("a/other.ref", "https://example.org/x");
        using var node = new TestNode();
        await using var host = await StartAsync(node);

        (await ReadAsync(host, reference.ToString())).Entries.Single().Name.ShouldBe("phi");
        (await ReadAsync(host, other.ToString())).Error.ShouldNotBeNull();
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
        ControlPlane.StartAsync(node, configuration: ["Downloads:AllowedNetworks=127.0.0.0/8", "Downloads:RetryDelay=00:00:00.010", .. configuration]);

    private static async Task<GalleryContent> ReadAsync(ControlPlane host, string url, params string[] mirrors) =>
        (await host.Services.GetRequiredService<GalleryReader>().ReadAsync([new GalleryRead { Name = "own", Url = url, Mirrors = mirrors }], Ct))[0];

    private static async Task<(int Status, string Body)> SendAsync(ControlPlane host, HttpMethod method, string body)
    {
        using var request = new HttpRequestMessage(method, "/models/galleries") { Content = new StringContent(body, Encoding.UTF8, "application/json") };
        using var answer = await host.Client.SendAsync(request, Ct);
        return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct));
    }
}
