using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
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

        using var answer = await GetAsync(new Uri(host.Url, "/api/nodes"), version, certificate);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        answer.Version.ShouldBe(Version.Parse(version));
    }

    [Fact]
    public async Task Command_line_gives_https_at_an_address_and_under_a_prefix()
    {
        var (certificate, settings) = TestCertificate.Make(_node);
        await using var process = ModelHostProcess.Start("serve", "--no-local-node", "--data", _node.Data, "--path-base", "/modelhost",
            "--tls-cert", settings[0].Split('=')[1], "--tls-key", settings[1].Split('=')[1], "--urls", "https://127.0.0.1:0;http://127.0.0.1:0");
        await process.ListeningAsync();

        using var answer = await GetAsync(new Uri(process.Url, "/modelhost/api/nodes"), "2.0", certificate);

        process.Url.Scheme.ShouldBe("https");
        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        process.Output.ShouldNotContain(line => line.Contains("cleartext", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("http://0.0.0.0:8000", "http://0.0.0.0:8000 is cleartext and reached from other machines")]
    [InlineData("http://*:8000", " is cleartext and reached from other machines")]
    [InlineData("https://0.0.0.0:8000", null)]
    public async Task Cleartext_beyond_loopback_is_warned_of_at_start(string url, string? warning)
    {
        string[] tls = url.StartsWith("https", StringComparison.Ordinal)
            ? [.. TestCertificate.Make(_node).Settings.Zip((string[])["--tls-cert", "--tls-key"], (setting, option) => $"{option}={setting.Split('=')[1]}")] : [];
        await using var process = ModelHostProcess.StartUnreachable(["serve", "--no-local-node", "--data", _node.Data, "--urls", url, .. tls]);
        await Deadline.UntilAsync(() => process.Output.Any(line => line.Contains("Listening on", StringComparison.Ordinal) || line.Contains("unshare", StringComparison.Ordinal)));
        Assert.SkipWhen(process.Output.Any(line => line.Contains("unshare", StringComparison.Ordinal)), "network namespaces cannot be made here");

        await process.StopAsync();

        var warnings = process.Output.Where(line => line.Contains("cleartext", StringComparison.Ordinal));
        if (warning is null)
            warnings.ShouldBeEmpty();
        else
            warnings.ShouldHaveSingleItem().ShouldContain(warning);
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
    [InlineData("", "http://127.0.0.1", "127.0.0.1")]
    [InlineData("10.0.0.0/8", "http://127.0.0.1", "127.0.0.1")]
    [InlineData("127.0.0.1", "https://models.example", "10.9.9.9")]
    [InlineData("127.0.0.1,10.0.0.0/8", "https://models.example", "203.0.113.5")]
    public async Task Client_scheme_and_host_are_believed_as_far_as_the_proxies_are_trusted(string trusted, string origin, string client)
    {
        var seen = new RequestWitness();
        await using var host = await ControlPlane.StartAsync(
            _node, configure: services => services.AddSingleton<IStartupFilter>(seen), configuration: $"Access:TrustedProxies={trusted}");
        using var request = new HttpRequestMessage(HttpMethod.Get, "/health")
        {
            Headers = { { "X-Forwarded-For", "203.0.113.5, 10.9.9.9" }, { "X-Forwarded-Proto", "https, https" }, { "X-Forwarded-Host", "models.example, models.example" } },
        };

        (await host.Client.SendAsync(request, Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);

        // its answer may be here before everything behind the listener has left it
        (await seen.Request.WaitAsync(Deadline.Allowed(60), Ct)).ShouldBe((origin, client));
    }

    [Theory]
    [InlineData("127.0.0.1", "/gpu", "", "/gpu")]
    [InlineData("127.0.0.1", "/gpu/", "/gpu", "/gpu")]
    [InlineData("127.0.0.1", "gpu", "", "")]
    [InlineData("127.0.0.1", "/", "", "")]
    [InlineData("127.0.0.1", "//elsewhere.example", "", "")]
    [InlineData("127.0.0.1", "/%2Felsewhere.example", "", "")]
    [InlineData("127.0.0.1", "/\\elsewhere.example", "", "")]
    [InlineData("127.0.0.1", "/gpu/../..", "", "")]
    [InlineData("127.0.0.1", "/gpu%0d%0a", "", "")]
    [InlineData("127.0.0.1", "too long", "", "")]
    [InlineData("127.0.0.1", "/gpu-1/models_2.0", "", "/gpu-1/models_2.0")]
    [InlineData("", "/gpu", "", "")]
    public async Task Prefix_that_a_trusted_proxy_tells_is_in_the_addresses_that_are_given_out(string trusted, string told, string sent, string expected)
    {
        told = told == "too long" ? "/" + new string('x', 1100) : told;
        await using var host = await ControlPlane.StartAsync(_node, configuration: $"Access:TrustedProxies={trusted}");
        using var request = new HttpRequestMessage(HttpMethod.Post, sent + "/backends/apply")
        {
            Headers = { { "X-Forwarded-For", "10.1.2.3" }, { "X-Forwarded-Prefix", told } },
            Content = JsonContent.Create(new { id = "nothing" }),
        };
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", host.AdminKey);

        using var answer = await host.Client.SendAsync(request, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await answer.Content.ReadAsStringAsync(Ct)).ShouldContain($"\"status_url\":\"{host.Url}".TrimEnd('/') + $"{expected}/backends/jobs/");
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

    private static async Task<HttpResponseMessage> GetAsync(Uri url, string version, X509Certificate2 certificate)
    {
        using var client = new HttpClient(new SocketsHttpHandler
        {
            SslOptions = new SslClientAuthenticationOptions { RemoteCertificateValidationCallback = (_, shown, _, _) => shown!.GetCertHashString() == certificate.GetCertHashString() },
        });
        return await client.SendAsync(
            new HttpRequestMessage(HttpMethod.Get, url) { Version = Version.Parse(version), VersionPolicy = HttpVersionPolicy.RequestVersionExact }, Ct);
    }

    /// <summary>Keeps what the first request looked like to everything behind the listener.</summary>
    private sealed class RequestWitness : IStartupFilter
    {
        private readonly TaskCompletionSource<(string Origin, string? Client)> _request = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Task<(string Origin, string? Client)> Request => _request.Task;

        public Action<IApplicationBuilder> Configure(Action<IApplicationBuilder> next) => app =>
        {
            app.Use(async (HttpContext context, RequestDelegate after) =>
            {
                await after(context);
                _request.TrySetResult(($"{context.Request.Scheme}://{context.Request.Host.Host}", context.Connection.RemoteIpAddress?.MapToIPv4().ToString()));
            });
            next(app);
        };
    }
}
