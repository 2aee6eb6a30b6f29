using System.Diagnostics;
using System.Text.Json;
using Google.Protobuf.WellKnownTypes;
using ModelHost.Rpc;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Rpc;

/// <summary>Our client and our server with the gRPC of others: grpc-js, and grpcio, which packs its messages.</summary>
public sealed class InteropTests(NodeScripts scripts)
{
    private const int Long = 9 << 20;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("grpc-js", false)]
    [InlineData("grpc-js", true)]
    [InlineData("grpcio", false)]
    [InlineData("grpcio", true)]
    public async Task Clients_of_others_are_served(string peer, bool unixSocket)
    {
        var command = await CommandAsync(peer);
        using var folder = new TestNode();
        await using var server = await EchoServer.StartAsync(maxMessageBytes: 16 << 20, socket: unixSocket ? Path.Combine(folder.Data, "rpc.sock") : null);

        var (code, output, errors) = await NodeScripts.RunProgramAsync(
            command[0], [.. command[1..], "call", unixSocket ? $"unix:{server.Address.LocalPath}" : server.Address.Authority], "");

        code.ShouldBe(0, errors);
        var met = JsonSerializer.Deserialize<JsonElement>(output);
        met.GetProperty("say").GetProperty("value").GetString().ShouldBe("Grüße");
        met.GetProperty("sayPlain").GetProperty("value").GetString().ShouldBe("Grüße");
        Status(met, "fail").ShouldBe((5, "100% schön\n日本"));
        Status(met, "hang").Code.ShouldBe(4);
        Texts(met.GetProperty("count").GetProperty("values")).ShouldBe(["0", "1", "2"]);
        met.GetProperty("count").GetProperty("code").GetInt32().ShouldBe(0);
        Texts(met.GetProperty("broken").GetProperty("values")).ShouldBe(["0", "1", "2"]);
        Status(met, "broken").ShouldBe((15, "the rest is gone"));
        met.GetProperty("join").GetProperty("value").GetString().ShouldBe("abc");
        Texts(met.GetProperty("talk")).ShouldBe(["0", "1", "2", "3", "4"]);
        met.GetProperty("unknown").GetProperty("code").GetInt32().ShouldBe(12);
        met.GetProperty("long").GetInt32().ShouldBe(Long);
        met.GetProperty("many").GetBoolean().ShouldBeTrue();
        // the call that hangs may be over before it gets here
        await Deadline.UntilAsync(() => server.GivenUp == server.Hanging);
    }

    [Theory]
    [InlineData("grpc-js")]
    [InlineData("grpcio")]
    public async Task Servers_of_others_are_called(string peer)
    {
        using var server = Process.Start(Quiet(await CommandAsync(peer), "serve"))!;
        try
        {
            var said = await server.StandardOutput.ReadLineAsync(Ct).AsTask().WaitAsync(TimeSpan.FromSeconds(30), Ct);
            var port = JsonSerializer.Deserialize<JsonElement>(said.ShouldNotBeNull()).GetProperty("port").GetInt32();
            using var client = new RpcClient(new Uri($"http://127.0.0.1:{port}"), new RpcClientOptions { MaxMessageBytes = 16 << 20 });
            var limit = TimeSpan.FromSeconds(60);

            (await client.UnaryAsync(Echo.Say, Echo.Of("Grüße"), limit, Ct)).Value.ShouldBe("Grüße");
            (await client.UnaryAsync(Echo.Say, Echo.Of(new string('x', Long)), limit, Ct)).Value.Length.ShouldBe(Long);
            var (heard, status) = await HearAsync(client.ServerStreamAsync(Echo.Count, Echo.Of("3!"), limit, Ct));
            (string.Join(' ', heard), status?.Code, status?.Detail).ShouldBe(("0 1 2", RpcCode.DataLoss, "the rest is gone"));
            (await client.ClientStreamAsync(Echo.Join, Echo.Of("a", "b", "c"), limit, Ct)).Value.ShouldBe("abc");
            (await HearAsync(client.DuplexAsync(Echo.Talk, Echo.Of("x", "y"), limit, Ct))).Heard.ShouldBe(["x", "y"]);
            var failed = await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(Echo.Say, Echo.Of("fail 5 100% schön\n日本"), limit, Ct));
            (failed.Code, failed.Detail).ShouldBe((RpcCode.NotFound, "100% schön\n日本"));
            var late = await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(Echo.Say, Echo.Of("hang"), TimeSpan.FromMilliseconds(500), Ct));
            late.Code.ShouldBe(RpcCode.DeadlineExceeded);
            var unknown = await Should.ThrowAsync<RpcException>(() => client.UnaryAsync(Echo.Method("No"), Echo.Of("x"), limit, Ct));
            unknown.Code.ShouldBe(RpcCode.Unimplemented);
            var many = await Task.WhenAll(Enumerable.Range(0, 250).Select(i => client.UnaryAsync(Echo.Say, Echo.Of($"{i}"), limit, Ct)));
            many.Select(answer => answer.Value).ShouldBe(Enumerable.Range(0, 250).Select(i => $"{i}"));
        }
        finally
        {
            server.Kill(entireProcessTree: true);
            await server.WaitForExitAsync(CancellationToken.None);
        }
    }

    private async Task<string[]> CommandAsync(string peer)
    {
        if (peer == "grpc-js")
            return [await scripts.NodeAsync(), "rpc.mjs"];
        // not whatever python3 comes first: the package belongs to the system's own
        const string Python = "/usr/bin/python3";
        Assert.SkipWhen(!File.Exists(Python), "there is no /usr/bin/python3: install the package python3-grpcio");
        var (code, _, _) = await NodeScripts.RunProgramAsync(Python, ["-c", "import grpc, google.protobuf"], "");
        Assert.SkipWhen(code != 0, "there is no grpcio for /usr/bin/python3: install the packages python3-grpcio and python3-protobuf");
        return [Python, Path.Combine(RealDocker.RepositoryRoot, "tests", "ModelHost.IntegrationTests", "Rpc", "rpc.py")];
    }

    private static ProcessStartInfo Quiet(string[] command, string mode) => new(command[0], [.. command[1..], mode])
    {
        RedirectStandardInput = true,
        RedirectStandardOutput = true,
        WorkingDirectory = NodeScripts.Folder,
    };

    private static (int Code, string? Detail) Status(JsonElement met, string name) =>
        (met.GetProperty(name).GetProperty("code").GetInt32(), met.GetProperty(name).GetProperty("detail").GetString());

    private static string?[] Texts(JsonElement values) => [.. values.EnumerateArray().Select(value => value.GetString())];

    private static async Task<(List<string> Heard, RpcException? Status)> HearAsync(IAsyncEnumerable<StringValue> messages)
    {
        var heard = new List<string>();
        try
        {
            await foreach (var message in messages)
                heard.Add(message.Value);
            return (heard, null);
        }
        catch (RpcException e)
        {
            return (heard, e);
        }
    }
}
