using System.Net;
using System.Text.Json;
using ModelHost.Protocol.Backend;
using ModelHost.TestKit;

namespace ModelHost.Tests.Gateway.Grpc;

/// <summary>Embeddings, ranks and tokens by way of a gRPC backend.</summary>
public sealed class VectorTests
{
    [Fact]
    public async Task Texts_and_tokens_are_embedded_one_by_one()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Embed = asked => new EmbeddingResult { Embeddings = { asked.Embeddings.Length, 0.5f }, PromptTokens = 2 };

        var (_, one) = await PostAsync(host, """{"model":"m","input":"abc"}""");
        var (_, two) = await PostAsync(host, """{"model":"m","input":["a","ab"],"encoding_format":"base64","dimensions":2}""");
        var (_, tokens) = await PostAsync(host, """{"model":"m","input":[1,2,3]}""");
        var (_, lists) = await PostAsync(host, """{"model":"m","input":[[1],[2,3]]}""");

        one.ShouldBe("""{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":[3,0.5]}],"usage":{"prompt_tokens":2,"total_tokens":2}}""");
        two.ShouldBe("""{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAD8="},{"object":"embedding","index":1,"embedding":"AAAAQAAAAD8="}],"usage":{"prompt_tokens":4,"total_tokens":4}}""");
        backend.Asked.OfType<PredictOptions>().Select(asked => (asked.Embeddings, string.Join(',', asked.EmbeddingTokens), asked.ModelIdentity))
            .ShouldBe([("abc", "", "org/model"), ("a", "", "org/model"), ("ab", "", "org/model"), ("", "1,2,3", "org/model"), ("", "1", "org/model"), ("", "2,3", "org/model")]);
        (Data(tokens), Data(lists)).ShouldBe((1, 2));

        static int Data(string answer) => JsonDocument.Parse(answer).RootElement.GetProperty("data").GetArrayLength();
    }

    [Theory]
    [InlineData("""{"model":"m"}""", "input")]
    [InlineData("""{"model":"m","input":[]}""", "input")]
    [InlineData("""{"model":"m","input":""}""", "input")]
    [InlineData("""{"model":"m","input":["a",1]}""", "input[1]")]
    [InlineData("""{"model":"m","input":[1,"a"]}""", "input[1]")]
    [InlineData("""{"model":"m","input":"a","encoding_format":"hex"}""", "encoding_format")]
    [InlineData("""{"model":"m","input":"a","dimensions":3}""", "dimensions")]
    public async Task Inputs_that_are_none_are_named(string body, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Embed = _ => new EmbeddingResult { Embeddings = { 1 } };

        var (status, answer) = await PostAsync(host, body);

        status.ShouldBe(HttpStatusCode.BadRequest, answer);
        JsonDocument.Parse(answer).RootElement.GetProperty("error").GetProperty("param").GetString().ShouldBe(field);
    }

    [Fact]
    public async Task Embeddings_that_are_none_are_the_backends_fault()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);

        backend.Embed = _ => new EmbeddingResult();
        var (empty, _) = await PostAsync(host, """{"model":"m","input":"a"}""");
        backend.Embed = _ => new EmbeddingResult { Embeddings = { float.NaN } };
        var (noNumber, _) = await PostAsync(host, """{"model":"m","input":"a"}""");
        backend.Embed = _ => new EmbeddingResult { Embeddings = { 1, 2 }, Dim = 1, Layout = EmbeddingResult.Types.Layout.PerToken };
        var (perToken, _) = await PostAsync(host, """{"model":"m","input":"a"}""");

        (empty, noNumber, perToken).ShouldBe((HttpStatusCode.BadGateway, HttpStatusCode.BadGateway, HttpStatusCode.NotImplemented));
    }

    [Fact]
    public async Task Documents_are_ranked_as_LocalAI_tells_it()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Rank = asked => new RerankResult
        {
            Usage = new ModelHost.Protocol.Backend.Usage { PromptTokens = 7, TotalTokens = 9 },
            Results = { asked.Documents.Select((text, i) => new DocumentResult { Index = i, Text = text, RelevanceScore = i / 4f }) },
        };

        var (_, answer) = await PostAsync(host, """{"model":"m","query":"q","documents":["a",{"text":"b"},"c"],"top_n":2}""", "/v1/rerank");
        backend.Rank = _ => new RerankResult { Results = { new DocumentResult { Index = 5 } } };
        var (garbage, _) = await PostAsync(host, """{"model":"m","query":"q","documents":["a"]}""", "/v1/rerank");
        var (refused, body) = await PostAsync(host, """{"model":"m","query":"q","documents":["a",3]}""", "/v1/rerank");

        answer.ShouldBe("""{"model":"m","usage":{"total_tokens":9,"prompt_tokens":7},"results":[{"index":2,"document":{"text":"c"},"relevance_score":0.5},{"index":1,"document":{"text":"b"},"relevance_score":0.25}]}""");
        (garbage, refused).ShouldBe((HttpStatusCode.BadGateway, HttpStatusCode.BadRequest));
        body.ShouldContain("documents[1]");
    }

    [Fact]
    public async Task Tokens_go_both_ways_as_LocalAI_tells_them()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Split = asked => new TokenizationResponse { Length = 2, Tokens = { asked.Prompt.Length, 7 } };
        backend.Join = asked => new() { Content = string.Join('-', asked.Tokens) };

        (await PostAsync(host, """{"model":"m","content":"abc"}""", "/v1/tokenize")).ShouldBe((HttpStatusCode.OK, """{"tokens":[3,7]}"""));
        (await PostAsync(host, """{"model":"m","prompt":"abcd"}""", "/v1/tokenize")).ShouldBe((HttpStatusCode.OK, """{"tokens":[4,7]}"""));
        (await PostAsync(host, """{"model":"m","tokens":[1,2]}""", "/v1/detokenize")).ShouldBe((HttpStatusCode.OK, """{"content":"1-2"}"""));
        (await PostAsync(host, """{"model":"m","tokens":["a"]}""", "/v1/detokenize")).Body.ShouldContain("tokens[0]");
        (await PostAsync(host, """{"model":"m"}""", "/v1/tokenize")).Status.ShouldBe(HttpStatusCode.BadRequest);
    }

    private static Task<(HttpStatusCode Status, string Body)> PostAsync(ControlPlane host, string body, string path = "/v1/embeddings") => ChatTests.PostAsync(host, body, path);
}
