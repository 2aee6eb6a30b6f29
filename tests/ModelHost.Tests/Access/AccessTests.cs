using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Access;
using ModelHost.Core.Access;
using ModelHost.TestKit;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.Access;

public sealed class AccessTests
{
    private const string Everywhere = "http://0.0.0.0:0";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Every_endpoint_has_a_rule()
    {
        await using var host = await ControlPlane.StartAsync();

        var endpoints = host.Services.GetServices<EndpointDataSource>().SelectMany(source => source.Endpoints).OfType<RouteEndpoint>().ToArray();

        endpoints.Length.ShouldBeGreaterThan(15);
        endpoints.Where(e => e.Metadata.GetOrderedMetadata<AccessRule>().Count != 1)
            .Select(e => e.RoutePattern.RawText).ShouldBeEmpty();
        endpoints.Where(e => e.Metadata.GetMetadata<AccessRule>() == AccessRule.Public).Select(e => "/" + e.RoutePattern.RawText!.TrimStart('/').Split('/')[0]).Distinct()
            .ShouldBe(["/", "/health", "/healthz", "/readyz", "/api", "/openapi.json", "/swagger", "/docs", "/redoc"], ignoreOrder: true);
        endpoints.Where(e => e.RoutePattern.RawText!.StartsWith("/api", StringComparison.Ordinal) && e.RoutePattern.RawText != "/api/health" && !MakesKeys(e))
            .ShouldAllBe(e => e.Metadata.GetMetadata<AccessRule>() == AccessRule.Admin);
        endpoints.Where(MakesKeys).ShouldHaveSingleItem().Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods.ShouldBe(["POST"]);
        // an API key is for nothing else
        endpoints.Where(e => e.Metadata.GetMetadata<AccessRule>()!.Role != KeyRoles.None).Select(e => e.RoutePattern.RawText!.Trim('/').Split('/')[0]).Distinct()
            .ShouldBe(["v1", "metrics", "stores", "tts", "version"], ignoreOrder: true);

        static bool MakesKeys(RouteEndpoint endpoint) => endpoint.Metadata.GetMetadata<AccessRule>() == AccessRule.KeyMaking;
    }

    [Fact]
    public async Task On_loopback_admin_routes_are_open_to_programs_of_this_machine_alone()
    {
        await using var host = await ControlPlane.StartAsync();
        var (port, origin) = (host.Url.Port, host.Url.GetLeftPart(UriPartial.Authority));
        foreach (var (header, value, open) in ((string, string, bool)[])
            [
                ("X-Anything", "x", true),
                ("Host", $"127.0.0.1:{port}", true), ("Host", $"localhost:{port}", true), ("Host", "LOCALHOST", true), ("Host", $"[::1]:{port}", true), ("Host", "127.8.9.1", true),
                ("Host", "attacker.example", false), ("Host", $"localhost.attacker.example:{port}", false), ("Host", "127.0.0.1.nip.io", false), ("Host", "192.168.1.7", false), ("Host", "[2001:db8::1]", false),
                ("Origin", origin, true), ("Origin", "http://localhost:1", false), ("Origin", "https://attacker.example", false), ("Origin", "null", false), ("Origin", "", false),
                ("X-Forwarded-For", "127.0.0.1", false), ("X-Forwarded-Host", "localhost", false), ("x-forwarded-proto", "http", false), ("Forwarded", "for=127.0.0.1", false),
                ("Via", "1.1 proxy", false), ("X-Real-IP", "127.0.0.1", false), ("X-Original-For", "127.0.0.1", false), ("CF-Connecting-IP", "127.0.0.1", false),
                ("Sec-Fetch-Site", "cross-site", false), ("Sec-Fetch-Site", "same-site", false), ("Sec-Fetch-Site", "same-origin", true), ("Sec-Fetch-Site", "none", true),
                ("Authorization", "Bearer wrong", false), ("Authorization", "Bearer ", false), ("Authorization", $"Bearer {host.AdminKey}x", false), ("Authorization", "Basic eDp5", false),
                ("Authorization", $"Bearer {host.AdminKey}", true), ("Authorization", $"bearer  {host.AdminKey} ", true),
            ])
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "/api/deployments");
            request.Headers.TryAddWithoutValidation(header, value).ShouldBeTrue();
            using var answer = await host.Client.SendAsync(request, Ct);

