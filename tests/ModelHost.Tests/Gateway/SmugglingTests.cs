using System.Collections.Concurrent;
using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Gateway;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Hosting;

namespace ModelHost.Tests.Gateway;

/// <summary>
/// Requests that two servers in a row could read differently. Whatever becomes of them: never an error of ours, no request at an engine
/// that was not sent as one, and nothing at all for somebody without a key.
/// </summary>
public sealed partial class SmugglingTests : IDisposable
{
    private const string Body = "{\"model\":\"m\"}";
    private const string StolenBody = "{\"model\":\"m\",\"s\":\"mug\"}";
    private const string Post = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    private const string Stolen = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n" + StolenBody;
    private const string Get = "GET /api/deployments HTTP/1.1\r\nHost: localhost\r\n";
    private readonly TestNode _node = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Where one request ends is in doubt, and so is whether another begins.</summary>
    private static readonly string[] Ends =
    [
        // both lengths
        $"{Post}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\nContent-Length: 300\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Content-Length: 13\r\nTransfer-Encoding: identity\r\n\r\n{Body}{Stolen}",
        // two of one, or one in two
        $"{Post}Content-Length: 13\r\nContent-Length: 14\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: 13\r\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: 13, 14\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: 13, 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked, gzip\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked, chunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: gzip, chunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        // names and values that are nearly right
        $"{Post}Transfer-Encoding : chunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding:\tchunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: \x0bchunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: Chunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: xchunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: \"chunked\"\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer_Encoding: chunked\r\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Content_Length: 300\r\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length : 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: +13\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: -1\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: 0x0d\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: 1_3\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: 13 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: 99999999999999999999\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length: \r\n\r\n{Body}{Stolen}",
        // folded and broken lines
        $"{Post}X-A: b\r\n Content-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length:\r\n 13\r\n\r\n{Body}{Stolen}",
        $"{Post}X-A: b\rContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}X-A: b\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}X-A: b\0\r\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}: 13\r\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Content-Length 13\r\n\r\n{Body}{Stolen}",
        Post.Replace("\r\n", "\n", StringComparison.Ordinal) + $"Content-Length: 13\n\n{Body}{Stolen}",
        $" {Post}Content-Length: 13\r\n\r\n{Body}{Stolen}",
        $"\r\n\r\n{Post}Content-Length: 13\r\n\r\n{Body}{Stolen}",
        // chunks
        $"{Post}Transfer-Encoding: chunked\r\n\r\n0d\r\n{Body}\r\n00\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\n0xd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\n-d\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\n+d\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\n d\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd \r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd;a=b\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd;a=b\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd\n{Body}\n0\n\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd\r\n{Body}0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd\r\n{Body}xx0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd\r\n{Body}\r\nZZ\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\n1000000000000000d\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd\r\n{Body}\r\n0\r\nContent-Length: 300\r\nTransfer-Encoding: chunked\r\n\r\n{Stolen}",
        $"{Post}Transfer-Encoding: chunked\r\n\r\nd\r\n{Body}\r\n",
        // not whole
        $"{Post}Content-Length: 20\r\n\r\n{Body}",
        // a length where the method has none, and no length where it has one
        $"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: {Stolen.Length}\r\n\r\n{Stolen}",
        $"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{Stolen}",
        $"{Post}\r\n{Stolen}",
        $"{Post.Replace("1.1", "1.0", StringComparison.Ordinal)}Transfer-Encoding: chunked\r\n\r\nd\r\n{Body}\r\n0\r\n\r\n{Stolen}",
        $"{Post}Expect: 100-continue\r\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Connection: close, Content-Length\r\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
        $"{Post}Connection: Authorization, Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 13\r\n\r\n{Body}{Stolen}",
    ];

