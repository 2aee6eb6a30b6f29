using System.Net;
using System.Text;
using Google.Protobuf;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Backends;
using ModelHost.Cluster;
using ModelHost.Gateway;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;
using ModelHost.TestKit;
using DetokenizeRequest = ModelHost.Protocol.Backend.DetokenizeRequest;
using RerankRequest = ModelHost.Protocol.Backend.RerankRequest;

namespace ModelHost.IntegrationTests.Backends;

/// <summary>Backends that share no code with ours, as deployments of this machine and of a node behind an agent.</summary>
public sealed class BackendInteropTests(NodeScripts scripts)
{
    private const string Old = "node-backend", New = "python-backend";
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(Old, false)]
    [InlineData(Old, true)]
    [InlineData(New, false)]
    [InlineData(New, true)]
    public async Task A_backend_is_loaded_asked_and_freed(string name, bool remote)
    {
        await using var there = await PlaceAsync(name, remote);
        var (host, client) = (there.Host, there.Host.Client);
        var id = await client.ServeAsync(TestBackends.Request(there.Node, name));
        var backend = host.Backend();

        (await backend.HealthAsync(s_limit, Ct)).ShouldBeTrue();
        var reply = await backend.PredictAsync(new PredictOptions { Prompt = "Grüße an alle" }, s_limit, Ct);
        (reply.Message.ToStringUtf8(), reply.Tokens, reply.PromptTokens).ShouldBe(("echo Grüße an alle", 4, 3));
        var templated = new PredictOptions { UseTokenizerTemplate = true, Messages = { new Message { Role = "user", Content = "hi" } } };
        (await backend.PredictAsync(templated, s_limit, Ct)).Message.ToStringUtf8().ShouldBe("user: hi");
        var pieces = await backend.PredictStreamAsync(new PredictOptions { Prompt = "one two three" }, s_limit, Ct).ToListAsync(Ct);
        pieces.Select(piece => (piece.Message.ToStringUtf8(), piece.Tokens)).ShouldBe([("one ", 1), ("two ", 2), ("three ", 3)]);
        (await backend.EmbeddingAsync(new PredictOptions { Embeddings = "abc", EmbeddingTokens = { 1, 2 } }, s_limit, Ct)).Embeddings.ShouldBe([3f, 2f, 0.5f, -1f]);
        (await backend.TokenizeAsync(new PredictOptions { Prompt = "ab" }, s_limit, Ct)).Tokens.ShouldBe([97, 98]);
        (await backend.StatusAsync(s_limit, Ct)).State.ShouldBe(StatusResponse.Types.State.Ready);
        (await backend.MetricsAsync(s_limit, Ct)).TokensPerSecond.ShouldBe(12.5f);
        var ranked = await backend.RerankAsync(new RerankRequest { Query = "a b", Documents = { "c", "a b", "a c" }, TopN = 2 }, s_limit, Ct);
        ranked.Results.Select(result => (result.Index, result.RelevanceScore)).ShouldBe([(1, 2f), (2, 1f)]);
        ranked.Usage.TotalTokens.ShouldBe(9);
        await client.StopModelAsync(id);
    }

    [Theory]
    [InlineData(Old, false)]
    [InlineData(New, true)]
    public async Task Files_are_exchanged_with_a_backend_wherever_it_runs(string name, bool remote)
    {
        await using var there = await PlaceAsync(name, remote);
        var (host, client) = (there.Host, there.Host.Client);
        await client.ServeAsync(TestBackends.Request(there.Node, name));
        var (backend, route, connections) = (host.Backend(), host.Route(), host.Services.GetRequiredService<BackendConnections>());
        var sound = new byte[300_000];

        await using (var spoken = await connections.FileAsync(route, "wav", null, Ct))
        {
            (await spoken.OpenReadAsync(Ct)).ShouldBeNull();
            (await backend.TtsAsync(new TTSRequest { Text = "hello", Voice = "eva", Dst = spoken.Path }, s_limit, Ct)).Success.ShouldBeTrue();
            await using var read = (await spoken.OpenReadAsync(Ct)).ShouldNotBeNull();
            (await new StreamReader(read).ReadToEndAsync(Ct)).ShouldBe("RIFFhelloeva");
            File.Exists(spoken.Path).ShouldBeTrue();
        }
        await using (var heard = await connections.FileAsync(route, "wav", new MemoryStream(sound), Ct))
        {
            var transcript = await backend.TranscribeAsync(new TranscriptRequest { Dst = heard.Path }, s_limit, Ct);
            (transcript.Text, transcript.Segments.Single().End).ShouldBe(("heard 300000 bytes", 1_500_000_000));
        }

        Directory.GetFiles(Path.Combine(there.Data, "run-files"), "*", SearchOption.AllDirectories).ShouldBeEmpty();
    }

    [Fact]
    public async Task What_only_one_release_knows_is_told_apart()
    {
        using var node = new TestNode();
        await node.InstallAsync(scripts, Old);
        await node.InstallAsync(scripts, New);
        await using var host = await ControlPlane.StartAsync(node);
        var id = await host.Client.NodeAsync("process");
        await host.Client.ServeAsync(TestBackends.Request(id, "old-engine", "old")); // by its alias
        await host.Client.ServeAsync(TestBackends.Request(id, New, "new", 8102));
        var (old, @new) = (host.Backend("old"), host.Backend("new"));

        (await @new.DetokenizeAsync(new DetokenizeRequest { Tokens = { 104, 105 } }, s_limit, Ct)).Content.ShouldBe("hi");
        BackendFailures.IsMissing(await FailureAsync(old.DetokenizeAsync(new DetokenizeRequest(), s_limit, Ct))).ShouldBeTrue();
        var spoken = await @new.TtsStreamAsync(new TTSRequest { Text = "a bc" }, s_limit, Ct).ToListAsync(Ct);
        spoken.Select(piece => piece.Message.Length > 0 ? piece.Message.ToStringUtf8() : piece.Audio.ToStringUtf8()).ShouldBe(["""{"sample_rate": 22050}""", "a", "bc"]);
        BackendFailures.IsMissing(await FailureAsync(old.TtsStreamAsync(new TTSRequest(), s_limit, Ct).ToListAsync(Ct).AsTask())).ShouldBeTrue();
        (await @new.PredictStreamAsync(new PredictOptions { Prompt = "hey" }, s_limit, Ct).ToListAsync(Ct)).Single().ChatDeltas.Single().Content.ShouldBe("hey ");
        BackendFailures.IsOtherModel(await FailureAsync(@new.PredictAsync(new PredictOptions { Prompt = "x", ModelIdentity = "another" }, s_limit, Ct))).ShouldBeTrue();
        // an old one knows no identity, and passes it over
        (await old.PredictAsync(new PredictOptions { Prompt = "x", ModelIdentity = "another" }, s_limit, Ct)).Message.ToStringUtf8().ShouldBe("echo x");
        // of a field of a release to come nothing is lost
        var reply = await @new.PredictAsync(new PredictOptions { Prompt = "x" }, s_limit, Ct);
        Encoding.UTF8.GetString(reply.ToByteArray()).ShouldContain("of a release to come");
    }

    [Theory]
    [InlineData(Old)]
    [InlineData(New)]
    public async Task A_store_keeps_finds_and_forgets(string name)
    {
        await using var there = await PlaceAsync(name, remote: false);
        await there.Host.Client.ServeAsync(TestBackends.Request(there.Node, name));
        var backend = there.Host.Backend();
        static StoresKey Key(params float[] floats) => new() { Floats = { floats } };
        static StoresValue Value(string text) => new() { Bytes = ByteString.CopyFromUtf8(text) };

        (await backend.StoresSetAsync(new StoresSetOptions { Keys = { Key(1, 0), Key(0, 1), Key(1, 1) }, Values = { Value("a"), Value("b"), Value("ä") } }, s_limit, Ct)).Success.ShouldBeTrue();
        var found = await backend.StoresFindAsync(new StoresFindOptions { Key = Key(1, 0.9f), TopK = 2 }, s_limit, Ct);
        found.Values.Select(value => value.Bytes.ToStringUtf8()).ShouldBe(["ä", "a"]);
        ((double)found.Similarities[0]).ShouldBe(0.998, 0.002);
        (await backend.StoresDeleteAsync(new StoresDeleteOptions { Keys = { Key(1, 1) } }, s_limit, Ct)).Success.ShouldBeTrue();
        (await backend.StoresGetAsync(new StoresGetOptions { Keys = { Key(1, 1), Key(0, 1) } }, s_limit, Ct)).Values.Single().Bytes.ToStringUtf8().ShouldBe("b");
        var refused = await FailureAsync(backend.StoresSetAsync(new StoresSetOptions { Keys = { Key(1) } }, s_limit, Ct));
        (refused.Code, refused.Detail).ShouldBe((RpcCode.Unknown, "len(keys) = 1, len(values) = 0"));
    }

    [Theory]
    [InlineData(Old, false)]
    [InlineData(Old, true)]
    [InlineData(New, false)]
    [InlineData(New, true)]
    public async Task A_call_that_goes_wrong_ends_as_it_does_there_and_the_next_one_goes_well(string name, bool remote)
    {
        await using var there = await PlaceAsync(name, remote);
        var client = there.Host.Client;
        var id = await client.ServeAsync(TestBackends.Request(there.Node, name));
        var backend = there.Host.Backend();

        foreach (var code in (RpcCode[])[RpcCode.InvalidArgument, RpcCode.NotFound, RpcCode.ResourceExhausted, RpcCode.Internal, RpcCode.Unavailable])
        {
            var failed = await FailureAsync(backend.PredictAsync(new PredictOptions { Prompt = $"fail {(int)code} schön\n日本" }, s_limit, Ct));
            (failed.Code, failed.Detail).ShouldBe((code, "schön\n日本"));
        }
        (await FailureAsync(backend.PredictAsync(new PredictOptions { Prompt = "hang" }, TimeSpan.FromMilliseconds(300), Ct))).Code.ShouldBe(RpcCode.DeadlineExceeded);
        (await FailureAsync(backend.PredictAsync(new PredictOptions { Prompt = $"long {51 << 20}" }, s_limit, Ct))).Code.ShouldBe(RpcCode.ResourceExhausted);
        (await backend.PredictAsync(new PredictOptions { Prompt = $"long {9 << 20}" }, s_limit, Ct)).Message.Length.ShouldBe(9 << 20);
        var heard = new List<string>();
        var broken = await FailureAsync(HearAsync(backend.PredictStreamAsync(new PredictOptions { Prompt = "a b fail c" }, s_limit, Ct), heard));
        (string.Concat(heard), broken.Code, broken.Detail).ShouldBe(("a b ", RpcCode.Internal, "the stream broke"));
        using (var leaving = new CancellationTokenSource())
        {
            await Should.ThrowAsync<OperationCanceledException>(async () =>
            {
                await foreach (var piece in backend.PredictStreamAsync(new PredictOptions { Prompt = "forever" }, s_limit, leaving.Token))
                {
                    if (piece.Tokens == 3)
                        await leaving.CancelAsync();
                }
            });
        }
        await Deadline.UntilAsync(() => client.LogAsync(id), log => log.Contains($"{name} cancelled", StringComparison.Ordinal), what: "the backend to hear of it");
        (await backend.PredictAsync(new PredictOptions { Prompt = "still here" }, s_limit, Ct)).Message.ToStringUtf8().ShouldBe("echo still here");
        (await Task.WhenAll(Enumerable.Range(0, 150).Select(i => backend.TokenizeAsync(new PredictOptions { Prompt = new string('x', i) }, s_limit, Ct))))
            .Select(answer => answer.Length).ShouldBe(Enumerable.Range(0, 150));
    }

    [Theory]
    [InlineData(Old, false)]
    [InlineData(New, true)]
    public async Task A_backend_that_dies_mid_call_is_started_anew(string name, bool remote)
    {
        await using var there = await PlaceAsync(name, remote);
        var client = there.Host.Client;
        var id = await client.ServeAsync(TestBackends.Request(there.Node, name));
        var before = there.Host.Route().RunId;
        var heard = 0;

        var broken = await FailureAsync(UntilItDiesAsync());

        (heard >= 2, broken.Code).ShouldBe((true, RpcCode.Unavailable));
        await Deadline.UntilAsync(() => client.JsonAsync($"/api/deployments/{id}"),
            found => found.GetProperty("status").GetString() == "running" && there.Host.Services.GetRequiredService<RouteSource>().Current.Find("tiny").Route is { IsRoutable: true } route && route.RunId != before,
            120, "another run");
        (await there.Host.Backend().PredictAsync(new PredictOptions { Prompt = "again" }, s_limit, Ct)).Message.ToStringUtf8().ShouldBe("echo again");
        await client.StopModelAsync(id);

        async Task UntilItDiesAsync()
        {
            await foreach (var piece in there.Host.Backend().PredictStreamAsync(new PredictOptions { Prompt = "forever" }, s_limit, Ct))
            {
                // no sooner: what is still to be read when a connection breaks is lost with it
                if (++heard == 2)
                    TestBackends.Kill(there.Data);
            }
        }
    }

    [Theory]
    [InlineData(Old)]
    [InlineData(New)]
    public async Task Without_the_key_of_its_run_nobody_is_answered(string name)
    {
        await using var there = await PlaceAsync(name, remote: false);
        await there.Host.Client.ServeAsync(TestBackends.Request(there.Node, name));
        var route = there.Host.Route();

        var refused = await FailureAsync(there.Host.Services.GetRequiredService<BackendConnections>().To(route.EngineUrl!, "another").PredictAsync(new PredictOptions(), s_limit, Ct));

        refused.Code.ShouldBe(RpcCode.Unauthenticated);
        (await there.Host.Client.LogAsync(1)).ShouldNotContain(route.EngineKey!);
    }

    [Fact]
    public async Task The_agent_relays_calls_of_backends_and_nothing_else()
    {
        await using var there = await PlaceAsync(New, remote: true);
        await there.Host.Client.ServeAsync(TestBackends.Request(there.Node, New));
        var url = there.Host.Route().EngineUrl!;
        using var agent = new HttpClient(there.Host.Services.GetRequiredService<NodeLinks>().Handler());
        using var files = new HttpClient(there.Host.Services.GetRequiredService<NodeLinks>().Handler()) { BaseAddress = url };

        (await agent.GetAsync(new Uri($"{url}/v1/models"), Ct)).StatusCode.ShouldBe(HttpStatusCode.NotFound);
        (await agent.PostAsync(new Uri($"{url}/backend.Backend/Health"), new ByteArrayContent([]), Ct)).StatusCode.ShouldBe(HttpStatusCode.NotFound);
        foreach (var path in (string[])["other.Service/Do", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"])
        {
            using var call = new HttpRequestMessage(HttpMethod.Post, $"{url}/{path}") { Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact };
            call.Content = new ByteArrayContent([0, 0, 0, 0, 0]) { Headers = { ContentType = new("application/grpc") } };
            (await agent.SendAsync(call, Ct)).StatusCode.ShouldBe(HttpStatusCode.NotFound, path);
        }
        foreach (var place in (string[])[$"/files/{there.Host.Route().RunId}/..%2F..%2Fnode-id", "/files/x/y", $"/files/{there.Host.Route().RunId}/.hidden"])
            (await files.GetAsync(new Uri(place, UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.BadRequest, place);
        (await files.GetAsync(new Uri($"/files/{there.Host.Route().RunId}/none", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    private async Task<Place> PlaceAsync(string backend, bool remote) => await Place.StartAsync(scripts, remote, backend);

    private static async Task<RpcException> FailureAsync(Task call) => await Should.ThrowAsync<RpcException>(() => call);

    private static async Task HearAsync(IAsyncEnumerable<Reply> pieces, List<string> heard)
    {
        await foreach (var piece in pieces)
            heard.Add(piece.Message.ToStringUtf8());
    }
}
