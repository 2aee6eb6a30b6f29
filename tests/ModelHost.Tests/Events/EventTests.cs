using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Features.Events;
using ModelHost.TestKit;
using ModelHost.Tests.Hosting;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Events;

/// <summary>The events of <c>/ws</c>, over real sockets.</summary>
public sealed class EventTests
{
    private const string Everywhere = "http://0.0.0.0:0";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("/ws")]
    [InlineData("/ws/")]
    public async Task Each_kind_of_change_is_told_in_the_form_of_the_page(string path)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        await using var socket = await EventSocket.OpenAsync(host.Url, path);
        var feed = host.Services.GetRequiredService<ChangeFeed>();

        feed.Publish(Change.Deployments(7, 12));
        feed.Publish(Change.AllDeployments);
        feed.Publish(Change.Nodes);
        feed.Publish(Change.Settings);
        feed.Publish(Change.ApiKeys);

        foreach (var expected in (string[])
            [
                """{"type":"deployments_changed","ids":[7,12]}""", """{"type":"deployments_changed"}""", """{"type":"nodes_changed"}""",
                """{"type":"settings_changed"}""", """{"type":"api_keys_changed"}""",
            ])
            (await socket.NextAsync()).ShouldBe(expected);
    }

    [Fact]
    public async Task Every_step_of_a_deployment_is_told_once_it_can_be_read()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");
        int id;
        await using (var socket = await EventSocket.OpenAsync(host.Url))
        {
            id = await host.Client.StartModelAsync(Api.StartRequest(node));
            await ShouldTellAsync(socket, id);
            while ((await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("status").GetString() != "running")
                await ShouldTellAsync(socket, id);
        }
        await using (var socket = await EventSocket.OpenAsync(host.Url))
        {
            (await host.Client.PostAsync(new Uri($"/api/deployments/stop/{id}", UriKind.Relative), null, Ct)).EnsureSuccessStatusCode();
            await ShouldTellAsync(socket, id);
            while ((await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("status").GetString() != "stopped")
                await ShouldTellAsync(socket, id);
        }
        await using (var socket = await EventSocket.OpenAsync(host.Url))
        {
            (await host.Client.DeleteAsync(new Uri($"/api/deployments/{id}", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
            await ShouldTellAsync(socket, id);
        }
    }

    [Fact]
    public async Task Five_hundred_clients_all_hear_of_a_change()
    {
        // a client that does not read answers no ping
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: "Events:PingInterval=01:00:00");
        var sockets = new List<EventSocket>();
        for (var i = 0; i < 500; i++)
            sockets.Add(await EventSocket.OpenAsync(host.Url));
        host.Services.GetRequiredService<EventClients>().Count.ShouldBe(500);

        using var answer = await host.Client.PutAsJsonAsync("/api/settings", new { default_port = 9001 }, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await Task.WhenAll(sockets.Select(socket => socket.NextAsync()))).ShouldAllBe(text => text == """{"type":"settings_changed"}""");
        foreach (var socket in sockets)
            await socket.DisposeAsync();
        await Deadline.UntilAsync(() => host.Services.GetRequiredService<EventClients>().Count == 0, what: "all clients to be gone");
    }

    [Fact]
    public async Task Only_who_may_use_the_api_gets_in()
    {
        await using var host = await ControlPlane.StartAsync(urls: Everywhere, configure: ScriptedNode.WithoutLocalNode);

        (await EventSocket.StatusAsync(host.Url)).ShouldBe(HttpStatusCode.Unauthorized);
        (await EventSocket.StatusAsync(host.Url, headers: ("Authorization", "Bearer wrong"))).ShouldBe(HttpStatusCode.Unauthorized);
        foreach (var name in (string[])["key", "api_key", "token", "access_token"])
            (await EventSocket.StatusAsync(host.Url, $"/ws?{name}={host.AdminKey}")).ShouldBe(HttpStatusCode.Unauthorized);
        (await EventSocket.StatusAsync(host.Url, headers: ("Authorization", $"Bearer {host.AdminKey}"))).ShouldBe(HttpStatusCode.SwitchingProtocols);
    }

    [Theory]
    [InlineData("http://127.0.0.1:0", "")]
    [InlineData(Everywhere, "Access:TrustedLan=true")]
    [InlineData(Everywhere, "Access:TrustedLan=false")]
    public async Task A_page_of_another_origin_is_refused_whatever_it_sends(string urls, string setting)
    {
        await using var host = await ControlPlane.StartAsync(urls: urls, configure: ScriptedNode.WithoutLocalNode, configuration: setting.Length > 0 ? [setting] : []);
        var own = $"http://127.0.0.1:{host.Url.Port}";
        var key = ("Authorization", $"Bearer {host.AdminKey}");

        foreach (var origin in (string[])["https://attacker.example", "null", $"https://127.0.0.1:{host.Url.Port}", "http://127.0.0.1:1", $"{own}.attacker.example"])
        {
            (await EventSocket.StatusAsync(host.Url, headers: ("Origin", origin))).ShouldBe(HttpStatusCode.Forbidden, origin);
            (await EventSocket.StatusAsync(host.Url, headers: [("Origin", origin), key])).ShouldBe(HttpStatusCode.Forbidden, origin);
        }
        (await EventSocket.StatusAsync(host.Url, headers: [("Sec-Fetch-Site", "cross-site"), key])).ShouldBe(HttpStatusCode.Forbidden);
        (await EventSocket.StatusAsync(host.Url, headers: [("Origin", own), key])).ShouldBe(HttpStatusCode.SwitchingProtocols);
        if (setting != "Access:TrustedLan=false")
            (await EventSocket.StatusAsync(host.Url, headers: ("Origin", own))).ShouldBe(HttpStatusCode.SwitchingProtocols);
    }

    [Fact]
    public async Task On_loopback_a_rebound_name_or_a_proxy_does_not_get_in()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);

        (await EventSocket.StatusAsync(host.Url, headers: ("X-Forwarded-For", "10.0.0.1"))).ShouldBe(HttpStatusCode.Unauthorized);
        (await EventSocket.StatusAsync(host.Url, headers: [("Host", "attacker.example"), ("Origin", "http://attacker.example")])).ShouldBe(HttpStatusCode.Unauthorized);
        (await EventSocket.StatusAsync(host.Url)).ShouldBe(HttpStatusCode.SwitchingProtocols);
    }

    [Fact]
    public async Task Who_does_not_speak_websocket_is_told_to()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);

        using var answer = await host.Client.GetAsync(new Uri("/ws", UriKind.Relative), Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.UpgradeRequired);
        answer.Headers.Upgrade.ToString().ShouldBe("websocket");
        (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("code").GetString().ShouldBe("events.websocket_needed");
    }

    [Fact]
    public async Task Clients_beyond_the_limit_are_refused_until_one_leaves()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: "Events:MaxClients=2");
        await using var stays = await EventSocket.OpenAsync(host.Url);
        await using (await EventSocket.OpenAsync(host.Url))
            (await EventSocket.StatusAsync(host.Url)).ShouldBe(HttpStatusCode.ServiceUnavailable);

        await Deadline.UntilAsync(() => EventSocket.StatusAsync(host.Url), status => status == HttpStatusCode.SwitchingProtocols);
    }

    [Fact]
    public async Task What_a_client_says_is_ignored_and_a_message_over_the_limit_ends_it()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: "Events:MaxMessageBytes=1000");
        await using var socket = await EventSocket.OpenAsync(host.Url);
        for (var i = 0; i < 100; i++)
            await socket.SendAsync(new string('x', 1000));
        await socket.SendAsync("");
        await socket.SendAsync("""{"type":"deployments_changed"}""");
        host.Services.GetRequiredService<ChangeFeed>().Publish(Change.Nodes);
        (await socket.NextAsync()).ShouldBe("""{"type":"nodes_changed"}""");

        await socket.SendAsync(new string('x', 1001));

        (await socket.NextAsync()).ShouldBeNull();
        socket.Socket.CloseStatus.ShouldBe(WebSocketCloseStatus.MessageTooBig);
    }

    [Fact]
    public async Task A_client_that_closes_is_answered()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        await using var socket = await EventSocket.OpenAsync(host.Url);

        await socket.Socket.CloseAsync(WebSocketCloseStatus.NormalClosure, null, Ct);

        socket.Socket.State.ShouldBe(WebSocketState.Closed);
        socket.Socket.CloseStatus.ShouldBe(WebSocketCloseStatus.NormalClosure);
    }

    [Fact]
    public async Task A_client_that_takes_nothing_is_dropped_and_the_others_hear_on()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: ["Events:SendTimeout=00:00:05", "Events:PingInterval=01:00:00"]);
        var (clients, feed) = (host.Services.GetRequiredService<EventClients>(), host.Services.GetRequiredService<ChangeFeed>());
        await using var other = await EventSocket.OpenAsync(host.Url);
        using var stuck = await HandshakeAsync(host.Url, receiveBuffer: 4096);
        clients.Count.ShouldBe(2);
        var ids = Enumerable.Range(1, 20_000).ToArray();

        while (clients.Count == 2)
        {
            feed.Publish(Change.Deployments(ids));
            (await other.NextAsync("deployments_changed")).GetProperty("ids").GetArrayLength().ShouldBe(ids.Length);
        }

        feed.Publish(Change.Nodes);
        (await other.NextAsync("nodes_changed")).EnumerateObject().Count().ShouldBe(1);
    }

    [Fact]
    public async Task A_client_is_pinged_and_dropped_when_it_does_not_answer()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: ["Events:PingInterval=00:00:01", "Events:PingTimeout=00:00:15"]);
        var clients = host.Services.GetRequiredService<EventClients>();
        await using var answers = await EventSocket.OpenAsync(host.Url);
        var reading = answers.NextAsync(); // a client answers pings while it reads
        using var mute = await HandshakeAsync(host.Url);

        var frame = new byte[1];
        await mute.GetStream().ReadExactlyAsync(frame, Ct);

        frame[0].ShouldBe((byte)0x89, "RFC 6455, 5.5.2: a ping, whole in one frame");
        await Deadline.UntilAsync(() => clients.Count == 1, 90, "the mute client to be dropped");
        host.Services.GetRequiredService<ChangeFeed>().Publish(Change.Nodes);
        (await reading).ShouldBe("""{"type":"nodes_changed"}""");
    }

    [Fact]
    public async Task At_the_end_of_the_host_clients_are_told_to_go()
    {
        var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        await using var socket = await EventSocket.OpenAsync(host.Url);

        var ending = host.DisposeAsync().AsTask();
        (await socket.NextAsync()).ShouldBeNull();
        socket.Socket.CloseStatus.ShouldBe(WebSocketCloseStatus.EndpointUnavailable);

        await socket.Socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, null, Ct); // or it is waited for as long as a client may take
        await ending;
    }

    [Fact]
    public async Task Over_http_2_it_is_the_same()
    {
        using var node = new TestNode();
        await using var host = await ControlPlane.StartAsync(node, "https://127.0.0.1:0", ScriptedNode.WithoutLocalNode, TestCertificate.Make(node).Settings);
        using var handler = new SocketsHttpHandler { SslOptions = { RemoteCertificateValidationCallback = (_, shown, _, _) => shown?.Subject == "CN=localhost" } };
        using var invoker = new HttpMessageInvoker(handler);
        using var socket = new ClientWebSocket { Options = { HttpVersion = HttpVersion.Version20, HttpVersionPolicy = HttpVersionPolicy.RequestVersionExact } };
        await socket.ConnectAsync(new Uri($"wss://127.0.0.1:{host.Url.Port}/ws"), invoker, Ct);

        host.Services.GetRequiredService<ChangeFeed>().Publish(Change.Nodes);

        var buffer = new byte[100];
        var piece = await socket.ReceiveAsync(buffer, Ct);
        Encoding.UTF8.GetString(buffer, 0, piece.Count).ShouldBe("""{"type":"nodes_changed"}""");
    }

    private static async Task ShouldTellAsync(EventSocket socket, int id)
    {
        var message = await socket.NextAsync("deployments_changed");
        message.EnumerateObject().Select(property => property.Name).ShouldBe(["type", "ids"]);
        message.GetProperty("ids").EnumerateArray().Select(value => value.GetInt32()).ShouldBe([id]);
    }

    /// <summary>A client that has been let in, and then says and reads nothing by itself.</summary>
    private static async Task<TcpClient> HandshakeAsync(Uri server, int receiveBuffer = 65536)
    {
        var client = new TcpClient { ReceiveBufferSize = receiveBuffer };
        await client.ConnectAsync(server.Host, server.Port, Ct);
        var stream = client.GetStream();
        await stream.WriteAsync(Encoding.ASCII.GetBytes(
            $"GET /ws HTTP/1.1\r\nHost: {server.Authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"), Ct);
        var answer = new StringBuilder();
        var one = new byte[1];
        while (!answer.ToString().EndsWith("\r\n\r\n", StringComparison.Ordinal))
        {
            await stream.ReadExactlyAsync(one, Ct);
            answer.Append((char)one[0]);
        }
        answer.ToString().ShouldStartWith("HTTP/1.1 101 ");
        return client;
    }
}