    /// <summary>What is asked for, or of whom, is in doubt; nobody gets the list of deployments by it.</summary>
    private static readonly string[] Targets =
    [
        "GET //api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /v1/../api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /v1/%2e%2e/api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /v1/%2e%2e%2fapi%2fdeployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /v1/..;/api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /health/..%5capi/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /health/../api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api;x=/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api%2fdeployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments%20 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /API/DEPLOYMENTS HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /%61pi/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET http://localhost/api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET http://attacker.example/api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET localhost/api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET \\api\\deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments#/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /health#/../api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments HTTP/1.2\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments HTTP/9\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments\r\n\r\n",
        "GET /api/deployments HTTP/1.0\r\n\r\n",
        "GET /api/deployments HTTP/1.1\r\n\r\n",
        $"{Get}Host: other\r\n\r\n",
        $"{Get}X-Original-URL: /health\r\nX-Rewrite-URL: /health\r\nX-HTTP-Method-Override: OPTIONS\r\n\r\n",
        $"{Get}Authorization:\r\n\r\n",
        $"{Get}Authorization: Bearer\r\n\r\n",
        $"{Get}Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        $"{Get}Cookie: key=x\r\nX-Api-Key: x\r\n\r\n",
        "GET /api/deployments?key=x&access_token=x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/deployments HTTP/1.1\r\nHost: localhost:99999\r\n\r\n",
        "GET /api/deployments HTTP/1.1\r\nHost: localhost@attacker.example\r\n\r\n",
        "GET /api/deployments HTTP/1.1\r\nHost: local host\r\n\r\n",
        "GET /api/deployments HTTP/1.1\r\nHost:\r\n\r\n",
        "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "TRACE /api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "HEAD /api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "G\u00cbT /api/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        $"GET /{new string('a', 20_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        $"{Get}X-A: {new string('a', 60_000)}\r\n\r\n",
        $"{Get}{string.Concat(Enumerable.Range(0, 500).Select(i => $"X-{i}: a\r\n"))}\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "\0\0\0\0",
    ];

