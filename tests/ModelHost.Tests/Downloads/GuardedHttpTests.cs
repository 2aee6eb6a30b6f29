using System.Net;
using ModelHost.Agent.Downloads;
using ModelHost.TestKit;
using ModelHost.Tests.Artifacts;

namespace ModelHost.Tests.Downloads;

public sealed class GuardedHttpTests
{
    private static readonly Dictionary<string, string> s_none = [];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("8.8.8.8", true)]
    [InlineData("172.32.0.1", true)]
    [InlineData("100.63.0.1", true)]
    [InlineData("2606:4700::1111", true)]
    [InlineData("64:ff9b::808:808", true)]
    [InlineData("0.0.0.0", false)]
    [InlineData("10.1.2.3", false)]
    [InlineData("100.64.0.1", false)]
    [InlineData("100.100.100.200", false)]
    [InlineData("127.0.0.1", false)]
    [InlineData("127.255.0.1", false)]
    [InlineData("169.254.169.254", false)]
    [InlineData("172.16.0.1", false)]
    [InlineData("192.168.1.1", false)]
    [InlineData("198.18.0.1", false)]
    [InlineData("224.0.0.1", false)]
    [InlineData("255.255.255.255", false)]
    [InlineData("::", false)]
    [InlineData("::1", false)]
    [InlineData("::ffff:127.0.0.1", false)]
    [InlineData("::ffff:169.254.169.254", false)]
    [InlineData("::127.0.0.1", false)]
    [InlineData("64:ff9b::7f00:1", false)]
    [InlineData("64:ff9b:1::7f00:1", false)]
    [InlineData("2002:7f00:1::1", false)]
    [InlineData("2001:0:4136:e378:8000:63bf:3fff:fdd2", false)]
    [InlineData("fc00::1", false)]
    [InlineData("fd00:ec2::254", false)]
    [InlineData("fe80::1", false)]
    [InlineData("fec0::1", false)]
    [InlineData("ff02::1", false)]
    public void Addresses_are_told_apart(string address, bool isPublic) => PublicAddress.Is(IPAddress.Parse(address)).ShouldBe(isPublic);

    [Theory]
    [InlineData("http://127.0.0.1:PORT/a")]
    [InlineData("http://localhost:PORT/a")]
    [InlineData("http://[::ffff:127.0.0.1]:PORT/a")]
    [InlineData("http://2130706433:PORT/a")]
    [InlineData("http://0x7f.1:PORT/a")]
    [InlineData("http://017700000001:PORT/a")]
    [InlineData("http://169.254.169.254/latest/meta-data")]
    [InlineData("http://[::1]:PORT/a")]
    [InlineData("http://0.0.0.0:PORT/a")]
    public async Task What_is_not_public_is_not_reached(string url)
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/a", [1]);
        using var http = new GuardedHttp(new DownloadOptions(), TimeProvider.System);

        var failure = await Should.ThrowAsync<DownloadException>(() => http.GetAsync(new Uri(url.Replace("PORT", $"{server.Address.Port}", StringComparison.Ordinal)), s_none, Ct));

        failure.Code.ShouldBe("address_refused");
        server.Requests.ShouldBeEmpty();
    }

    [Fact]
    public async Task Redirect_is_judged_as_an_address_is()
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/out", []).RedirectTo = "http://169.254.169.254/latest/meta-data";
        server.Put("/scheme", []).RedirectTo = "file:///etc/passwd";
        server.Put("/login", []).RedirectTo = "http://user:secret@models.example/";
        server.Put("/round", []).RedirectTo = "/round";

        (await FailAsync(server.Url("/out"))).Code.ShouldBe("address_refused");
        (await FailAsync(server.Url("/scheme"))).Code.ShouldBe("redirect_refused");
        var login = await FailAsync(server.Url("/login"));
        (login.Code, login.Message.Contains("secret", StringComparison.Ordinal)).ShouldBe(("redirect_refused", false));
        (await FailAsync(server.Url("/round"))).Message.ShouldContain("more than 10 times");
        server.Requests.Count(asked => asked.Path == "/round").ShouldBe(11);
    }

    [Fact]
    public void Redirect_from_https_to_http_is_refused()
    {
        GuardedHttp.Next(new Uri("https://a.example/x"), new Uri("/y", UriKind.Relative)).ShouldBe(new Uri("https://a.example/y"));
        GuardedHttp.Next(new Uri("http://a.example/x"), new Uri("https://b.example/")).ShouldBe(new Uri("https://b.example/"));
        Should.Throw<DownloadException>(() => GuardedHttp.Next(new Uri("https://a.example/x"), new Uri("http://a.example/x?secret=1"))).Message.ShouldNotContain("secret");
    }

    [Fact]
    public async Task Authorization_goes_to_the_first_host_only()
    {
        await using var first = await FileServer.StartAsync();
        await using var second = await FileServer.StartAsync();
        first.Put("/a", []).RedirectTo = "/b";
        first.Put("/b", []).RedirectTo = second.Url("/c");
        second.Put("/c", []).RedirectTo = second.Url("/d?signature=hidden");
        second.Put("/d?signature=hidden", "done"u8.ToArray());
        using var http = new GuardedHttp(Pulls.Options(), TimeProvider.System);

        var bytes = await http.GetBytesAsync(new Uri(first.Url("/a")), new Dictionary<string, string> { ["authorization"] = "Bearer x", ["X-Other"] = "y" }, 100, Ct);

        bytes.ShouldBe("done"u8.ToArray());
        first.Requests.Select(asked => asked.Authorization).ShouldBe(["Bearer x", "Bearer x"]);
        second.Requests.Select(asked => asked.Authorization).ShouldBe(["", ""]);
    }

    [Fact]
    public async Task Addresses_with_a_login_or_another_scheme_are_no_addresses()
    {
        foreach (var url in (string[])["ftp://models.example/a", "file:///etc/passwd", "http://user@models.example/"])
            (await FailAsync(url)).Code.ShouldBe("uri_invalid");
    }

    [Fact]
    public async Task Document_that_is_too_long_is_not_read_to_its_end()
    {
        await using var server = await FileServer.StartAsync();
        server.Put("/told", FileServer.Bytes(100_000));
        server.Put("/untold", FileServer.Bytes(100_000)).Chunked = true;
        using var http = new GuardedHttp(Pulls.Options(), TimeProvider.System);

        foreach (var path in (string[])["/told", "/untold"])
            (await Should.ThrowAsync<DownloadException>(() => http.GetBytesAsync(new Uri(server.Url(path)), s_none, 50_000, Ct))).Code.ShouldBe("too_large");
    }

    [Fact]
    public async Task Server_that_trickles_is_given_up()
    {
        await using var server = await FileServer.StartAsync(first: async context =>
        {
            while (!context.RequestAborted.IsCancellationRequested)
            {
                await context.Response.Body.WriteAsync(new byte[1]);
                await context.Response.Body.FlushAsync();
                await Task.Delay(20);
            }
            return true;
        });
        var options = Pulls.Options();
        options.StallTimeout = TimeSpan.FromMilliseconds(500);
        using var http = new GuardedHttp(options, TimeProvider.System);

        var failure = await Should.ThrowAsync<DownloadException>(() => http.GetBytesAsync(new Uri(server.Address, "/"), s_none, 1_000_000, Ct));

        (failure.Code, failure.IsPassing).ShouldBe(("timed_out", true));
    }

    [Fact]
    public async Task Server_that_says_nothing_is_given_up()
    {
        await using var server = await FileServer.StartAsync(first: async context =>
        {
            await Task.Delay(Timeout.Infinite, context.RequestAborted).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            return true;
        });
        var options = Pulls.Options();
        (options.ConnectTimeout, options.StallTimeout) = (TimeSpan.FromMilliseconds(200), TimeSpan.FromMilliseconds(200));
        using var http = new GuardedHttp(options, TimeProvider.System);

        (await Should.ThrowAsync<DownloadException>(() => http.GetAsync(new Uri(server.Address, "/"), s_none, Ct))).Code.ShouldBe("timed_out");
    }

    [Fact]
    public async Task Unknown_name_cannot_be_reached()
    {
        var failure = await FailAsync("https://no-such-host.invalid/a?token=hidden");

        failure.Code.ShouldBeOneOf("unreachable", "timed_out"); // as soon as the resolver of this machine says so
        (failure.IsPassing, failure.Message.Contains("hidden", StringComparison.Ordinal)).ShouldBe((true, false));
    }

    private static async Task<DownloadException> FailAsync(string url)
    {
        using var http = new GuardedHttp(Pulls.Options(), TimeProvider.System);
        return await Should.ThrowAsync<DownloadException>(() => http.GetAsync(new Uri(url), s_none, Ct));
    }
}
