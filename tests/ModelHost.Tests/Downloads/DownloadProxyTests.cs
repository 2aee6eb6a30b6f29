using System.Net;
using System.Text;
using Microsoft.Extensions.Options;
using ModelHost.Agent.Downloads;
using ModelHost.TestKit;
using ModelHost.Tests.Artifacts;

namespace ModelHost.Tests.Downloads;

/// <summary>Downloads through the proxy that the operator names, and through no other.</summary>
public sealed class DownloadProxyTests : IAsyncDisposable
{
    private static readonly Dictionary<string, string> s_none = [];

    private readonly ConnectProxy _proxy = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Cleartext_goes_through_it_in_absolute_form()
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/a?b=c", "content"u8.ToArray());
        _proxy.Lead("models.example:80", server.Address);
        using var http = Http();

        var bytes = await http.GetBytesAsync(new Uri("http://models.example/a?b=c"), s_none, 100, Ct);

        bytes.ShouldBe("content"u8.ToArray());
        var asked = _proxy.Requests.ShouldHaveSingleItem();
        (asked.Line, asked.Authorization).ShouldBe(("GET http://models.example/a?b=c HTTP/1.1", ""));
        server.Requests.ShouldHaveSingleItem().Host.ShouldBe("models.example");
    }

    [Fact]
    public async Task Tls_goes_through_a_tunnel()
    {
        await using var server = await FileServer.StartAsync();
        _proxy.Lead("models.example:443", server.Address); // it speaks no TLS: that the handshake fails shows that it was begun
        using var http = Http();

        var failure = await Should.ThrowAsync<DownloadException>(() => http.GetAsync(new Uri("https://models.example/a?secret=x"), new Dictionary<string, string> { ["Authorization"] = "Bearer hidden" }, Ct));

        (failure.Code, failure.IsPassing).ShouldBe(("unreachable", true));
        failure.Message.ShouldStartWith("https://models.example/a cannot be reached through the proxy (Downloads:Proxy): ");
        var asked = _proxy.Requests.ShouldHaveSingleItem();
        asked.Line.ShouldBe("CONNECT models.example:443 HTTP/1.1");
        asked.Head.ShouldNotContain("hidden");
    }

    [Theory]
    [InlineData("http://models.example/a")]
    [InlineData("https://models.example/a")]
    public async Task Login_is_sent_when_it_asks_for_it_and_told_in_no_message(string url)
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/a", []);
        foreach (var port in (int[])[80, 443])
            _proxy.Lead($"models.example:{port}", server.Address);
        _proxy.Login = "lab:p@ss s3cret";
        using var http = Http(login: "lab:p%40ss%20s3cret@");
        using var wrong = Http(login: "lab:s3cret@");
        using var none = Http();

        var right = await OutcomeAsync(http, url);
        var refused = await OutcomeAsync(wrong, url);
        var without = await OutcomeAsync(none, url);

        (right is null || right.Message.Contains("cannot be reached through the proxy", StringComparison.Ordinal)).ShouldBeTrue(right?.Message);
        _proxy.Requests.Count(asked => asked.Authorization == "Basic " + Convert.ToBase64String("lab:p@ss s3cret"u8)).ShouldBeGreaterThan(0);
        foreach (var failure in (DownloadException?[])[refused, without])
        {
            failure.ShouldNotBeNull().Message.ShouldBe($"the proxy (Downloads:Proxy) does not let through to {url}: it answers 407, it wants a login or another one");
            (failure.Code, failure.IsPassing).ShouldBe(("unreachable", false));
        }
        server.Requests.ShouldAllBe(asked => asked.Authorization == "");
    }

    [Theory]
    [InlineData(403, false)]
    [InlineData(503, true)]
    public async Task What_it_does_not_let_through_is_a_failure_that_says_so(int status, bool isPassing)
    {
        _proxy.Refuses = status;
        using var http = Http();

        var failure = (await OutcomeAsync(http, "https://models.example/a")).ShouldNotBeNull();

        (failure.Code, failure.IsPassing, failure.Message).ShouldBe(("unreachable", isPassing, $"the proxy (Downloads:Proxy) does not let through to https://models.example/a: it answers {status}"));
    }

    [Fact]
    public async Task One_that_is_not_there_is_a_failure_that_says_so()
    {
        using var http = new GuardedHttp(Options($"http://lab:s3cret@127.0.0.1:{TestPorts.Free()}"), TimeProvider.System);

        var failure = (await OutcomeAsync(http, "https://models.example/a")).ShouldNotBeNull();

        failure.Message.ShouldStartWith("https://models.example/a cannot be reached through the proxy (Downloads:Proxy): ");
        failure.Message.ShouldNotContain("s3cret");
    }

    [Theory]
    [InlineData("http://127.0.0.1:PORT/a")]
    [InlineData("http://127.0.0.1.:PORT/a")]
    [InlineData("http://127.1:PORT/a")]
    [InlineData("http://2130706433:PORT/a")]
    [InlineData("http://0x7f.1:PORT/a")]
    [InlineData("http://[::1]:PORT/a")]
    [InlineData("http://[::ffff:127.0.0.1]:PORT/a")]
    [InlineData("http://localhost:PORT/a")]
    [InlineData("http://LOCALHOST.:PORT/a")]
    [InlineData("http://169.254.169.254/latest/meta-data")]
    [InlineData("https://10.0.0.1/a")]
    [InlineData("http://metadata.google.internal/computeMetadata/v1/")]
    [InlineData("http://db.localhost/a")]
    [InlineData("http://printer.local/a")]
    [InlineData("http://intranet/a")]
    [InlineData("http://router.home.arpa./a")]
    public async Task What_means_something_nearby_is_never_asked_of_it(string url)
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/a", []);
        await using var first = await FileServer.StartAsync();
        var address = url.Replace("PORT", $"{server.Address.Port}", StringComparison.Ordinal);
        first.Put("/on", []).RedirectTo = address;
        _proxy.Lead("models.example:80", first.Address);
        var options = Options();
        options.AllowedNetworks = "";
        using var http = new GuardedHttp(options, TimeProvider.System);

        var direct = (await OutcomeAsync(http, address)).ShouldNotBeNull();
        var redirected = (await OutcomeAsync(http, "http://models.example/on")).ShouldNotBeNull();

        // names that nobody here knows lead nowhere, which a resolver may take long to say
        string[] codes = IPAddress.TryParse(new Uri(address).Host, out _) ? ["address_refused"] : ["address_refused", "unreachable", "timed_out"];
        direct.Code.ShouldBeOneOf(codes);
        redirected.Code.ShouldBeOneOf(codes);
        server.Requests.ShouldBeEmpty();
        _proxy.Requests.ShouldHaveSingleItem().Line.ShouldStartWith("GET http://models.example/on ");
    }

    [Fact]
    public async Task Redirects_go_through_it_too_and_carry_no_authorization_to_another_host()
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/a", []).RedirectTo = "http://cdn.example/b";
        server.Put("/b", "done"u8.ToArray());
        _proxy.Lead("models.example:80", server.Address);
        _proxy.Lead("cdn.example:80", server.Address);
        using var http = Http();

        var bytes = await http.GetBytesAsync(new Uri("http://models.example/a"), new Dictionary<string, string> { ["Authorization"] = "Bearer x" }, 100, Ct);

        bytes.ShouldBe("done"u8.ToArray());
        _proxy.Requests.Select(asked => asked.Line.Split(' ')[1]).ShouldBe(["http://models.example/a", "http://cdn.example/b"]);
        server.Requests.Select(asked => asked.Authorization).ShouldBe(["Bearer x", ""]);
    }

    [Fact]
    public async Task Server_of_an_allowed_network_is_reached_directly()
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/a", "near"u8.ToArray());
        using var http = Http();

        (await http.GetBytesAsync(new Uri(server.Url("/a")), s_none, 100, Ct)).ShouldBe("near"u8.ToArray());
        _proxy.Requests.ShouldBeEmpty();
    }

    [Fact]
    public async Task Host_that_is_exempt_is_not_asked_of_it()
    {
        var options = Options();
        options.NoProxy = "lab.example, *.site.example";
        using var http = new GuardedHttp(options, TimeProvider.System);

        foreach (var url in (string[])["http://lab.example/a", "https://models.lab.example/a", "http://a.site.example/a"])
            (await OutcomeAsync(http, url)).ShouldNotBeNull().Message.ShouldNotContain("proxy");
        _proxy.Requests.ShouldBeEmpty();
        (await OutcomeAsync(http, "http://other-lab.example/a")).ShouldNotBeNull();
        _proxy.Requests.ShouldHaveSingleItem();
    }

    [Theory]
    [InlineData("https://models.example/", false)]
    [InlineData("https://8.8.8.8/", false)]
    [InlineData("https://[2606:4700::1111]/", false)]
    [InlineData("https://mirror.lab.example/", true)]
    [InlineData("https://LAB.example./", true)]
    [InlineData("https://mylab.example/", false)]
    [InlineData("https://lab.example.com/", false)]
    [InlineData("https://1.1.1.1/", true)]
    [InlineData("https://local.example/", false)]
    [InlineData("https://example.123/", true)]
    public void Hosts_are_told_apart(string url, bool isBypassed) =>
        DownloadProxy.Of(new DownloadOptions { Proxy = "http://proxy.example:3128", NoProxy = ".lab.example,1.1.1.1" })!.IsBypassed(new Uri(url)).ShouldBe(isBypassed);

    [Theory]
    [InlineData("Proxy=proxy.example:3128")]
    [InlineData("Proxy=https://proxy.example:3128")]
    [InlineData("Proxy=socks5://proxy.example:1080")]
    [InlineData("Proxy=http://lab:s3cret@proxy.example:3128/path")]
    [InlineData("Proxy=http://lab:s3cret@proxy.example:3128?x=y")]
    [InlineData("NoProxy=http://lab.example")]
    [InlineData("NoProxy=lab.example:80")]
    [InlineData("NoProxy=*")]
    public async Task Setting_that_cannot_be_is_refused_at_start(string setting)
    {
        var refusal = await Should.ThrowAsync<OptionsValidationException>(ControlPlane.StartAsync(configuration: $"Downloads:{setting}"));

        refusal.Message.ShouldStartWith($"Downloads:{setting.Split('=')[0]}=");
        refusal.Message.ShouldNotContain("s3cret");
    }

    [Fact]
    public async Task Newest_release_is_looked_up_through_it()
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/latest", Encoding.UTF8.GetBytes("""{"tag_name":"v0.99.1"}"""));
        _proxy.Lead("api.example:80", server.Address);
        await using var host = await ControlPlane.StartAsync(configuration: [$"Downloads:Proxy=http://{_proxy.Host}", "Releases:Url=http://api.example/latest", "Releases:Timeout=00:00:30"]);

        (await host.Client.JsonAsync("/api/vllm-version")).GetProperty("version").GetString().ShouldBe("0.99.1");
        _proxy.Requests.ShouldContain(asked => asked.Line == "GET http://api.example/latest HTTP/1.1");
    }

    public ValueTask DisposeAsync() => _proxy.DisposeAsync();

    private GuardedHttp Http(string login = "") => new(Options($"http://{login}{_proxy.Host}"), TimeProvider.System);

    private DownloadOptions Options(string? proxy = null)
    {
        var options = Pulls.Options();
        options.Proxy = proxy ?? $"http://{_proxy.Host}";
        return options;
    }

    private static async Task<DownloadException?> OutcomeAsync(GuardedHttp http, string url)
    {
        try
        {
            using var answer = await http.GetAsync(new Uri(url), s_none, Ct);
            return null;
        }
        catch (DownloadException e)
        {
            return e;
        }
    }
}
