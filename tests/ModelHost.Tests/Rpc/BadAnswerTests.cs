using System.Net;
using System.Net.Sockets;
using Google.Protobuf;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using ModelHost.Rpc;
using ModelHost.TestKit;

namespace ModelHost.Tests.Rpc;

/// <summary>What our client makes of servers that are broken on purpose: always one exception, in bounded time and memory.</summary>
public sealed class BadAnswerTests
{
    private static readonly byte[] s_good = RawCall.Frame(Echo.Of("x"));

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Broken_answers_are_failures_of_the_right_kind()
    {
        var cases = new Dictionary<string, (Func<HttpResponse, Task> Answer, RpcCode? Code)>
        {
            ["as it should be"] = (r => AnswerAsync(r, s_good, "0"), null),
            ["packed"] = (r => AnswerAsync(r, RawCall.Frame(1, RawCall.Zip(Echo.Of("x").ToByteArray())), "0", encoding: "gzip"), null),
            ["no trailers"] = (r => AnswerAsync(r, s_good, null), RpcCode.Unknown),
            ["a status that is no number"] = (r => AnswerAsync(r, s_good, "fine"), RpcCode.Unknown),
            ["a status that there is not"] = (r => AnswerAsync(r, s_good, "17"), RpcCode.Unknown),
            ["a negative status"] = (r => AnswerAsync(r, s_good, "-1"), RpcCode.Unknown),
            ["an empty status"] = (r => AnswerAsync(r, s_good, ""), RpcCode.Unknown),
            ["no message"] = (r => AnswerAsync(r, [], "0"), RpcCode.Internal),
            ["two messages"] = (r => AnswerAsync(r, [.. s_good, .. s_good], "0"), RpcCode.Internal),
            ["half a head"] = (r => AnswerAsync(r, s_good[..3], "0"), RpcCode.Internal),
            ["half a message"] = (r => AnswerAsync(r, s_good[..^1], "0"), RpcCode.Internal),
            ["a length over the limit"] = (r => AnswerAsync(r, RawCall.Frame(0, [1], 1 << 30), "0"), RpcCode.ResourceExhausted),
            ["the largest length there is"] = (r => AnswerAsync(r, RawCall.Frame(0, [1], uint.MaxValue), "0"), RpcCode.ResourceExhausted),
            ["nine megabytes where four are allowed"] = (r => AnswerAsync(r, RawCall.Frame(Echo.Of(new string('x', 9 << 20))), "0"), RpcCode.ResourceExhausted),
            ["marked as compressed, without an encoding"] = (r => AnswerAsync(r, RawCall.Frame(1, s_good[5..]), "0"), RpcCode.Internal),
            ["an unknown encoding"] = (r => AnswerAsync(r, RawCall.Frame(1, s_good[5..]), "0", encoding: "zstd"), RpcCode.Unimplemented),
            ["no gzip"] = (r => AnswerAsync(r, RawCall.Frame(1, [1, 2, 3]), "0", encoding: "gzip"), RpcCode.Internal),
            ["little that unpacks to much"] = (r => AnswerAsync(r, RawCall.Frame(1, RawCall.Zip(new byte[64 << 20])), "0", encoding: "gzip"), RpcCode.ResourceExhausted),
            ["an unknown flag"] = (r => AnswerAsync(r, RawCall.Frame(2, s_good[5..]), "0"), RpcCode.Internal),
            ["no message of this type"] = (r => AnswerAsync(r, RawCall.Frame(0, [0x0a, 0x7f]), "0"), RpcCode.Internal),
            ["another content type"] = (r => AnswerAsync(r, s_good, "0", type: "text/html"), RpcCode.Unknown),
            ["400"] = (r => HttpAsync(r, 400), RpcCode.Internal),
            ["401"] = (r => HttpAsync(r, 401), RpcCode.Unauthenticated),
            ["403"] = (r => HttpAsync(r, 403), RpcCode.PermissionDenied),
            ["404"] = (r => HttpAsync(r, 404), RpcCode.Unimplemented),
            ["418"] = (r => HttpAsync(r, 418), RpcCode.Unknown),
            ["429"] = (r => HttpAsync(r, 429), RpcCode.Unavailable),
            ["500"] = (r => HttpAsync(r, 500), RpcCode.Unknown),
            ["502"] = (r => HttpAsync(r, 502), RpcCode.Unavailable),
            ["503"] = (r => HttpAsync(r, 503), RpcCode.Unavailable),
            ["504"] = (r => HttpAsync(r, 504), RpcCode.Unavailable),
            ["a reset"] = (r => AbortAsync(r, 0), RpcCode.Internal),
            ["a reset after half a message"] = (r => AbortAsync(r, s_good.Length - 1), RpcCode.Internal),
        };
        await using var server = await EchoServer.StartAsync(map: app => app.MapPost(Echo.Say.Path, async context =>
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body);
            await cases[Google.Protobuf.WellKnownTypes.StringValue.Parser.ParseFrom(body.ToArray().AsSpan(5)).Value].Answer(context.Response);
        }));
        using var client = new RpcClient(server.Address);
        foreach (var (name, (_, code)) in cases)
        {
            var call = client.UnaryAsync(Echo.Say, Echo.Of(name), TimeSpan.FromSeconds(60), Ct);
            if (code is null)
                (await call).Value.ShouldBe("x", name);
            else
                (await Should.ThrowAsync<RpcException>(() => call, name)).Code.ShouldBe(code.Value, name);
        }
    }

    [Fact]
    public async Task Server_that_never_answers_costs_the_deadline_and_delays_no_other_call()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);

        using var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        var hung = client.UnaryAsync(Echo.Say, Echo.Of("hang"), null, leave.Token);
        (await client.UnaryAsync(Echo.Say, Echo.Of("quick"), null, Ct)).Value.ShouldBe("quick");
        hung.IsCompleted.ShouldBeFalse();
        await leave.CancelAsync();
        await Should.ThrowAsync<OperationCanceledException>(() => hung);

        (await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(Echo.Say, Echo.Of("hang"), TimeSpan.FromSeconds(1), Ct))).Code.ShouldBe(RpcCode.DeadlineExceeded);
    }

    [Theory]
    [InlineData("nothing", null)]
    [InlineData("http/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]
    [InlineData("noise", "\u0001\u0002\u0003\u0004 this is no HTTP/2 at all, not even a little bit of it, though there is plenty of it")]
    [InlineData("a huge frame", "\u007f\u007f\u007f\u0000\u0000\u0000\u0000\u0000\u0001")]
    [InlineData("data of no stream", "\0\0\0\u0004\0\0\0\0\0\0\0\u0001\0\0\0\0\0\u0001x")]
    [InlineData("headers that are none", "\0\0\0\u0004\0\0\0\0\0\0\0\u0004\u0001\u0004\0\0\0\u0001\u007f\u007f\u007f\u007f")]
    public async Task Listener_that_is_no_server_is_a_bounded_failure(string what, string? says)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        var serving = ServeAsync();
        async Task ServeAsync()
        {
            var open = new List<Socket>();
            try
            {
                while (true)
                {
                    var socket = await listener.AcceptSocketAsync(ended.Token);
                    open.Add(socket);
                    if (says is not null)
                        await SayAsync(socket, System.Text.Encoding.Latin1.GetBytes(says));
                }
            }
            catch (OperationCanceledException)
            {
                open.ForEach(socket => socket.Dispose());
            }
        }
        async Task SayAsync(Socket socket, byte[] text)
        {
            try
            {
                await socket.SendAsync(text, ended.Token);
            }
            catch (SocketException)
            {
                // the client did not wait for it
            }
        }
        using var client = new RpcClient(new Uri($"http://{listener.LocalEndpoint}"), new RpcClientOptions { KeepAlive = TimeSpan.FromSeconds(1) });

        // without a deadline: pings without an answer end it
        var failure = await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(Echo.Say, Echo.Of("x"), null, Ct).WaitAsync(TimeSpan.FromSeconds(60), Ct), what);

        failure.Code.ShouldBeOneOf(RpcCode.Unavailable, RpcCode.Internal);
        await ended.CancelAsync();
        await serving;
    }

    private static async Task AnswerAsync(HttpResponse response, byte[] body, string? status, string? encoding = null, string type = "application/grpc")
    {
        response.ContentType = type;
        if (encoding is not null)
            response.Headers["grpc-encoding"] = encoding;
        await response.StartAsync();
        await response.Body.WriteAsync(body);
        if (status is not null)
            response.AppendTrailer("grpc-status", status);
    }

    private static Task HttpAsync(HttpResponse response, int status)
    {
        response.StatusCode = status;
        return Task.CompletedTask;
    }

    private static async Task AbortAsync(HttpResponse response, int after)
    {
        response.ContentType = "application/grpc";
        if (after > 0)
        {
            await response.Body.WriteAsync(s_good.AsMemory(0, after));
            await response.Body.FlushAsync();
        }
        response.HttpContext.Abort();
    }
}