            answer.StatusCode.ShouldBe(open ? HttpStatusCode.OK : HttpStatusCode.Unauthorized, $"{header}: {value}");
        }
    }

    [Theory]
    [InlineData("1.1", "200")]
    [InlineData("1.0", "401")]
    public async Task A_proxy_that_adds_no_headers_and_speaks_http_1_0_is_not_local(string version, string status)
    {
        await using var host = await ControlPlane.StartAsync();

        var answer = await RawHttp.SendAsync(host.Url, $"GET /api/deployments HTTP/{version}\nHost: {host.Url.Authority}\nConnection: close\n\n", halfClose: false, Ct);

        answer.ShouldStartWith($"HTTP/1.1 {status} ");
    }

    [Theory]
    [InlineData("POST", "/api/deployments/start")]
    [InlineData("POST", "/api/deployments/stop/1")]
    [InlineData("DELETE", "/api/deployments/1")]
    [InlineData("GET", "/api/deployments/1/logs")]
    [InlineData("GET", "/api/nodes")]
    [InlineData("GET", "/api/vllm-version")]
    [InlineData("GET", "/vllm-version")]
    public async Task A_rebound_name_does_nothing(string method, string path)
    {
        await using var host = await ControlPlane.StartAsync();
        using var request = new HttpRequestMessage(new HttpMethod(method), path) { Headers = { Host = "attacker.example" } };

        using var answer = await host.Client.SendAsync(request, Ct);

        await ShouldNeedKeyAsync(answer);
    }

    [Fact]
    public async Task On_loopback_any_key_is_taken_for_inference_and_none_is_needed()
    {
        await using var host = await ControlPlane.StartAsync();
        foreach (var key in (string?[])[null, "sk-anything", host.AdminKey])
        {
            using var client = Client(host, key);
            (await client.GetAsync(new Uri("/v1/models", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
            (await client.GetAsync(new Uri("/metrics", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
        }
    }

    [Fact]
    public async Task Beyond_loopback_everything_but_health_needs_the_key()
    {
        await using var host = await ControlPlane.StartAsync(urls: Everywhere);
        foreach (var key in (string?[])[null, "wrong"])
        {
            using var client = Client(host, key);
            await ShouldNeedKeyAsync(await client.GetAsync(new Uri("/api/deployments", UriKind.Relative), Ct));
            await ShouldNeedKeyAsync(await client.GetAsync(new Uri("/metrics", UriKind.Relative), Ct));
            await ShouldNeedKeyAsync(await client.PostAsync(new Uri("/api/deployments/start", UriKind.Relative), null, Ct));
            foreach (var path in (string[])["/v1/models", "/v1/anything"])
                await Gateway.OpenAiAnswers.ShouldBeOpenAiErrorAsync(await client.GetAsync(new Uri(path, UriKind.Relative), Ct), HttpStatusCode.Unauthorized, "invalid_api_key");
            foreach (var path in (string[])["/health", "/api/health", "/healthz", "/readyz", "/", "/openapi.json", "/swagger/index.html", "/docs/index.html", "/redoc/index.html"])
                (await client.GetAsync(new Uri(path, UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK, path);
        }
        using var admin = Client(host, host.AdminKey);
        foreach (var path in (string[])["/api/deployments", "/api/nodes", "/metrics", "/v1/models"])
            (await admin.GetAsync(new Uri(path, UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK, path);
    }

    [Fact]
    public async Task A_trusted_lan_opens_everything_beyond_loopback()
    {
        await using var host = await ControlPlane.StartAsync(urls: Everywhere, configuration: "Access:TrustedLan=true");
        using var client = Client(host, null);

        foreach (var path in (string[])["/api/deployments", "/metrics", "/v1/models"])
            (await client.GetAsync(new Uri(path, UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK, path);
    }

    [Fact]
    public async Task The_admin_key_is_its_owners_and_outlives_its_file()
    {
        using var node = new TestNode();
        string key;
        var file = Path.Combine(node.Data, "admin-key");
        await using (var first = await ControlPlane.StartAsync(node))
        {
            key = first.AdminKey;
            File.GetUnixFileMode(file).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
            File.GetUnixFileMode(file + ".sha256").ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
            (await File.ReadAllTextAsync(file + ".sha256", Ct)).ShouldNotContain(key["mh_admin_".Length..]);
        }
        // the control plane in a box reads the file, so that only its content is taken away
        await File.WriteAllTextAsync(file, "gone", Ct);
        await using var second = await ControlPlane.StartAsync(node, Everywhere);
        using var client = Client(second, key);

        (await client.GetAsync(new Uri("/api/nodes", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
        using var other = Client(second, "gone");
        (await other.GetAsync(new Uri("/api/nodes", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        key.ShouldMatch("^mh_admin_[0-9a-f]{40}$");
    }

    [Fact]
    public async Task Public_pages_tell_no_secrets()
    {
        await using var host = await ControlPlane.StartAsync();
        foreach (var (path, accept) in ((string, string)[])[("/", "text/html"), ("/", "application/json"), ("/openapi.json", "*/*"), ("/health", "*/*"), ("/readyz", "*/*")])
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, path) { Headers = { { "Accept", accept } } };
            var text = await (await host.Client.SendAsync(request, Ct)).Content.ReadAsStringAsync(Ct);

            text.ShouldNotContain(host.AdminKey);
            text.ShouldNotContain(host.Node.Data);
            text.ShouldNotContain("mh_admin_");
        }
    }

    private static HttpClient Client(ControlPlane host, string? key) => new()
    {
        BaseAddress = new Uri($"http://127.0.0.1:{host.Url.Port}"),
        DefaultRequestHeaders = { Authorization = key is null ? null : new AuthenticationHeaderValue("Bearer", key) },
    };

    private static async Task ShouldNeedKeyAsync(HttpResponseMessage answer)
    {
        answer.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        answer.Headers.WwwAuthenticate.ToString().ShouldBe("Bearer");
        answer.Content.Headers.ContentType!.MediaType.ShouldBe("application/problem+json");
        JsonDocument.Parse(await answer.Content.ReadAsStringAsync(Ct)).RootElement.GetProperty("code").GetString().ShouldBe("access.key_needed");
    }
}