    [Theory]
    [InlineData("http")]
    [InlineData("https")]
    public async Task Engine_gets_only_what_was_sent_as_a_request(string scheme)
    {
        await using var host = await StartAsync(scheme, "127.0.0.1");
        // by the key that the engine has for a text: a request whose client is gone may come to it when the next one is under way
        var got = new ConcurrentDictionary<string, ConcurrentQueue<string>>();
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            var body = await new StreamReader(context.Request.Body).ReadToEndAsync(Ct);
            got.GetOrAdd(context.Request.Headers.Authorization.ToString(), _ => []).Enqueue(body);
        });
        var routes = host.Services.GetRequiredService<RouteSource>();
        foreach (var (i, text) in Ends.Index())
        {
            routes.Publish(-1, [routes.Current.Routes.Single() with { EngineKey = $"{i}" }], routes.Mark());

            var statuses = await StatusesAsync(host.Url, text);

            string[] bodies = [.. got.GetOrAdd($"Bearer {i}", _ => [])];
            statuses.ShouldAllBe(status => status < 500 || status == 501, text);
            bodies.ShouldBeSubsetOf([Body, StolenBody], text);
            bodies.ShouldBeUnique(text);
            // answers can be lost with a connection that is reset, requests cannot be won
            statuses.Count(status => status == 200 && !text.StartsWith("GET", StringComparison.Ordinal)).ShouldBeLessThanOrEqualTo(bodies.Length, text);
            // only behind a request with one length, which was taken, can there be another; one with no length has no body
            var lengths = text.StartsWith("POST", StringComparison.Ordinal) ? Length().Count(EndOfHead().Split(text, 2)[0]) : 0;
            if (lengths > 1 || (lengths == 1 && bodies.FirstOrDefault() != Body))
                bodies.ShouldNotContain(StolenBody, text);
        }
    }

    [Theory]
    [InlineData("http")]
    [InlineData("https")]
    public async Task Without_a_key_nothing_passes(string scheme)
    {
        await using var host = await StartAsync(scheme, "0.0.0.0");
        await using var engine = await StandInEngine.StartAsync(host, context => context.Request.Body.CopyToAsync(Stream.Null, Ct));
        foreach (var text in (string[])[.. Ends, .. Targets])
        {
            var statuses = await StatusesAsync(host.Url, text);

            statuses.ShouldAllBe(status => status >= 400 && (status < 500 || status == 501 || status == 505), text);
        }
        engine.Requests.ShouldBe(0);
    }

    [Theory]
    [InlineData("http")]
    [InlineData("https")]
    public async Task Nothing_is_an_error_of_ours_for_somebody_who_may(string scheme)
    {
        await using var host = await StartAsync(scheme, "127.0.0.1");
        foreach (var text in Targets)
            (await StatusesAsync(host.Url, text)).ShouldAllBe(status => status < 500 || status == 501 || status == 505, text);
    }

    [Fact]
    public async Task Without_an_api_key_nothing_reaches_an_engine_once_there_is_one()
    {
        await using var host = await StartAsync("http", "127.0.0.1");
        await using var engine = await StandInEngine.StartAsync(host, context => context.Request.Body.CopyToAsync(Stream.Null, Ct));
        var (key, _, _) = await host.Client.MakeKeyAsync();
        foreach (var text in Ends)
        {
            await StatusesAsync(host.Url, text);
            // a key whose header is not one
            await StatusesAsync(host.Url, text.Replace("Host: localhost", $"Host: localhost\r\nX-Authorization: Bearer {key}", StringComparison.Ordinal));
        }
        engine.Requests.ShouldBe(0);
    }

    [Fact]
    public async Task An_api_key_opens_no_route_of_the_administrator()
    {
        await using var host = await StartAsync("http", "0.0.0.0");
        using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{host.Url.Port}") };
        var (key, _, _) = await client.MakeKeyAsync("""{"label": "a", "roles": ["inference", "metrics"]}""", host.AdminKey);
        foreach (var text in Targets)
        {
            var statuses = await StatusesAsync(host.Url, text.Replace("Host: localhost\r\n", $"Host: localhost\r\nAuthorization: Bearer {key}\r\n", StringComparison.Ordinal));

            statuses.ShouldAllBe(status => status >= 400 && (status < 500 || status == 501 || status == 505), text);
        }
    }

    /// <summary>The same doubts in HTTP/2, where frames tell the length.</summary>
    [Fact]
    public async Task Headers_of_http_2_cannot_say_another_length()
    {
        await using var host = await StartAsync("https", "127.0.0.1");
        var bodies = new List<string>();
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            var body = await new StreamReader(context.Request.Body).ReadToEndAsync(Ct);
            lock (bodies)
                bodies.Add(body);
        });
        ((string Name, string Value)[] Headers, bool? IsGood)[] requests =
            [
                ([], true),
                ([("content-length", "13")], true),
                ([("content-length", "12")], false),
                ([("content-length", "14")], false),
                ([("content-length", "13"), ("content-length", "14")], false),
                ([("content-length", "-1")], false),
                ([("x-a", "b\r\ncontent-length: 300")], false),
                ([("x-a", "b\0")], false),
                ([("X-Upper", "b")], false),
                ([("", "b")], false),
                ([(":path", "/api/deployments")], false),
                ([(":method", "GET")], false),
                ([(":unknown", "x")], false),
                // without a meaning here: refused or passed over, and not passed on
                ([("x-a: b\r\nx-c", "d")], null),
                ([("transfer-encoding", "chunked")], null),
                ([("connection", "close")], null),
                ([("upgrade", "h2c")], null),
                ([("te", "chunked")], null),
            ];
        foreach (var (headers, isGood) in requests)
        {
            bodies.Clear();

            var status = await RawHttp2.PostAsync(host.Url, "/v1/chat/completions", [("content-type", "application/json"), .. headers], Body, Ct);

            var what = string.Join(", ", headers.Select(header => $"{header.Name}: {header.Value}"));
            status.ShouldBeLessThan(500, what);
            bodies.ShouldBe(status == 200 ? [Body] : [], what);
            (status == 200).ShouldBe(isGood ?? status == 200, what);
        }
    }

    [Theory]
    [InlineData("/v1/../api/deployments")]
    [InlineData("/api/deployments")]
    [InlineData("//api/deployments")]
    [InlineData("api/deployments")]
    [InlineData("")]
    [InlineData("*")]
    [InlineData("/api/deployments HTTP/1.1\r\nX-A: b")]
    public async Task Without_a_key_no_path_of_http_2_passes(string path)
    {
        await using var host = await StartAsync("https", "0.0.0.0");

        var status = await RawHttp2.PostAsync(host.Url, path, [("content-type", "application/json")], Body, Ct);

        // 0: the stream or the connection was ended without an answer
        (status == 0 || status is >= 400 and < 500).ShouldBeTrue($"{status}");
    }

    public void Dispose() => _node.Dispose();

    private async Task<ControlPlane> StartAsync(string scheme, string address) =>
        await ControlPlane.StartAsync(_node, $"{scheme}://{address}:0", configuration: scheme == "https" ? TestCertificate.Make(_node).Settings : []);

    private static async Task<int[]> StatusesAsync(Uri server, string text)
    {
        var loopback = new UriBuilder(server) { Host = "127.0.0.1" }.Uri;
        var answers = await RawHttp.SendAsync(loopback, text, halfClose: true, Ct, asItIs: true);
        return [.. Status().Matches(answers).Select(match => int.Parse(match.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture)).Where(status => status >= 200)];
    }

    [GeneratedRegex("(Content-Length|Transfer-Encoding)[^:]*:")]
    private static partial Regex Length();

    [GeneratedRegex("\\r?\n\\r?\n")]
    private static partial Regex EndOfHead();

    [GeneratedRegex("HTTP/1\\.1 ([0-9]{3}) ")]
    private static partial Regex Status();
}
