using System.Net;
using System.Net.Http.Headers;
using System.Text;
using ModelHost.Agent.Engines;
using ModelHost.Core.Backends;
using ModelHost.Protocol;

namespace ModelHost.Tests.Engines;

/// <summary>What an engine is asked over HTTP, and what becomes of its answers.</summary>
public sealed class OpenAiProtocolTests
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Connection_that_breaks_as_the_call_is_given_up_is_no_failure_of_its_own(bool isProbe)
    {
        using var over = new CancellationTokenSource();
        using var http = new HttpClient(new Handler(_ =>
        {
            over.Cancel();
            throw new IOException("connection reset by peer");
        }));
        var protocol = Protocol(http);

        await Should.ThrowAsync<OperationCanceledException>(isProbe ? protocol.IsReadyAsync(over.Token) : protocol.ReadAsync(over.Token));
    }

    [Fact]
    public async Task Connection_that_breaks_is_an_engine_that_does_not_answer()
    {
        using var http = new HttpClient(new Handler(_ => throw new IOException("connection reset by peer")));
        var protocol = Protocol(http);
        var engine = new Engine { Metrics = new EngineMetrics { Requests = 3 } };

        (await protocol.IsReadyAsync(TestContext.Current.CancellationToken)).ShouldBeFalse();
        (await protocol.ReadAsync(TestContext.Current.CancellationToken))!(engine);

        (engine.Metrics.Requests, engine.Metrics.Stale).ShouldBe((3, "connection reset by peer"));
    }

    [Fact]
    public async Task Figures_are_read_whatever_encoding_the_engine_says_they_are_in()
    {
        using var http = new HttpClient(new Handler(_ => new HttpResponseMessage(HttpStatusCode.OK)
        {
            Content = new ByteArrayContent(Encoding.UTF8.GetBytes("vllm:prompt_tokens_total 7\n")) { Headers = { ContentType = MediaTypeHeaderValue.Parse("text/plain; charset=none-such") } },
        }));
        var engine = new Engine();

        (await Protocol(http).ReadAsync(TestContext.Current.CancellationToken))!(engine);

        engine.Metrics.PromptTokens.ShouldBe(7);
    }

    private static OpenAiProtocol Protocol(HttpClient http) =>
        new(http, BackendCatalogue.BuiltIn["vllm"], new Uri("http://127.0.0.1:9"), "key", TimeProvider.System);

    private sealed class Handler(Func<HttpRequestMessage, HttpResponseMessage> answer) : HttpMessageHandler
    {
        protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken) => Task.FromResult(answer(request));
    }
}
