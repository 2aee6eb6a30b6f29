using System.Net;
using System.Net.Sockets;
using System.Text;
using Microsoft.AspNetCore.Http;
using ModelHost.Agent.Proxy;
using ModelHost.Core.Routing;
using ModelHost.TestKit;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.Proxy;

/// <summary>What passes a public port, and what is answered when it cannot.</summary>
public sealed class DirectRouteTests : IDisposable
{
    private readonly TestNode _node = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task All_that_the_gateway_forwards_passes_to_the_path_that_engines_have()
    {
        await using var proxy = new ProxyAlone(_node);
        proxy.Answer = context => context.Response.WriteAsync($"{context.Request.Method} {context.Request.Path}{context.Request.QueryString}", Ct);
        await proxy.ServeAsync(DirectState.Ready);
        foreach (var route in GatewayRoutes.All)
        {
            foreach (var path in (string[])[route.PublicPath, route.EnginePath, route.PublicPath + "?x=../metrics"])
            {
                using var answer = await proxy.Client.PostAsync(new Uri(path, UriKind.Relative), new StringContent("{}", Encoding.UTF8, "application/json"), Ct);
                (await answer.Content.ReadAsStringAsync(Ct)).ShouldBe($"POST {route.EnginePath}");
            }
        }
        (await proxy.Client.GetStringAsync(new Uri("/v1/models", UriKind.Relative), Ct)).ShouldBe("GET /v1/models");
    }

