using System.Net;
using System.Net.Http.Headers;
using System.Net.Security;
using ModelHost.TestKit;

namespace ModelHost.Tests.Hosting;

/// <summary>TLS, a prefix, and proxies.</summary>
public sealed class ListenerTests : IDisposable
{
    private readonly TestNode _node = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public void Dispose() => _node.Dispose();

    [Theory]
    [InlineData("1.1")]
    [InlineData("2.0")]
    public async Task Certificate_makes_it_https_with_both_versions_of_http(string version)
    {
        var (certificate, settings) = TestCertificate.Make(_node);
        await using var host = await ControlPlane.StartAsync(_node, "https://127.0.0.1:0", configuration: settings);
        using var client = new HttpClient(new SocketsHttpHandler
        {
            SslOptions = new SslClientAuthenticationOptions { RemoteCertificateValidationCallback = (_, shown, _, _) => shown!.GetCertHashString() == certificate.GetCertHashString() },
        });

        using var answer = await client.SendAsync(new HttpRequestMessage(HttpMethod.Get, new Uri(host.Url, "/api/nodes"))
        {
            Version = Version.Parse(version),
            VersionPolicy = HttpVersionPolicy.RequestVersionExact,
        }, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        answer.Version.ShouldBe(Version.Parse(version));
    }

    [Theory]
    [InlineData("http://127.0.0.1:0", true)]
    [InlineData("https://127.0.0.1:0", false)]
    public async Task Certificate_and_https_go_together(string urls, bool withCertificate)
    {
        var settings = withCertificate ? TestCertificate.Make(_node).Settings : [];

        var refused = await Should.ThrowAsync<InvalidDataException>(() => ControlPlane.StartAsync(_node, urls, configuration: settings));

        refused.Message.ShouldContain("https://");
    }

    [Fact]
    public async Task Certificate_without_its_key_is_refused_by_name()
    {
        var (_, settings) = TestCertificate.Make(_node);
        await File.WriteAllTextAsync(settings[1].Split('=')[1], "no key", Ct);

        var refused = await Should.ThrowAsync<InvalidDataException>(() => ControlPlane.StartAsync(_node, "https://127.0.0.1:0", configuration: settings));

        refused.Message.ShouldContain("server.key");
    }

    [Fact]
    public async Task Everything_is_reached_under_the_prefix()
    {
        await using var host = await ControlPlane.StartAsync(_node, configuration: "Listener:PathBase=/modelhost");

        foreach (var path in (string[])["/health", "/api/nodes", "/v1/models", "/swagger/index.html", "/openapi.json"])
            (await host.Client.GetAsync(new Uri("/modelhost" + path, UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK, path);
    }

    [Theory]
    [InlineData("")]
    [InlineData("127.0.0.1")]
    [InlineData("127.0.0.0/8, ::1")]
    public async Task Request_through_a_proxy_is_never_a_local_one(string trusted)
    {
        await using var host = await ControlPlane.StartAsync(_node, configuration: $"Access:TrustedProxies={trusted}");
        using var request = new HttpRequestMessage(HttpMethod.Get, "/api/nodes") { Headers = { { "X-Forwarded-For", "127.0.0.1" }, { "X-Forwarded-Host", "localhost" } } };
        using var withKey = new HttpRequestMessage(HttpMethod.Get, "/api/nodes") { Headers = { { "X-Forwarded-For", "10.1.2.3" } } };
        withKey.Headers.Authorization = new AuthenticationHeaderValue("Bearer", host.AdminKey);

        (await host.Client.SendAsync(request, Ct)).StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        (await host.Client.SendAsync(withKey, Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Theory]
    [InlineData("127.0.0.1,nonsense")]
    [InlineData("10.0.0.0/99")]
    public async Task Proxies_that_are_no_addresses_stop_the_start(string proxies)
    {
        var refused = await Should.ThrowAsync<Microsoft.Extensions.Options.OptionsValidationException>(
            () => ControlPlane.StartAsync(_node, configuration: $"Access:TrustedProxies={proxies}"));

        refused.Message.ShouldContain("Access:TrustedProxies");
    }

    [Theory]
    [InlineData("http://127.0.0.1:8000", true)]
    [InlineData("http://localhost:8000", true)]
    [InlineData("http://[::1]:8000", true)]
    [InlineData("http://0.0.0.0:8000", false)]
    [InlineData("http://*:8000", false)]
    [InlineData("http://gpu1:8000", false)]
    public void Only_loopback_addresses_are_safe_in_cleartext(string url, bool isLoopback) =>
        ModelHost.Access.LoopbackGuard.IsLoopback(url).ShouldBe(isLoopback);
}
