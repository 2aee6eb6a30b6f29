using System.Text;
using ModelHost.Agent;
using ModelHost.Agent.Metering;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.Metering;

public sealed class EventStreamTests
{
    private const string Role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    private const string Word = "data: {\"choices\":[{\"delta\":{\"content\":\"a \\\"usage\\\" b\"}}]}\n\n";
    private const string Count = "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"total_tokens\":9,\"completion_tokens\":2}}\n\n";
    private const string Done = "data: [DONE]\n\n";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("")]
    [InlineData(Role + Word + Word + Done)]
    [InlineData(Role + Word + Count + Done)]
    [InlineData("event: a\r\ndata: {\"usage\":{\"input_tokens\":1}}\r\n\r\n: comment\n\n")]
    [InlineData("data: {\"choices\":[],\"usage\":null}\n\ndata: without an end")]
    public async Task What_the_client_asked_for_passes_byte_by_byte_however_it_is_cut(string events)
    {
        foreach (var piece in (int[])[1, 2, 3, 7, 64, int.MaxValue])
        {
            var (passed, call) = await PassAsync(events, () => piece, strips: false);

            passed.ShouldBe(events, $"in pieces of {piece}");
            call.IsBroken.ShouldBeFalse();
        }
    }

    [Theory]
    [InlineData(Role + Word + Word + Count + Done, Role + Word + Word + Done)]
    [InlineData("data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n" + Done, null)]
    [InlineData("data: {\"choices\":[],\"usage\":null,\"prompt_filter_results\":[1]}\n\n" + Count + Done, "data: {\"choices\":[],\"usage\":null,\"prompt_filter_results\":[1]}\n\n" + Done)]
    [InlineData("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\r\n\r\ndata: [DONE]\r\n\r\n", "data: [DONE]\r\n\r\n")]
    [InlineData(Count, "")]
    public async Task The_count_that_the_client_did_not_ask_for_is_read_and_taken_out(string events, string? left)
    {
        foreach (var piece in (int[])[1, 2, 3, 7, 64, int.MaxValue])
        {
            var (passed, call) = await PassAsync(events, () => piece, strips: true);

            passed.ShouldBe(left ?? events, $"in pieces of {piece}");
            call.Used(isWhole: true).ShouldBe((7, 2));
        }
    }

    [Fact]
    public async Task An_event_longer_than_is_kept_passes_and_what_follows_is_counted()
    {
        var events = $"data: {{\"x\":\"{new string('x', 3 * EventStream.LongestEvent)}\"}}\n\n{Word}{Count}{Done}";

        var (passed, call) = await PassAsync(events, () => 10_000, strips: false);

        (passed == events).ShouldBeTrue();
        call.Used(isWhole: true).ShouldBe((7, 2));
    }

    [Fact]
    public async Task A_count_at_the_end_of_an_event_that_is_too_long_to_be_kept_is_read()
    {
        foreach (var piece in (int[])[10_000, 100_003])
        {
            for (var cut = 0; cut < 60; cut++)
            {
                var text = new string('x', EventStream.LongestEvent + (3 * piece) - cut);
                var events = $"event: response.completed\ndata: {{\"response\":{{\"output\":\"{text}\",\"usage\":{{\"input_tokens\":7,\"output_tokens\":2}}}}}}\n\n";

                var (passed, call) = await PassAsync(events, () => piece, strips: false, shape: AnswerShape.Responses);

                passed.Length.ShouldBe(events.Length);
                call.Used(isWhole: true).ShouldBe((7, 2), $"{cut}");
            }
        }
    }

    [Fact]
    public async Task What_a_client_has_sent_back_to_it_is_not_counted()
    {
        const string Created = "data: {\"type\":\"response.created\",\"response\":{\"usage\":null,\"tools\":[{\"parameters\":{\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}}]}}\n\n";
        const string Delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";

        var (_, aborted) = await PassAsync(Created + Delta + Delta, () => 50, strips: false, breaks: true, shape: AnswerShape.Responses);

        aborted.Used(isWhole: false).ShouldBe((0, 2));
    }

    [Theory]
    [InlineData(Role + Word + Word + Done, (int)AnswerShape.Chat, 0, 2)]
    [InlineData("data: {\"message\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":0}}}\n\ndata: {\"delta\":1}\n\ndata: {\"delta\":1}\n\n", (int)AnswerShape.Messages, 7, 2)]
    public async Task Of_a_stream_without_a_count_the_events_are_counted(string events, int shape, long prompt, long completion)
    {
        var (_, call) = await PassAsync(events, () => 50, strips: false, shape: (AnswerShape)shape);

        call.Used(isWhole: false).ShouldBe((prompt, completion));
        if (shape == (int)AnswerShape.Chat)
            call.Used(isWhole: true).ShouldBe((prompt, completion));
    }

    [Fact]
    public async Task A_client_that_reads_slowly_is_not_an_engine_that_is_silent()
    {
        using var silent = new CancellationTokenSource();
        await using var stream = new EventStream(new PieceStream(Encoding.UTF8.GetBytes(Word + Word + Done), () => Word.Length), await CallAsync(silent), TimeSpan.FromMinutes(1));
        using var leaving = new CancellationTokenSource();
        var into = new byte[Word.Length];
        var first = await stream.ReadAsync(into, leaving.Token);

        await silent.CancelAsync(); // as it does by itself while the client takes its time
        var second = await stream.ReadAsync(into, leaving.Token);
        await leaving.CancelAsync();

        (first, second).ShouldBe((Word.Length, Word.Length));
        await Should.ThrowAsync<OperationCanceledException>(async () => first += await stream.ReadAsync(into, leaving.Token));
    }

    [Fact]
    public async Task A_stream_that_breaks_off_ends_with_an_error_and_without_half_an_event()
    {
        var (passed, call) = await PassAsync(Role + Word + Word + "data: {\"choi", () => 50, strips: true, breaks: true);

        passed.ShouldStartWith(Role + Word + Word + "data: {\"error\":{\"message\":\"The engine that serves 'm' does not answer.\",\"type\":\"upstream_error\",");
        passed.ShouldEndWith("\"code\":\"deployment_unreachable\"}}\n\ndata: [DONE]\n\n");
        call.IsBroken.ShouldBeTrue();
        call.Used(isWhole: false).ShouldBe((0, 2));
    }

    [Theory]
    [InlineData((int)AnswerShape.Messages, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"")]
    [InlineData((int)AnswerShape.Responses, "event: error\ndata: {\"type\":\"error\",\"code\":\"deployment_unreachable\",\"message\":\"")]
    public async Task Each_api_ends_a_broken_stream_in_its_own_way(int shape, string error)
    {
        var (passed, _) = await PassAsync("event: a\ndata: 1\n\n", () => 100, strips: false, breaks: true, shape: (AnswerShape)shape);

        passed.ShouldStartWith("event: a\ndata: 1\n\n" + error);
        passed.ShouldEndWith("}\n\n");
        passed.ShouldNotContain("[DONE]");
    }

    [Fact]
    public async Task Before_the_first_byte_a_failure_is_thrown() =>
        await Should.ThrowAsync<IOException>(() => PassAsync("", () => 100, strips: false, breaks: true));

    /// <summary>More rounds: <c>MODELHOST_FUZZ_ROUNDS</c>.</summary>
    [Fact]
    public async Task Random_streams_cut_at_random_places_lose_the_count_alone()
    {
        var random = new Random(20260902);
        for (var round = 0; round < FuzzRounds.Of(250_000); round++)
        {
            var (events, left) = (new StringBuilder(), new StringBuilder());
            for (var i = random.Next(8); i > 0; i--)
            {
                var piece = random.Next(6) switch { 0 => Count, 1 => Role, 2 => Done, 3 => ": keep-alive\n\n", 4 => "data: {\"usage\":{\"prompt_tokens\":1}}\n\n", _ => Word };
                events.Append(piece);
                if (piece != Count)
                    left.Append(piece);
            }
            var text = events.ToString();

            var (passed, _) = await PassAsync(text, () => random.Next(1, 200), strips: true, buffer: random.Next(1, 300));

            if (passed != left.ToString())
                Assert.Fail($"round {round}: {passed} of {text}");
        }
    }

    private static async Task<(string Passed, MeteredCall Call)> PassAsync(
        string events, Func<int> piece, bool strips, bool breaks = false, AnswerShape shape = AnswerShape.Chat, int buffer = 65_536)
    {
        using var silent = new CancellationTokenSource();
        var call = await CallAsync(silent, shape, strips);
        Stream engine = new PieceStream(Encoding.UTF8.GetBytes(events), piece);
        await using var stream = new EventStream(breaks ? new BreakingStream(engine) : engine, call, TimeSpan.FromMinutes(1));
        var passed = new MemoryStream();
        var into = new byte[buffer];
        int read;
        while ((read = await stream.ReadAsync(into, Ct)) > 0)
            passed.Write(into, 0, read);
        return (Encoding.UTF8.GetString(passed.ToArray()), call);
    }

    private static async Task<MeteredCall> CallAsync(CancellationTokenSource silent, AnswerShape shape = AnswerShape.Chat, bool strips = false)
    {
        var (body, _, _) = await RequestBody.ReadAsync(new MemoryStream(Encoding.UTF8.GetBytes("""{"model":"m","stream":true}""")), null, 1000, Ct);
        if (strips)
            body!.AskForUsage();
        var route = new ModelRoute(1, DeploymentStatus.Running, null, "m", [], "tests", DateTimeOffset.UnixEpoch, null, null);
        return new MeteredCall(new GatewayRoute("/x", shape), route, body!, new CallDeadlines()) { IsStream = true, Silence = silent };
    }

    /// <summary>Breaks off where another stream ends.</summary>
    private sealed class BreakingStream(Stream whole) : StreamOver(whole)
    {
        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            await Inner.ReadAsync(buffer, cancellationToken) is > 0 and var read ? read : throw new IOException("broken off");
    }
}
