using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Google.Protobuf;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Gateway;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;

namespace ModelHost.Tests.Gateway.Grpc;

/// <summary>Backends that refuse, fail, fall silent and go away, and clients that leave: what is told, and what is counted.</summary>
public sealed class FailureTests
{
    private const string Hello = """{"model":"m","messages":[{"role":"user","content":"x"}]}""";
    private const string Stream = """{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}""";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(RpcCode.InvalidArgument, "the prompt is too long", 400, "backend_refused", 0)]
    [InlineData(RpcCode.Unimplemented, "", 501, "not_supported", 0)]
    [InlineData(RpcCode.Unknown, "rpc error: unimplemented", 501, "not_supported", 0)]
    [InlineData(RpcCode.Unknown, "Traceback: /opt/secret/model.py", 502, "backend_failed", 0)]
    [InlineData(RpcCode.Internal, "/opt/secret", 502, "backend_failed", 0)]
    [InlineData(RpcCode.NotFound, "model identity mismatch", 502, "backend_failed", 0)]
    [InlineData(RpcCode.FailedPrecondition, "model not loaded", 503, "model_loading", 0)]
    [InlineData(RpcCode.Unavailable, "", 502, "deployment_unreachable", 1)]
    [InlineData(RpcCode.DeadlineExceeded, "", 504, "deployment_timeout", 1)]
    public async Task What_a_backend_says_is_told_in_the_form_of_OpenAI(RpcCode code, string detail, int expected, string error, int aborted)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, _) => TestBackend.ThenFail(code, detail);

        foreach (var body in (string[])[Hello, Stream])
        {
            var (status, answer) = await ChatTests.PostAsync(host, body);

            ((int)status, JsonDocument.Parse(answer).RootElement.GetProperty("error").GetProperty("code").GetString()).ShouldBe((expected, error));
            answer.ShouldNotContain("secret");
            answer.Contains("too long", StringComparison.Ordinal).ShouldBe(expected == 400, "what a backend refuses is for its client to read");
        }
        (await UsageAsync(host)).ShouldBe((2, 2 * aborted, 2 - (2 * aborted), 0, 0));
    }

    [Fact]
    public async Task A_stream_that_fails_after_its_first_piece_ends_with_an_error()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, _) => TestBackend.ThenFail(RpcCode.Internal, "/opt/secret", TestBackend.Piece("a"), TestBackend.Piece("b", tokens: 2));

        var (status, answer) = await ChatTests.PostAsync(host, Stream);

        status.ShouldBe(HttpStatusCode.OK);
        var events = answer.Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
        events[^1].ShouldBe("data: [DONE]");
        events[^2].ShouldBe("""data: {"error":{"message":"The backend that serves 'm' failed the request.","type":"upstream_error","param":null,"code":"backend_failed"}}""");
        events.Length.ShouldBe(5);
        (await UsageAsync(host)).ShouldBe((1, 1, 0, 3, 2));
    }

    [Fact]
    public async Task A_backend_that_is_gone_or_speaks_something_else_is_a_bad_gateway()
    {
        await using var host = await ControlPlane.StartAsync();
        TestBackend.Route(host, new Uri($"http://127.0.0.1:{TestPorts.Free()}"));
        var gone = await ChatTests.PostAsync(host, Hello);
        await using var web = await EchoServer.StartAsync(map: app => app.MapPost("/backend.Backend/Predict", () => Results.Text("<html>hello</html>", "text/html")));
        TestBackend.Route(host, web.Address);
        var other = await ChatTests.PostAsync(host, Hello);
        using var babbler = new TcpListener(IPAddress.Loopback, 0);
        babbler.Start();
        var babble = Task.Run(async () =>
        {
            using var client = await babbler.AcceptTcpClientAsync(Ct);
            await client.GetStream().WriteAsync("220 mail.example ESMTP\r\n\r\n"u8.ToArray(), Ct);
        }, Ct);
        TestBackend.Route(host, new Uri($"http://{babbler.LocalEndpoint}"));
        var noise = await ChatTests.PostAsync(host, Hello);
        await babble;

        foreach (var (status, body) in new[] { gone, other, noise })
        {
            status.ShouldBe(HttpStatusCode.BadGateway, body);
            body.ShouldNotContain("127.0.0.1");
        }
    }

    [Fact]
    public async Task Garbage_in_a_message_and_a_message_that_is_too_long_are_a_bad_gateway()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, _) => TestBackend.Replies(new Reply { Message = ByteString.CopyFrom(new byte[51 * 1024 * 1024]) });
        var (tooLong, _) = await ChatTests.PostAsync(host, Hello);
        await using var garbage = await EchoServer.StartAsync(map: app => app.MapPost("/backend.Backend/Predict", async context =>
        {
            context.Response.ContentType = "application/grpc";
            await context.Response.Body.WriteAsync(new byte[] { 0, 0, 0, 0, 3, 0xFF, 0xFF, 0xFF }, Ct);
            context.Response.AppendTrailer("grpc-status", "0");
        }));
        TestBackend.Route(host, garbage.Address);
        var (noMessage, body) = await ChatTests.PostAsync(host, Hello);

        (tooLong, noMessage).ShouldBe((HttpStatusCode.BadGateway, HttpStatusCode.BadGateway));
        body.ShouldContain("backend_failed");
    }

    [Fact]
    public async Task A_client_that_leaves_ends_the_call_and_what_it_got_is_counted()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, token) => TestBackend.ThenSilence(token, new Reply { Message = ByteString.CopyFromUtf8("a") }, new Reply { Message = ByteString.CopyFromUtf8("b") });

        using (var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct))
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(Stream, Encoding.UTF8, "application/json") };
            using var answer = await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, leave.Token);
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(leave.Token));
            while (await reader.ReadLineAsync(leave.Token) is { } line && !line.Contains("\"b\"", StringComparison.Ordinal))
            {
            }
            Requests(host).ShouldBe(1, "it is under way");
            await leave.CancelAsync();
        }

        await Deadline.UntilAsync(() => backend.GivenUp == 1);
        (await Deadline.UntilAsync(() => UsageAsync(host), usage => usage.Aborted == 1)).ShouldBe((1, 1, 0, 0, 2));
        await Deadline.UntilAsync(() => Requests(host) == 0);
    }

    [Fact]
    public async Task A_client_that_leaves_before_an_answer_ends_the_call_too()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, token) => TestBackend.ThenSilence(token);
        using var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        using var content = new StringContent(Hello, Encoding.UTF8, "application/json");
        var asking = host.Client.PostAsync(new Uri("/v1/chat/completions", UriKind.Relative), content, leave.Token);
        await Deadline.UntilAsync(() => !backend.Asked.IsEmpty);

        await leave.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(asking);
        await Deadline.UntilAsync(() => backend.GivenUp == 1);
    }

    [Fact]
    public async Task A_backend_that_falls_silent_is_given_up_in_time()
    {
        await using var host = await ControlPlane.StartAsync(configuration: ["Gateway:FirstByteTimeout=00:00:04", "Gateway:ActivityTimeout=00:00:02", "Settings:GatewayTimeoutSeconds=10"]);
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, token) => TestBackend.ThenSilence(token);
        var (first, _) = await ChatTests.PostAsync(host, Stream);
        var (whole, body) = await ChatTests.PostAsync(host, Hello);
        backend.Answer = (_, token) => TestBackend.ThenSilence(token, TestBackend.Piece("a"));
        var (_, stream) = await ChatTests.PostAsync(host, Stream);

        (first, whole).ShouldBe((HttpStatusCode.GatewayTimeout, HttpStatusCode.GatewayTimeout));
        body.ShouldContain("deployment_timeout");
        stream.ShouldContain("\"content\":\"a\"");
        stream.ShouldContain("\"code\":\"deployment_timeout\"");
        stream.ShouldEndWith("data: [DONE]\n\n");
        await Deadline.UntilAsync(() => backend.GivenUp == 3);
        (await UsageAsync(host)).ShouldBe((3, 3, 0, 3, 1));
    }

    [Fact]
    public async Task A_client_that_reads_slowly_slows_the_backend_down_and_is_not_silence()
    {
        await using var host = await ControlPlane.StartAsync(configuration: ["Gateway:ActivityTimeout=00:00:02"]);
        await using var backend = await TestBackend.StartAsync(host);
        var sent = 0;
        const int Pieces = 2000;
        var text = new string('x', 32 * 1024);
        async IAsyncEnumerable<Reply> Many()
        {
            for (var i = 1; i <= Pieces; i++)
            {
                await Task.Yield();
                yield return TestBackend.Piece(text, i);
                Volatile.Write(ref sent, i);
            }
        }
        backend.Answer = (_, _) => Many();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(Stream, Encoding.UTF8, "application/json") };
        using var answer = await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);

        // the backend stops where the buffers between are full, and stays so for longer than it may be silent
        var (before, still) = (-1, 0);
        await Deadline.UntilAsync(async () =>
        {
            await Task.Delay(500, Ct);
            var now = Volatile.Read(ref sent);
            (before, still) = (now, now == before ? still + 1 : 0);
            return still;
        }, count => count == 6);
        before.ShouldBeLessThan(Pieces / 2, "64 MB are not held for a client that does not read");
        var length = 0L;
        await using var body = await answer.Content.ReadAsStreamAsync(Ct);
        var buffer = new byte[1024 * 1024];
        while (await body.ReadAsync(buffer, Ct) is var read and > 0)
            length += read;

        length.ShouldBeGreaterThan((long)Pieces * text.Length);
        sent.ShouldBe(Pieces);
        (await UsageAsync(host)).ShouldBe((1, 0, 0, 3, Pieces));
    }

    [Fact]
    public async Task A_body_beyond_the_limit_of_translation_is_too_large()
    {
        await using var host = await ControlPlane.StartAsync(configuration: ["Gateway:MaxTranslatedBytes=100000"]);
        await using var backend = await TestBackend.StartAsync(host);
        var large = $$"""{"model":"m","messages":[{"role":"user","content":"{{new string('x', 100_000)}}"}]}""";

        foreach (var chunked in (bool[])[false, true])
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(large, Encoding.UTF8, "application/json") };
            // a server that refuses a body while it is being sent breaks the pipe, at times before its answer is read
            (request.Headers.TransferEncodingChunked, request.Headers.ExpectContinue) = (chunked, true);
            using var answer = await host.Client.SendAsync(request, Ct);

            answer.StatusCode.ShouldBe(HttpStatusCode.RequestEntityTooLarge);
            (await answer.Content.ReadAsStringAsync(Ct)).ShouldContain("request_too_large");
        }

        backend.Asked.ShouldBeEmpty();
    }

    [Fact]
    public async Task A_large_body_within_the_limit_reaches_the_backend_whole()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        var image = Convert.ToBase64String(new byte[2_500_000]);

        var (status, _) = await ChatTests.PostAsync(host, $$$"""
            {"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,{{{image}}}"}}]}]}
            """);

        // a server of gRPC takes 4 MiB unless it is told otherwise, as those of LocalAI are
        status.ShouldBe(HttpStatusCode.OK);
        backend.Prediction.Images.Single().ShouldBe(image);
    }

    [Theory]
    [InlineData("/v1/responses", """{"model":"m","input":"x"}""")]
    [InlineData("/v1/messages", """{"model":"m","messages":[]}""")]
    [InlineData("/v1/score", """{"model":"m","text_1":"a","text_2":["b"]}""")]
    [InlineData("/v1/images/generations", """{"model":"m","prompt":"x"}""")]
    [InlineData("/v1/embeddings", """{"model":"m","input":"x"}""")]
    public async Task What_a_backend_cannot_do_is_not_implemented(string path, string body)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);

        var (status, answer) = await ChatTests.PostAsync(host, body, path);

        status.ShouldBe(HttpStatusCode.NotImplemented);
        answer.ShouldBe("""{"error":{"message":"The backend that serves 'm' cannot do this.","type":"upstream_error","param":null,"code":"not_supported"}}""");
    }

    [Fact]
    public async Task Keys_reach_what_they_are_for_and_are_counted_apart()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        var (key, id, _) = await host.Client.MakeKeyAsync("""{"label":"mine","models":["m"]}""");
        var (foreign, _, _) = await host.Client.MakeKeyAsync("""{"label":"other","models":["n"]}""");

        using var allowed = await host.Client.ChatAsync("m", key);
        using var refused = await host.Client.ChatAsync("m", foreign);

        (allowed.StatusCode, refused.StatusCode).ShouldBe((HttpStatusCode.OK, HttpStatusCode.Forbidden));
        var row = (await host.Client.JsonAsync("/api/usage")).GetProperty("data").EnumerateArray().Single();
        (row.GetProperty("key_id").GetInt32(), row.GetProperty("total_tokens").GetInt64()).ShouldBe((id, 5));
    }

    private static int Requests(ControlPlane host) => host.Services.GetRequiredService<RouteSource>().Requests.Count("test-backend");

    private static async Task<(long Requests, long Aborted, long Failed, long Prompt, long Completion)> UsageAsync(ControlPlane host)
    {
        var total = (await host.Client.JsonAsync("/api/usage")).GetProperty("total");
        long Read(string name) => total.GetProperty(name).GetInt64();
        return (Read("requests"), Read("aborted_requests"), Read("failed_requests"), Read("prompt_tokens"), Read("completion_tokens"));
    }
}
