using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.LocalAi;

/// <summary>The small routes that LocalAI's clients ask.</summary>
public sealed class SmallRouteTests
{
    private const string Model = "demo/tiny-chat";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Version_and_probes_are_short()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync();

        (await GetAsync(host, "/version")).ShouldBe((200, """{"version":"0.1.0"}"""));
        (await GetAsync(host, "/healthz")).Status.ShouldBe(200);
        await Deadline.UntilAsync(() => GetAsync(host, "/readyz"), answer => answer.Status == 200);
    }

    [Fact]
    public async Task The_welcome_has_what_clients_read_and_no_settings()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await StartAsync(host);

        var (status, body) = await GetAsync(host, "/");
        using var asJson = new HttpRequestMessage(HttpMethod.Get, "/") { Content = new StringContent("", Encoding.UTF8, "application/json"), Headers = { { "Accept", "text/html" } } };
        using var same = await host.Client.SendAsync(asJson, Ct);
        using var asPage = new HttpRequestMessage(HttpMethod.Get, "/") { Headers = { { "Accept", "text/html,*/*" } } };
        using var page = await host.Client.SendAsync(asPage, Ct);
        await host.Client.StopModelAsync(id);

        status.ShouldBe(200);
        body.ShouldBe($$"""
            {"name":"ModelHost","version":"0.1.0","documentation":"swagger","models":["demo/tiny-chat"],"Title":"ModelHost API - 0.1.0","Version":"0.1.0","BaseURL":"{{host.Url}}","Models":[],"ModelsConfig":[{"name":"demo/tiny-chat"}],"LoadedModels":{"demo/tiny-chat":true},"IsP2PEnabled":false,"GalleryConfig":{},"ProcessingModels":{},"TaskTypes":{},"InstalledBackends":{},"DisableRuntimeSettings":false}
            """);
        (await same.Content.ReadAsStringAsync(Ct)).ShouldBe(body);
        page.Content.Headers.ContentType!.MediaType.ShouldBe("text/html");
    }

    [Fact]
    public async Task Nodes_are_listed_as_peers_under_every_name_that_releases_had()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.NodeAsync();

        var (status, body) = await GetAsync(host, "/api/p2p");

        status.ShouldBe(200);
        var seen = JsonNode.Parse(body)!["nodes"]![0]!["LastSeen"]!.GetValue<string>();
        var node = $$"""[{"Name":{{JsonSerializer.Serialize(System.Net.Dns.GetHostName())}},"ID":"{{id}}","TunnelAddress":"127.0.0.1","ServiceID":"worker","LastSeen":"{{seen}}"}]""";
        body.ShouldBe($$"""{"nodes":{{node}},"llama_cpp_nodes":{{node}},"federated_nodes":[],"mlx_nodes":[]}""");
        DateTimeOffset.Parse(seen, System.Globalization.CultureInfo.InvariantCulture).ShouldBe(DateTimeOffset.UtcNow, TimeSpan.FromMinutes(1));
    }

    [Fact]
    public async Task The_token_of_peers_is_a_join_token_once_nodes_are_taken()
    {
        await using var host = await ControlPlane.StartAsync();
        var none = await GetAsync(host, "/api/p2p/token");
        using var made = await host.Client.PostAsJsonAsync("/api/nodes/join-tokens", new { ttl_minutes = 60 }, Ct);

        var first = await GetAsync(host, "/api/p2p/token");
        var same = await GetAsync(host, "/api/p2p/token");
        var tokens = (await host.Client.JsonAsync("/api/nodes/join-tokens")).EnumerateArray().Select(token => token.GetProperty("id").GetInt32()).ToArray();
        using var gone = await host.Client.DeleteAsync(new Uri($"/api/nodes/join-tokens/{tokens.Max()}", UriKind.Relative), Ct);
        var another = await GetAsync(host, "/api/p2p/token");

        none.ShouldBe((200, ""));
        first.Body.ShouldStartWith("mh_join_");
        (same, tokens.Length).ShouldBe((first, 2));
        another.Body.ShouldStartWith("mh_join_");
        another.ShouldNotBe(first);
    }

    [Fact]
    public async Task Text_to_tokenize_may_be_called_content_or_as_the_engine_calls_it()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await StartAsync(host);

        var expected = await TokensAsync(host, """{"model":"demo/tiny-chat","prompt":"one two three"}""");
        foreach (var body in (string[])
            [
                """{"model":"demo/tiny-chat","content":"one two three"}""", """ { "content" : "one two three" , "model" : "demo/tiny-chat" }""",
                """{"model":"demo/tiny-chat","c\u006fntent":"one two three"}""", """{"model":"demo/tiny-chat","prompt":"one two three","content":"other"}""",
            ])
            (await TokensAsync(host, body)).ShouldBe(expected);
        var chat = await TokensAsync(host, """{"model":"demo/tiny-chat","messages":[{"role":"user","content":"one two three"}],"content":"x"}""");
        using var none = await PostAsync(host, "/v1/tokenize", """{"model":"demo/tiny-chat"}""");
        await host.Client.StopModelAsync(id);

        expected.Length.ShouldBeGreaterThan(2);
        chat.Length.ShouldBeGreaterThan(expected.Length);
        ((int)none.StatusCode).ShouldBe(400);
    }

    [Fact]
    public async Task Speech_goes_to_the_engine_s_own_route_as_it_came()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await StartAsync(host);
        const string Body = """{"model":"demo/tiny-chat","input":"Hello","voice":"alloy","backend":"piper","response_format":"wav"}""";

        using var own = await PostAsync(host, "/v1/audio/speech", Body);
        using var tts = await PostAsync(host, "/tts", Body);
        using var unknown = await PostAsync(host, "/tts", """{"model":"nobody","input":"Hello"}""");
        using var form = await host.Client.PostAsync(new Uri("/tts", UriKind.Relative), new StringContent("model=m"), Ct);
        await host.Client.StopModelAsync(id);

        // what the engine says to one it says to the other
        tts.StatusCode.ShouldBe(own.StatusCode);
        tts.Content.Headers.ContentType.ShouldBe(own.Content.Headers.ContentType);
        (await tts.Content.ReadAsByteArrayAsync(Ct)).Length.ShouldBe((await own.Content.ReadAsByteArrayAsync(Ct)).Length);
        await unknown.ShouldBeOpenAiErrorAsync(System.Net.HttpStatusCode.NotFound, "model_not_found", "model");
        ((int)form.StatusCode).ShouldBe(415);
    }

    private static async Task<int> StartAsync(ControlPlane host)
    {
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"), model: Model));
        await host.Client.StatusAsync(id, "running");
        return id;
    }

    private static async Task<(int Status, string Body)> GetAsync(ControlPlane host, string path)
    {
        using var answer = await host.Client.GetAsync(new Uri(path, UriKind.Relative), Ct);
        return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct));
    }

    private static Task<HttpResponseMessage> PostAsync(ControlPlane host, string path, string body) =>
        host.Client.PostAsync(new Uri(path, UriKind.Relative), new StringContent(body, Encoding.UTF8, "application/json"), Ct);

    private static async Task<int[]> TokensAsync(ControlPlane host, string body)
    {
        using var answer = await PostAsync(host, "/v1/tokenize", body);
        answer.EnsureSuccessStatusCode();
        return [.. (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("tokens").EnumerateArray().Select(token => token.GetInt32())];
    }
}