    [Theory]
    [InlineData("GET", "/"), InlineData("GET", "/v1"), InlineData("GET", "/v1/models/m"), InlineData("GET", "/v1/models/"), InlineData("HEAD", "/v1/models"), InlineData("POST", "/v1/models")]
    [InlineData("GET", "/metrics"), InlineData("GET", "/version"), InlineData("GET", "/health"), InlineData("GET", "/ping"), InlineData("POST", "/ping"), InlineData("GET", "/load")]
    [InlineData("POST", "/sleep"), InlineData("POST", "/sleep?level=1"), InlineData("POST", "/wake_up"), InlineData("GET", "/is_sleeping"), InlineData("POST", "/collective_rpc")]
    [InlineData("POST", "/v1/load_lora_adapter"), InlineData("POST", "/v1/unload_lora_adapter"), InlineData("POST", "/reset_prefix_cache"), InlineData("GET", "/server_info")]
    [InlineData("GET", "/docs"), InlineData("GET", "/openapi.json"), InlineData("POST", "/invocations"), InlineData("GET", "/tokenizer_info"), InlineData("POST", "/pause"), InlineData("POST", "/start_profile")]
    [InlineData("GET", "/v1/chat/completions"), InlineData("DELETE", "/v1/chat/completions"), InlineData("OPTIONS", "/v1/chat/completions"), InlineData("GET", "/v1/responses/resp_1")]
    public async Task Nothing_else_does(string method, string path)
    {
        await using var proxy = new ProxyAlone(_node);
        await proxy.ServeAsync(DirectState.Ready);

        using var request = new HttpRequestMessage(new HttpMethod(method), path);
        using var answer = await proxy.Client.SendAsync(request, Ct);

        if (method == "HEAD")
            answer.StatusCode.ShouldBe(HttpStatusCode.NotFound);
        else
            await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.NotFound, "not_found");
        answer.Headers.Server.ShouldBeEmpty();
        proxy.Asked.ShouldBe(0);
    }

    [Theory]
    [InlineData("//v1/models"), InlineData("/v1//models"), InlineData("/v1/./models"), InlineData("/v1/../v1/models"), InlineData("/v1/models/../../metrics"), InlineData("/v1/models/..")]
    [InlineData("/v1/%6dodels"), InlineData("/v1%2fmodels"), InlineData("/v1%2Fmodels"), InlineData("/%2e/v1/models"), InlineData("/v1/models%00"), InlineData("/v1/models%20"), InlineData("/v1/%2e%2e/metrics")]
    [InlineData("/v1/models/%2e%2e/%2e%2e/metrics"), InlineData("/V1/models"), InlineData("/v1/models;x=y"), InlineData("/v1/models#/metrics"), InlineData("\\v1\\models"), InlineData("/v1\\models")]
    [InlineData("http://127.0.0.1/v1/models"), InlineData("http://attacker.example/metrics"), InlineData("v1/models"), InlineData("/v1/models/..;/metrics"), InlineData("/v1/models%3f"), InlineData("*")]
    public async Task A_path_that_is_written_in_another_way_is_another_one(string target)
    {
        await using var proxy = new ProxyAlone(_node);
        await proxy.ServeAsync(DirectState.Ready);

        var answer = await RawHttp.SendAsync(proxy.Client.BaseAddress!, $"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", halfClose: false, Ct, asItIs: true);

        answer.Split(' ')[1].ShouldBeOneOf("400", "404", "405");
        proxy.Asked.ShouldBe(0);
    }

    [Fact]
    public async Task Where_a_request_ends_is_not_in_doubt()
    {
        await using var proxy = new ProxyAlone(_node);
        proxy.Answer = async context =>
        {
            using var reader = new StreamReader(context.Request.Body);
            await context.Response.WriteAsync($"[{await reader.ReadToEndAsync(Ct)}]", Ct);
        };
        await proxy.ServeAsync(DirectState.Ready);
        const string Post = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        const string Stolen = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";

        var twice = await RawHttp.SendAsync(proxy.Client.BaseAddress!, $"{Post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{Stolen}", false, Ct, asItIs: true);
        var both = await RawHttp.SendAsync(proxy.Client.BaseAddress!, $"{Post}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{Stolen}", true, Ct, asItIs: true);

        twice.ShouldStartWith("HTTP/1.1 400 ");
        twice.ShouldContain("\"invalid_json\"");
        twice.ShouldNotContain("[");
        (both.Split("HTTP/1.1 ").Length - 1).ShouldBeLessThanOrEqualTo(1, both);
    }

    [Fact]
    public async Task The_engine_gets_its_own_key_and_no_credential_of_the_client()
    {
        await using var proxy = new ProxyAlone(_node);
        proxy.Answer = async context =>
        {
            context.Response.Headers["Server"] = "uvicorn";
            context.Response.Headers["X-Internal"] = "secret";
            context.Response.Headers["Set-Cookie"] = "a=b";
            foreach (var (name, value) in context.Request.Headers)
                await context.Response.WriteAsync($"{name}: {value}\n", Ct);
        };
        await proxy.ServeAsync(DirectState.Ready);

        using var answer = await DirectNode.ChatAsync(proxy.Client, "mh_sk_mine", headers:
            [("X-Api-Key", "mh_sk_mine"), ("Cookie", "session=mine"), ("Proxy-Authorization", "Basic mine"), ("X-Forwarded-For", "10.0.0.1"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("X-Request-Id", "named")]);
        var seen = await answer.Content.ReadAsStringAsync(Ct);

        seen.ShouldContain($"Authorization: Bearer {ProxyAlone.Key}");
        seen.ShouldContain("X-Request-Id: named");
        seen.ShouldNotContain("mine");
        seen.ShouldNotContain("Forwarded");
        seen.ShouldNotContain("Upgrade");
        answer.Headers.Select(header => header.Key).ShouldBe(["Date", "Transfer-Encoding", "X-Content-Type-Options", "X-Request-ID"], ignoreOrder: true);
    }

    [Fact]
    public async Task A_run_that_cannot_answer_says_why()
    {
        await using var proxy = new ProxyAlone(_node);
        await proxy.ServeAsync(DirectState.Coming);
        using (var coming = await DirectNode.ChatAsync(proxy.Client))
        {
            await coming.ShouldBeOpenAiErrorAsync(HttpStatusCode.ServiceUnavailable, "model_loading", "model");
            coming.Headers.RetryAfter!.Delta.ShouldBe(TimeSpan.FromSeconds(2));
        }
        await proxy.ServeAsync(DirectState.Ending);
        await (await DirectNode.ChatAsync(proxy.Client)).ShouldBeOpenAiErrorAsync(HttpStatusCode.ServiceUnavailable, "shutting_down");
        proxy.Reported().Draining.ShouldBeTrue();
        await proxy.ServeAsync(DirectState.Down);
        await (await DirectNode.ChatAsync(proxy.Client)).ShouldBeOpenAiErrorAsync(HttpStatusCode.BadGateway, "deployment_unreachable");
        proxy.Asked.ShouldBe(0);
        await proxy.ServeAsync(DirectState.Ready);
        (await DirectNode.ChatAsync(proxy.Client)).StatusCode.ShouldBe(HttpStatusCode.OK);
        proxy.Answer = context =>
        {
            context.Abort();
            return Task.CompletedTask;
        };
        await (await DirectNode.ChatAsync(proxy.Client)).ShouldBeOpenAiErrorAsync(HttpStatusCode.BadGateway, "deployment_unreachable");
        proxy.Engine = new Uri($"http://127.0.0.1:{TestPorts.Free()}");
        await proxy.ServeAsync(DirectState.Ready);
        await (await DirectNode.ChatAsync(proxy.Client)).ShouldBeOpenAiErrorAsync(HttpStatusCode.BadGateway, "deployment_unreachable");
        await Deadline.UntilAsync(() => proxy.Reported().DirectRequests == 0, what: "no request to be under way");
    }

    [Fact]
    public async Task A_body_is_bounded_as_at_the_gateway()
    {
        await using var node = await DirectNode.StartAsync(configuration: "Gateway:MaxRequestBytes=100000");
        await node.BecomesAsync(HttpStatusCode.OK);
        foreach (var isChunked in (bool[])[false, true])
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions")
            {
                Content = new StringContent($$"""{"model":"demo/tiny-chat","x":"{{new string('x', 100_000)}}"}""", Encoding.UTF8, "application/json"),
            };
            // a server that refuses a body while it is being sent breaks the pipe, at times before its answer is read
            (request.Headers.TransferEncodingChunked, request.Headers.ExpectContinue) = (isChunked, true);
            using var answer = await node.Client.SendAsync(request, Ct);

            await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.RequestEntityTooLarge, "request_too_large");
            answer.Headers.ConnectionClose.ShouldBe(true);
        }
        await node.Host.Client.StopModelAsync(node.Id);
    }

    [Fact]
    public async Task A_port_that_is_taken_is_told_of_and_served_when_it_is_free()
    {
        var port = TestPorts.Free();
        using var other = new TcpListener(IPAddress.Loopback, port);
        other.Start();
        await using var node = await DirectNode.StartAsync(port: port);

        var told = await Deadline.UntilAsync(node.ReadAsync, deployment => deployment.GetProperty("detail").GetString() is not null, what: "the fault to be told");
        (told.GetProperty("status").GetString(), told.GetProperty("detail").GetString()!.Split(':')[0]).ShouldBe(("running", $"nobody can listen on the public port {port}"));
        (await DirectNode.ChatAsync(node.Host.Client)).StatusCode.ShouldBe(HttpStatusCode.OK, "the gateway needs no public port");
        other.Stop();

        using var answer = await Deadline.UntilAsync(async () =>
        {
            try
            {
                return await node.ChatAsync();
            }
            catch (HttpRequestException)
            {
                return null;
            }
        }, answer => answer is not null, what: "the port to be listened on");
        answer!.StatusCode.ShouldBe(HttpStatusCode.OK);
        await Deadline.UntilAsync(node.ReadAsync, deployment => deployment.GetProperty("detail").GetString() is null, what: "the fault to be gone");
        await node.Host.Client.StopModelAsync(node.Id);
    }

    public void Dispose() => _node.Dispose();
}
