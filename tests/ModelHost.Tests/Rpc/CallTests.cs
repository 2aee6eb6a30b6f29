using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Threading.Channels;
using Google.Protobuf.WellKnownTypes;
using ModelHost.Rpc;
using ModelHost.TestKit;

namespace ModelHost.Tests.Rpc;

/// <summary>Our client against our server: all four kinds of calls on every kind of connection, and how they end.</summary>
public sealed class CallTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("h2c")]
    [InlineData("tls")]
    [InlineData("unix")]
    public async Task All_four_kinds_of_calls_are_answered(string connection)
    {
        using var folder = new TestNode();
        using var certificate = connection == "tls" ? SelfSigned() : null;
        await using var server = await EchoServer.StartAsync(certificate: certificate, socket: connection == "unix" ? Path.Combine(folder.Data, "rpc.sock") : null);
        using var client = new RpcClient(server.Address, new RpcClientOptions
        {
            Tls = certificate is null ? null : new SslClientAuthenticationOptions
            {
                RemoteCertificateValidationCallback = (_, presented, _, _) => presented?.GetCertHashString() == certificate.GetCertHashString(),
            },
        });

        (await client.UnaryAsync(Echo.Say, Echo.Of("Grüße"), null, Ct)).Value.ShouldBe("Grüße");
        (await client.UnaryAsync(Echo.Say, Echo.Of(""), null, Ct)).Value.ShouldBe("");
        (await TextsAsync(client.ServerStreamAsync(Echo.Count, Echo.Of("3"), null, Ct))).ShouldBe(["0", "1", "2"]);
        (await TextsAsync(client.ServerStreamAsync(Echo.Count, Echo.Of("0"), null, Ct))).ShouldBeEmpty();
        (await client.ClientStreamAsync(Echo.Join, Echo.Of("a", "b", "c"), null, Ct)).Value.ShouldBe("abc");
        (await client.ClientStreamAsync(Echo.Join, Echo.Of([]), null, Ct)).Value.ShouldBe("");
        (await TextsAsync(client.DuplexAsync(Echo.Talk, Echo.Of("x", "y"), null, Ct))).ShouldBe(["x", "y"]);
    }

    [Fact]
    public async Task Streams_of_both_sides_go_on_side_by_side()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);
        var questions = Channel.CreateUnbounded<StringValue>();
        questions.Writer.TryWrite(Echo.Of("0"));

        var heard = 0;
        await foreach (var answer in client.DuplexAsync(Echo.Talk, questions.Reader.ReadAllAsync(Ct), TimeSpan.FromSeconds(60), Ct))
        {
            answer.Value.ShouldBe($"{heard++}");
            if (heard < 20)
                questions.Writer.TryWrite(Echo.Of($"{heard}"));
            else
                questions.Writer.Complete();
        }

        heard.ShouldBe(20);
    }

    [Theory]
    [InlineData(RpcCode.Cancelled)]
    [InlineData(RpcCode.Unknown)]
    [InlineData(RpcCode.InvalidArgument)]
    [InlineData(RpcCode.DeadlineExceeded)]
    [InlineData(RpcCode.NotFound)]
    [InlineData(RpcCode.AlreadyExists)]
    [InlineData(RpcCode.PermissionDenied)]
    [InlineData(RpcCode.ResourceExhausted)]
    [InlineData(RpcCode.FailedPrecondition)]
    [InlineData(RpcCode.Aborted)]
    [InlineData(RpcCode.OutOfRange)]
    [InlineData(RpcCode.Unimplemented)]
    [InlineData(RpcCode.Internal)]
    [InlineData(RpcCode.Unavailable)]
    [InlineData(RpcCode.DataLoss)]
    [InlineData(RpcCode.Unauthenticated)]
    public async Task Status_and_its_detail_reach_the_caller(RpcCode code)
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);

        var failure = await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(Echo.Say, Echo.Of($"fail {code} 100% schön,\r\n日本 \U0001F680"), null, Ct));

        failure.Code.ShouldBe(code);
        failure.Detail.ShouldBe("100% schön,\r\n日本 \U0001F680");
    }

    [Fact]
    public async Task Detail_that_is_too_long_for_a_header_is_cut()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);

        var failure = await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(Echo.Say, Echo.Of($"fail Aborted {new string('日', 100_000)}"), null, Ct));

        failure.Code.ShouldBe(RpcCode.Aborted);
        failure.Detail.ShouldBe(new string('日', failure.Detail.Length));
        failure.Detail.Length.ShouldBeGreaterThan(400);
    }

    [Fact]
    public async Task Status_after_messages_comes_after_them()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);
        var heard = new List<string>();

        var failure = await Should.ThrowAsync<RpcException>(async () =>
        {
            await foreach (var message in client.ServerStreamAsync(Echo.Count, Echo.Of("3!"), null, Ct))
                heard.Add(message.Value);
        });

        heard.ShouldBe(["0", "1", "2"]);
        (failure.Code, failure.Detail).ShouldBe((RpcCode.DataLoss, "the rest is gone"));
    }

    [Fact]
    public async Task Unknown_method_is_unimplemented()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);

        (await FailureAsync(client, Echo.Method("No"), "x")).Code.ShouldBe(RpcCode.Unimplemented);
    }

    [Fact]
    public async Task What_a_handler_throws_stays_inside()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);

        var failure = await FailureAsync(client, Echo.Say, "throw");

        failure.Code.ShouldBe(RpcCode.Unknown);
        failure.Detail.ShouldNotContain("secret");
        server.Log.All.ShouldContain(line => line.Contains("a secret of the inside", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Deadline_ends_the_call_on_both_sides()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);

        // a call may be over before it gets there: then the next has twice as long
        for (var seconds = 1; server.Hanging == 0; seconds *= 2)
        {
            var failure = await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(Echo.Say, Echo.Of("hang"), TimeSpan.FromSeconds(seconds), Ct));
            failure.Code.ShouldBe(RpcCode.DeadlineExceeded);
        }

        await Deadline.UntilAsync(() => server.GivenUp == server.Hanging);
    }

    [Fact]
    public async Task Server_keeps_the_deadline_by_itself()
    {
        await using var server = await EchoServer.StartAsync();
        using var raw = new RawCall(server.Address);

        for (var seconds = 1; server.Hanging == 0; seconds *= 2)
            (await raw.SendAsync(Echo.Say.Path, RawCall.Frame(Echo.Of("hang")), ("grpc-timeout", $"{seconds}S"))).Status.ShouldBe("4");

        await Deadline.UntilAsync(() => server.GivenUp == server.Hanging);
    }

    [Fact]
    public async Task Cancelling_ends_the_call_on_both_sides()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(Ct);

        var call = client.UnaryAsync(Echo.Say, Echo.Of("hang"), null, giveUp.Token);
        (await client.UnaryAsync(Echo.Say, Echo.Of("still there"), null, Ct)).Value.ShouldBe("still there");
        await Deadline.UntilAsync(() => server.Hanging == 1);
        await giveUp.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(() => call);
        await Deadline.UntilAsync(() => server.GivenUp == 1);
    }

    [Fact]
    public async Task Leaving_a_stream_gives_the_call_up()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);
        var endless = new Endless();

        await foreach (var answer in client.DuplexAsync(Echo.Talk, endless.Messages(Ct), null, Ct))
        {
            answer.Value.ShouldBe("0");
            break;
        }

        await endless.Left.WaitAsync(TimeSpan.FromSeconds(30), Ct);
    }

    [Fact]
    public async Task Failure_of_the_callers_own_requests_is_told_to_the_caller()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);
        static async IAsyncEnumerable<StringValue> Broken()
        {
            await Task.Yield();
            yield return Echo.Of("a");
            throw new InvalidOperationException("out of questions");
        }

        var failure = await Should.ThrowAsync<RpcException>(() => client.ClientStreamAsync(Echo.Join, Broken(), null, Ct));

        failure.Detail.ShouldContain("out of questions");
    }

    [Fact]
    public async Task Nobody_there_is_unavailable()
    {
        using var client = new RpcClient(new Uri($"http://127.0.0.1:{TestPorts.Free()}"));
        using var unix = new RpcClient(new Uri("unix:///nowhere/at/all.sock"));

        (await FailureAsync(client, Echo.Say, "x")).Code.ShouldBe(RpcCode.Unavailable);
        (await FailureAsync(unix, Echo.Say, "x")).Code.ShouldBe(RpcCode.Unavailable);
    }

    [Fact]
    public async Task Wrong_certificate_is_unavailable()
    {
        using var certificate = SelfSigned();
        await using var server = await EchoServer.StartAsync(certificate: certificate);
        using var client = new RpcClient(server.Address);

        (await FailureAsync(client, Echo.Say, "x")).Code.ShouldBe(RpcCode.Unavailable);
    }

    [Fact]
    public async Task Nine_megabytes_go_both_ways_where_they_are_allowed()
    {
        await using var server = await EchoServer.StartAsync(maxMessageBytes: 16 << 20);
        using var client = new RpcClient(server.Address, new RpcClientOptions { MaxMessageBytes = 16 << 20 });
        var text = new string('x', 9 << 20);

        (await client.UnaryAsync(Echo.Say, Echo.Of(text), null, Ct)).Value.ShouldBe(text);
    }

    [Fact]
    public async Task Message_over_the_limit_of_either_side_is_refused()
    {
        await using var server = await EchoServer.StartAsync(maxMessageBytes: 1 << 20);
        using var client = new RpcClient(server.Address, new RpcClientOptions { MaxMessageBytes = 1 << 10 });

        (await FailureAsync(client, Echo.Say, new string('x', 2 << 20))).Code.ShouldBe(RpcCode.ResourceExhausted);
        (await FailureAsync(client, Echo.Say, new string('x', 2 << 10))).Code.ShouldBe(RpcCode.ResourceExhausted);
        (await client.UnaryAsync(Echo.Say, Echo.Of("x"), null, Ct)).Value.ShouldBe("x");
    }

    [Fact]
    public async Task Two_hundred_and_fifty_calls_are_open_at_once()
    {
        await using var server = await EchoServer.StartAsync();
        using var client = new RpcClient(server.Address);
        var (heard, all, go) = (0, 250, new TaskCompletionSource());
        async IAsyncEnumerable<StringValue> Messages(int i)
        {
            yield return Echo.Of($"{i}");
            await go.Task;
            yield return Echo.Of("end");
        }
        async Task<string[]> CallAsync(int i)
        {
            var texts = new List<string>();
            await foreach (var message in client.DuplexAsync(Echo.Talk, Messages(i), TimeSpan.FromSeconds(60), Ct))
            {
                texts.Add(message.Value);
                if (texts.Count == 1 && Interlocked.Increment(ref heard) == all)
                    go.SetResult(); // the last of them lets all go on
            }
            return [.. texts];
        }

        var answers = await Task.WhenAll(Enumerable.Range(0, all).Select(CallAsync));

        answers.Select(texts => string.Join(' ', texts)).ShouldBe(Enumerable.Range(0, all).Select(i => $"{i} end"));
    }

    [Fact]
    public async Task Pulled_cable_is_unavailable_and_a_new_one_serves()
    {
        await using var server = await EchoServer.StartAsync();
        await using var network = new NetworkRelay(server.Address.Authority);
        using var client = new RpcClient(new Uri($"http://{network.Host}"), new RpcClientOptions { KeepAlive = TimeSpan.FromSeconds(1) });
        await SaidAsync(client, "before");

        network.BytesPerSecond = 0;
        var failure = await FailureAsync(client, Echo.Say, "hang");
        network.BytesPerSecond = long.MaxValue;

        failure.Code.ShouldBe(RpcCode.Unavailable);
        await SaidAsync(client, "after");
    }

    /// <summary>Waits until a call is answered: to a client that gives up as soon as this one, a moment in which nothing here goes on is a pulled cable.</summary>
    private static Task<string> SaidAsync(RpcClient client, string text) => Deadline.UntilAsync(async () =>
    {
        try
        {
            return (await client.UnaryAsync(Echo.Say, Echo.Of(text), TimeSpan.FromSeconds(30), Ct)).Value;
        }
        catch (RpcException e) when (e.Code == RpcCode.Unavailable)
        {
            return "";
        }
    }, said => said == text, what: "the call to be answered");

    [Fact]
    public async Task Cut_connection_is_unavailable()
    {
        await using var server = await EchoServer.StartAsync();
        await using var network = new NetworkRelay(server.Address.Authority);
        using var client = new RpcClient(new Uri($"http://{network.Host}"));

        var failure = await Should.ThrowAsync<RpcException>(async () =>
        {
            await foreach (var message in client.DuplexAsync(Echo.Talk, new Endless().Messages(Ct), null, Ct))
                network.Cut();
        });

        failure.Code.ShouldBe(RpcCode.Unavailable);
    }

    private static async Task<RpcException> FailureAsync(RpcClient client, RpcMethod<StringValue, StringValue> method, string text) =>
        await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(method, Echo.Of(text), TimeSpan.FromSeconds(60), Ct));

    private static async Task<string[]> TextsAsync(IAsyncEnumerable<StringValue> messages)
    {
        var texts = new List<string>();
        await foreach (var message in messages)
            texts.Add(message.Value);
        return [.. texts];
    }

    private static X509Certificate2 SelfSigned()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        return new CertificateRequest("CN=localhost", key, HashAlgorithmName.SHA256).CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
    }

    /// <summary>One message, and then a wait until nobody wants another.</summary>
    private sealed class Endless
    {
        private readonly TaskCompletionSource _left = new();

        public Task Left => _left.Task;

        public async IAsyncEnumerable<StringValue> Messages([System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken = default)
        {
            using var registration = cancellationToken.Register(_left.SetResult);
            yield return Echo.Of("0");
            await Task.Delay(Timeout.Infinite, cancellationToken);
        }
    }
}
